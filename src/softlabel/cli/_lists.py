"""softlabel ls and fetch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import tyro

from softlabel.cli._options import Session
from softlabel.cli._output import print_json, print_table
from softlabel.core import Option, UnknownNameError, format_spec
from softlabel.data import fetch_dataset, find_datasets
from softlabel.distill import METHODS
from softlabel.evaluation import EXECUTORS, PROTOCOLS
from softlabel.generate import CHOICES, DENOISERS, SAMPLERS
from softlabel.generate import KINDS as KINDS_OF_AUTOENCODERS
from softlabel.generate import SCHEDULES as NOISE
from softlabel.labels import CODECS, EDITS
from softlabel.losses import LOSSES
from softlabel.models import BACKBONES, MODELS
from softlabel.recipes import LAB, RECIPES, STUDIES, find_lab, find_recipe, find_study
from softlabel.training import OPTIMIZERS, POLICIES, REGIMES, SCHEDULES, STACKS

Row = tuple[str, str]


def _datasets() -> Iterable[Row]:
    for found in find_datasets():
        yield found.name, ". ".join(str(part) for part in (found.status, found.path, found.note) if part)


def _with(summary: str, options: Mapping[str, Option]) -> str:
    return f"{summary} [{format_spec('', options)[1:]}]" if options else summary


KINDS: dict[str, Callable[[], Iterable[Row]]] = {
    "recipes": lambda: ((name, find_recipe(name).summary) for name in RECIPES),
    "studies": lambda: ((name, find_study(name).summary) for name in STUDIES),
    "lab": lambda: ((name, find_lab(name).summary) for name in LAB),
    "datasets": _datasets,
    "methods": lambda: ((name, _with(method.summary, vars(method.config()))) for name, method in METHODS.items()),
    "losses": lambda: ((name, _with(loss.summary, loss.options)) for name, loss in LOSSES.items()),
    "protocols": lambda: ((name, protocol.source) for name, protocol in PROTOCOLS.items()),
    "backbones": lambda: BACKBONES.items(),
    "models": lambda: MODELS.items(),
    "autoencoders": lambda: KINDS_OF_AUTOENCODERS.items(),
    "denoisers": lambda: DENOISERS.items(),
    "noise": lambda: NOISE.items(),
    "samplers": lambda: SAMPLERS.items(),
    "choices": lambda: CHOICES.items(),
    "labels": lambda: REGIMES.items(),
    "codecs": lambda: CODECS.items(),
    "edits": lambda: ((name, _with(edit.summary, edit.options)) for name, edit in EDITS.items()),
    "optimizers": lambda: OPTIMIZERS.items(),
    "schedules": lambda: SCHEDULES.items(),
    "stacks": lambda: STACKS.items(),
    "executors": lambda: EXECUTORS.items(),
    "views": lambda: ((name, ", ".join(type(op).__name__ for op in policy(2))) for name, policy in POLICIES.items()),
}


@dataclass(frozen=True, kw_only=True)
class Ls:
    """List what there is: recipes, studies, datasets, methods, losses, protocols, models, labels, optimizers, ...

    Example: softlabel ls datasets
    """

    kind: tyro.conf.Positional[str] = "recipes"
    """What to list."""
    json: bool = False
    """Print JSON on stdout."""

    def run(self, session: Session) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("list", self.kind, KINDS)
        rows = list(KINDS[self.kind]())
        if self.json:
            print_json(dict(rows))
        else:
            print_table("", (self.kind, ""), rows)


@dataclass(frozen=True, kw_only=True)
class Fetch:
    """Download a data set into the user cache and check its SHA-256. The only command that uses the network unasked.

    Example: softlabel fetch fashion-mnist
    """

    name: tyro.conf.Positional[str]
    """Name of the data set."""

    def run(self, session: Session) -> None:
        print(f"data: {fetch_dataset(self.name, progress=session.progress)}")
