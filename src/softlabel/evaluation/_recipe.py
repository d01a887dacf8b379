"""A whole story as one configuration: data, teacher, labelers, sets, comparison."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from softlabel.core import ConfigError, Dataset, Progress, Silent
from softlabel.data import load_dataset
from softlabel.distill import ImageUpdate, needs_generator
from softlabel.evaluation._comparison import Comparison
from softlabel.evaluation._generated import GeneratorOptions, TimedSet
from softlabel.evaluation._sets import SetOptions
from softlabel.labels import HelloConfig, Learning
from softlabel.models import check_model
from softlabel.training import TEACHER_PROTOCOL, Protocol


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """What to load; see `softlabel.data.load_dataset`."""

    spec: str
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    selection: float = 0.0
    classes: int | None = None

    def load(self, progress: Progress | None = None) -> Dataset:
        return load_dataset(
            self.spec,
            image_size=self.image_size,
            channels=self.channels,
            selection=self.selection,
            classes=self.classes,
            progress=progress or Silent(),
        )


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """A teacher to be trained (or found) for the story."""

    arch: str
    protocol: Protocol = TEACHER_PROTOCOL
    seed: int = 0

    def __post_init__(self) -> None:
        check_model(self.arch)


@dataclass(frozen=True, kw_only=True)
class Labeler:
    """A teacher, an ensemble, or what such a group taught, that labels under a name of its own.

    Attributes:
        epoch: of the trajectory; None is the last.
        seeds: teachers of the story's options with these seeds; several are an ensemble. None: the story's teacher.
        stops: epochs of the trajectory that are an ensemble, in place of `epoch`.
        hello: a projector (HeLlO) that the group teaches, and that labels in its place.
    """

    name: str = "teacher"
    epoch: int | None = None
    seeds: tuple[int, ...] | None = None
    stops: tuple[int, ...] = ()
    hello: HelloConfig | None = None

    @property
    def epochs(self) -> tuple[int | None, ...]:
        """The epochs of the trajectory that label, or teach."""
        return self.stops or (self.epoch,)


@dataclass(frozen=True, kw_only=True)
class GivenSet:
    """A distilled set that is there already: its artifact, or class folders of images (`read_given`)."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class LearnedSet:
    """A family with the images of another one and labels that were learned for them, per seed.

    Attributes:
        of: the name of the family whose images they are.
    """

    name: str
    of: str
    learning: Learning


@dataclass(frozen=True, kw_only=True)
class UpdatedSet:
    """A family with the images of another one, updated for a labeler (HeLlO), per seed.

    Attributes:
        of: the name of the family whose images they are.
        labeler: the name of a labeler that is a projector.
    """

    name: str
    of: str
    labeler: str
    update: ImageUpdate = field(default_factory=ImageUpdate)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete, typed configuration of a story from real data to a report.

    Attributes:
        generator: of the sets whose method is `latent-diffusion` without one; None where there are none.
        timed: sets of as many generated images as a time allows, beside those that are made.
        given: sets from disk, each the same for all seeds, beside those that are made.
        learned: families that share the images of one of `sets` and have learned labels.
        updated: families whose images are those of one of `sets`, updated for a labeler.
        labelers: who labels, by the names in `comparison.teachers`. Sets are always made with the story's teacher.
    """

    name: str
    summary: str
    data: DataOptions
    teacher: TeacherOptions
    sets: tuple[SetOptions, ...]
    comparison: Comparison
    labelers: tuple[Labeler, ...] = (Labeler(),)
    given: tuple[GivenSet, ...] = ()
    learned: tuple[LearnedSet, ...] = ()
    updated: tuple[UpdatedSet, ...] = ()
    generator: GeneratorOptions | None = None
    timed: tuple[TimedSet, ...] = ()

    def __post_init__(self) -> None:
        missing = set(self.comparison.teachers) - {labeler.name for labeler in self.labelers}
        if missing:
            raise ConfigError(f"The recipe {self.name!r} has no labeler named {', '.join(sorted(missing))}.")
        last = self.teacher.protocol.epochs
        late = [one for one in self.labelers if any(epoch is not None and epoch > last for epoch in one.epochs)]
        if late:
            raise ConfigError(f"The labeler {late[0].name!r} is of an epoch that the teacher never reaches.")
        names = [options.name for options in self.sets] + [given.name for given in self.given]
        changed: list[LearnedSet | UpdatedSet] = [*self.learned, *self.updated]
        names += [one.name for one in (*changed, *self.timed)]
        if self.waiting and self.generator is None:
            raise ConfigError(
                f"The set {self.waiting[0][0]!r} needs a generator, and the recipe {self.name!r} trains none."
            )
        made = {options.name for options in self.sets}
        strange = [one.of for one in changed if one.of not in made]
        if strange:
            raise ConfigError(f"The set {strange[0]!r} is to be changed, which the recipe does not make.")
        projectors = {labeler.name for labeler in self.labelers if labeler.hello is not None}
        foreign = [one.labeler for one in self.updated if one.labeler not in projectors]
        if foreign:
            raise ConfigError(f"Images are to be updated for {foreign[0]!r}, which is no labeler with a projector.")
        if len(set(names)) < len(names):
            raise ConfigError(f"Every family of distilled sets needs a name of its own. Got {', '.join(names)}.")

    @property
    def waiting(self) -> tuple[tuple[str, int], ...]:
        """Methods of the sets that the story's own generator is to make, and their images per class (timed: 1)."""
        asked = [*((one.method, one.ipc) for one in self.sets), *((one.method, 1) for one in self.timed)]
        return tuple((method, ipc) for method, ipc in asked if needs_generator(method))

    def with_seeds(self, first: int | None, count: int | None) -> "Recipe":
        """The same story with `count` seeds from `first` on."""
        seeds = self.comparison.seeds
        first = seeds[0] if first is None else first
        chosen = tuple(range(first, first + (len(seeds) if count is None else count)))
        full = tuple(first + seed - seeds[0] for seed in self.comparison.full_seeds)
        return replace(self, comparison=replace(self.comparison, seeds=chosen, full_seeds=full))

    def with_epochs(self, epochs: int | None) -> "Recipe":
        """The same story with another number of student epochs."""
        if epochs is None:
            return self
        protocol = self.comparison.protocol.with_epochs(epochs)
        return replace(self, comparison=replace(self.comparison, protocol=protocol))
