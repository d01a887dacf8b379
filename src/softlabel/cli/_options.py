"""Options that commands share, and what they turn into."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from softlabel.cli._output import ConsoleProgress
from softlabel.core import ConfigError
from softlabel.evaluation import DataOptions
from softlabel.store import Store
from softlabel.training import Execution, Teacher, load_teacher, resolve_execution


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where results go and how they are computed."""

    store: Path | None = None
    """Folder for everything made. Default: $SOFTLABEL_STORE, or softlabel-store here."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: str = "auto"
    """auto, fp32 or bf16."""
    resume: bool = True
    """Finished work is found and interrupted work continued. --no-resume makes everything again, in a new folder
    `again-N` inside the store; nothing is overwritten."""
    dry_run: bool = False
    """Check everything, print the plan with a forecast of time, memory and disk, and stop."""
    json: bool = False
    """Print the result as JSON on stdout."""

    def open_store(self) -> Store:
        """The store of this command; with --no-resume a fresh one inside it."""
        store = Store(self.store) if self.store is not None else Store.default()
        if self.resume:
            return store
        number = 1
        while (store.root / f"again-{number}").exists():
            number += 1
        return Store(store.root / f"again-{number}")

    def execution(self) -> Execution:
        return resolve_execution(self.device, self.precision)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The real data."""

    data: str | None = None
    """digits, fashion-mnist, cifar10, tiny-imagenet-200, imagefolder:PATH, parquet:PATH or hf:NAME."""
    image_size: str | None = None
    """HEIGHTxWIDTH in pixels: images are resized by their short side and cropped at the centre."""
    channels: int | None = None
    """1 for grey, 3 for colour. Default: as the images are."""
    selection: float = 0.0
    """Share of the train split to set aside for choosing things (0 to 0.5)."""

    def options(self, default: str | None = None) -> DataOptions:
        """Raises ConfigError when no data is named, or the size cannot be read."""
        spec = self.data or default
        if spec is None:
            raise ConfigError("Which data? Name it with --data, for example --data cifar10. See: softlabel ls datasets")
        return DataOptions(
            spec=spec, image_size=_size(self.image_size), channels=self.channels, selection=self.selection
        )


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """The labelling teachers."""

    teacher: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = field(default=())
    """Folder of a trained teacher (softlabel teach prints it). Repeat for an ensemble: logits are averaged."""
    teacher_epoch: int | None = None
    """An earlier epoch of the teachers' trajectories. Default: the last."""

    def load(self) -> list[Teacher]:
        return [load_teacher(path, self.teacher_epoch) for path in self.teacher]


@dataclass(frozen=True)
class Session:
    """One command at work: the words it was called with, and its progress."""

    words: tuple[str, ...]
    progress: ConsoleProgress

    @property
    def command(self) -> str:
        """The command line, as a person types it again."""
        return shlex.join(["softlabel", *self.words])


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.lower().partition("x")
    if not height.isdecimal() or not (width or height).isdecimal():
        raise ConfigError(f"--image-size must look like 64x64 (height x width) or 64. Got {text!r} instead.")
    return int(height), int(width or height)
