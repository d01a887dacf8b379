"""softlabel labeler: a projector of few bytes in place of a teacher (HeLlO)."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from softlabel.cli._options import Data, Machine, Session
from softlabel.cli._output import print_json, print_plan, print_table
from softlabel.core import ConfigError, DistilledSet, human_bytes
from softlabel.evaluation import plan_one_labeler, read_given
from softlabel.labels import (
    HelloConfig,
    load_labeler,
    train_labeler,
    train_set_labeler,
    weak_stops,
)
from softlabel.models import load_backbone
from softlabel.store import read_artifact
from softlabel.training import Teacher, kept_epochs, load_teacher

OWN = {"set_epochs": 0, "offset_epochs": 30}
"""Of a labeler of one set, where nothing else is asked for."""


@dataclass(frozen=True, kw_only=True)
class MakeLabeler:
    """Train a labeler of few stored bytes (HeLlO): a public backbone with low-rank updates, taught by weak teachers.

    It stands wherever a --teacher does. With --set it is made for the images of one distilled set, and labels these
    better.

    Example: softlabel labeler --teacher PATH --stops 8 16 24 --backbone efficientnet-lite0
    """

    teacher: Path
    """Folder of a teacher with its trajectory (softlabel teach)."""
    stops: tuple[int, ...] | None = None
    """Epochs of the trajectory whose mean logits teach. Default: half way, three quarters and the end, or the
    nearest of the last half that were kept."""
    backbone: str = HelloConfig.backbone
    """Public backbone. See: softlabel ls backbones"""
    size: int = HelloConfig.size
    """Pixels per side that the backbone is given; 0 for its own."""
    rank: int = HelloConfig.rank
    """Of the updates of the backbone's layers; 0 leaves it as it is."""
    head_rank: int = HelloConfig.head_rank
    """Of the head."""
    text: bool = HelloConfig.text
    """Begin the head at the text embeddings of the class names, where the backbone has texts."""
    prompt: str = HelloConfig.prompt
    """{} stands for the class name."""
    weight: float = HelloConfig.weight
    """Of the cross-entropy beside the squared distance to the teachers' logits."""
    epochs: int = HelloConfig.epochs
    """Over the real training images; 0 keeps the head as it begins."""
    batch: int = HelloConfig.batch
    """Batch size."""
    lr: float = HelloConfig.lr
    """Learning rate at the start."""
    views: str = HelloConfig.views
    """Augmentation of the images that it is trained on: best that of the students. See: softlabel ls views"""
    set: Path | None = None
    """Folder of the one distilled set that it is to label."""
    set_epochs: int | None = None
    """Epochs of training on the images of --set, after the real ones. Default: 0."""
    offset_epochs: int | None = None
    """Epochs of views of the images of --set over which an offset per image is taken. Default: 30."""
    refit: bool = HelloConfig.refit
    """With the offsets, fit the head anew to how the views of one image differ: with enough views, closer labels
    for no bytes more."""
    seed: int = 0
    """Seed of order and views."""
    out: Path | None = None
    """Folder to keep it in. Default: its place in the store. (One of a --set is made of one for all images, and offsets
    of one trained with --set-epochs: those are kept in the store.)"""
    data: Data = field(default_factory=Data)
    machine: Machine = field(default_factory=Machine)

    def run(self, session: Session) -> None:
        names = ("backbone", "size", "rank", "head_rank", "text", "prompt", "weight", "epochs", "batch", "lr", "views",
                 "refit")  # fmt: skip
        distilled = self._distilled()
        own = {name: value for name in OWN if (value := getattr(self, name)) is not None}
        if distilled is not None:
            own = {**OWN, **own}
        config = HelloConfig(**{name: getattr(self, name) for name in names}, **own)
        last = load_teacher(self.teacher)
        teachers = weak_teachers(self.teacher, self.stops)
        store, execution = self.machine.open_store(self.out), self.machine.execution()
        data = self.data.options(last.info).load(session.progress)
        if self.machine.dry_run:
            lines = plan_one_labeler(config, teachers, distilled, data, self.seed, store, execution, out=self.out)
            print_plan(lines, execution, self.machine.json)
            return
        make = partial(train_labeler, data, teachers, config)
        if distilled is not None:
            make = partial(train_set_labeler, data, teachers, config, distilled)
        path = make(store=store, execution=execution, seed=self.seed, out=self.out, progress=session.progress)
        meta, made = read_artifact(path, "labeler", verify=False).meta, load_labeler(path)
        if self.machine.json:
            print_json({"labeler": str(path), "bytes": made.size, "public_bytes": made.public, **meta})
            return
        alike = f"{meta['likeness']:.3f}" if "likeness" in meta else "not measured"
        row = (config.backbone, f"{100 * meta['test_accuracy']:.1f} %", f"{100 * (last.accuracy or 0):.1f} %",
               alike, human_bytes(made.size), human_bytes(made.public), human_bytes(last.size))  # fmt: skip
        told, seen = f"Labeler on {data.info.name}", "training images"
        if distilled is not None:
            told, seen = f"{told}, of the set {self.set} alone", "the set"
        columns = ("backbone", "test accuracy", "teacher's", f"cosine to teachers' labels, views of {seen}",
                   "bytes stored", "public backbone", "teacher's bytes")  # fmt: skip
        print_table(told, columns, [row], numbers=6)
        print(f"labeler: {path}")

    def _distilled(self) -> DistilledSet | None:
        """The set whose own labeler it is to be."""
        if self.set is None and (self.set_epochs, self.offset_epochs, self.refit) != (None, None, HelloConfig.refit):
            raise ConfigError(
                "--set-epochs, --offset-epochs and --refit are of the images of a distilled set. Give it with --set."
            )
        return None if self.set is None else read_given(self.set, load_teacher(self.teacher).info)


def weak_teachers(path: Path, stops: tuple[int, ...] | None = None) -> list[Teacher]:
    """Checkpoints of one trajectory: those of `stops`, or of `weak_stops`.

    Raises:
        ConfigError: the same epoch twice.
        StoreError: no teacher there, or an epoch that it did not keep.
    """
    if stops is None:
        stops = weak_stops([epoch for epoch in kept_epochs(path) if epoch])
    if len(set(stops)) < len(stops):
        raise ConfigError(f"--stops takes different epochs. Got {', '.join(map(str, stops))}.")
    return [load_teacher(path, epoch) for epoch in stops]


def hello_of(spec: str, teachers: tuple[Path, ...]) -> HelloConfig:
    """The settings of a labeler's spec, such as `hello:rank=4`.

    Raises:
        UnknownNameError: no such kind of labeler.
        ConfigError: an option that does not exist or makes no sense, or not one teacher.
    """
    config = HelloConfig.parse(spec)
    if len(teachers) != 1:
        raise ConfigError(f"A labeler learns from the trajectory of one --teacher. Got {len(teachers)}.")
    load_backbone(config.backbone, config.size or None)  # one that is not here is told before work starts
    return config
