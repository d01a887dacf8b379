"""Options that commands share, and what they turn into."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from softlabel.cli._output import ConsoleProgress
from softlabel.core import ConfigError, DatasetInfo
from softlabel.distill import find_method
from softlabel.evaluation import DataOptions, set_teachers
from softlabel.labels import LabelSpec, load_labeler
from softlabel.store import Store, is_complete, read_artifact, require_free
from softlabel.training import REGIMES, Execution, Teacher, load_teacher, resolve_execution


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where results go and how they are computed."""

    store: Path | None = None
    """Folder for everything made. Default: $SOFTLABEL_STORE, or softlabel-store here."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: str = "auto"
    """auto, fp32 or bf16."""
    compile: bool = False
    """Train and test models under torch.compile: each model's first step takes a while, the others are faster. Needs a
    C++ compiler."""
    resume: bool = True
    """Finished work is found and interrupted work continued. --no-resume makes everything again, in a new folder
    `again-N` inside the store; nothing is overwritten."""
    dry_run: bool = False
    """Check everything, print the plan with a forecast of time, memory and disk, and stop."""
    json: bool = False
    """Print the result as JSON on stdout."""

    def open_store(self, out: Path | None = None) -> Store:
        """The store of this command, writable; with --no-resume a fresh one inside it.

        Raises:
            StoreError: nothing can be written there, or something that is no artifact stands at --out.
            ConfigError: --no-resume with an --out that exists.
        """
        store = Store(self.store) if self.store is not None else Store.default()
        if not self.resume:
            if out is not None and os.path.exists(out):
                raise ConfigError(
                    f"--no-resume makes everything again, and {out} is there already. Choose another --out."
                )
            number = 1
            while (store.root / f"again-{number}").exists():
                number += 1
            store = Store(store.root / f"again-{number}")
        if out is not None:
            require_free(out)
        if not self.dry_run and out is None:
            store.require_writable()
        return store

    def execution(self) -> Execution:
        return resolve_execution(self.device, self.precision, self.compile)


@dataclass(frozen=True, kw_only=True)
class Data:
    """The real data."""

    data: str | None = None
    """digits, fashion-mnist, cifar10, tiny-imagenet-200, imagefolder:PATH, parquet:PATH or hf:NAME."""
    image_size: str | None = None
    """HEIGHTxWIDTH in pixels: images are resized by their short side and cropped at the centre."""
    channels: int | None = None
    """1 for grey, 3 for colour. Default: as the images are."""
    selection: float | None = None
    """Share of the train split to set aside for choosing things (0 to 0.5). Default: none, or the study's."""
    classes: int | None = None
    """Keep only so many classes, the first by index. Default: all."""

    def options(self, known: DatasetInfo | None = None, usual: DataOptions | None = None) -> DataOptions:
        """What to load: as asked, as the data behind a set or teacher was loaded, or a study's own data.

        Raises:
            ConfigError: no data is named, or the size cannot be read.
        """
        size = _size(self.image_size)
        share = usual.selection if usual is not None and self.selection is None else self.selection
        if self.data is not None:
            return DataOptions(
                spec=self.data,
                image_size=size,
                channels=self.channels,
                selection=share or 0.0,
                classes=self.classes,
            )
        if usual is not None:
            return replace(
                usual,
                image_size=size or usual.image_size,
                channels=usual.channels if self.channels is None else self.channels,
                selection=share or 0.0,
                classes=usual.classes if self.classes is None else self.classes,
            )
        if known is None:
            raise ConfigError("Which data? Name it with --data, for example --data cifar10. See: softlabel ls datasets")
        before = known.options
        return DataOptions(
            spec=before.get("spec", known.name),
            image_size=size or (tuple(before["image_size"]) if "image_size" in before else None),
            channels=before.get("channels") if self.channels is None else self.channels,
            selection=before.get("selection", 0.0) if share is None else share,
            classes=before.get("classes") if self.classes is None else self.classes,
        )


@dataclass(frozen=True, kw_only=True)
class Teachers:
    """The labelling teachers."""

    teacher: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Folder of a trained teacher (softlabel teach prints it), or of a labeler (softlabel labeler). Repeat it for an
    ensemble: logits are averaged."""
    teacher_epoch: int | None = None
    """An earlier epoch of the teachers' trajectories. Default: the last."""

    def load(self) -> list[Teacher]:
        return [self._load(path) for path in self.teacher]

    def _load(self, path: Path) -> Teacher:
        if is_complete(path) and read_artifact(path, verify=False).kind == "labeler":
            if self.teacher_epoch is not None:
                raise ConfigError(f"The labeler at {path} has no earlier epochs. Leave --teacher-epoch out.")
            return load_labeler(path)
        return load_teacher(path, self.teacher_epoch)

    def load_for(self, method: str) -> list[Teacher]:
        """What a distillation method looks at: the teachers, or the whole trajectory of the one given.

        Raises:
            ConfigError: a method that follows one training, and several teachers or an epoch.
        """
        found, _ = find_method(method)
        if found.teacher != "trajectory" or not self.teacher:
            return self.load()
        if len(self.teacher) > 1 or self.teacher_epoch is not None:
            raise ConfigError(
                f"The method {found.name!r} follows one training from its start. Give one --teacher, and no epoch."
            )
        return set_teachers(method, self.teacher[0])


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


def regime_alone(labels: str | None) -> str | None:
    """The label regime that `labels` names.

    Raises:
        ConfigError: more than its name.
    """
    if labels is not None and {"+", ":"} & {*labels}:
        LabelSpec.parse(labels)  # which says what is no such thing
        raise ConfigError(
            f"softlabel evaluate compares labels as they are made: {', '.join(REGIMES)}. Got {labels!r}: for codecs, "
            f"edits or fewer epochs take softlabel train, or softlabel lab bytes --labels {labels}."
        )
    return labels
