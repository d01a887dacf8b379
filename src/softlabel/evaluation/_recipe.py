"""A whole story as one configuration: data, teacher, sets, comparison; and the runner that tells it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from softlabel.core import ConfigError, Dataset, Progress, Silent
from softlabel.data import load_dataset
from softlabel.distill import ImageUpdate, check_images, check_trajectory
from softlabel.evaluation._comparison import Comparison, SetPaths, check_data
from softlabel.evaluation._given import keep_given, read_given
from softlabel.evaluation._label_facts import label_distance
from softlabel.evaluation._sets import SetOptions, keep_learned, keep_updated, make_family, set_teachers
from softlabel.evaluation._study import compare
from softlabel.evaluation._units import STACK_SIZE, Executor
from softlabel.labels import (
    FixedLabels,
    HelloConfig,
    Learning,
    check_projector,
    load_labeler,
    load_labels,
    train_labeler,
)
from softlabel.models import check_model
from softlabel.store import Store, load_distilled, read_artifact
from softlabel.training import (
    TEACHER_PROTOCOL,
    Execution,
    Protocol,
    Teacher,
    load_teacher,
    resolve_stack,
    train_teacher,
)


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
        names += [one.name for one in changed]
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


def run_recipe(
    recipe: Recipe,
    *,
    store: Store,
    execution: Execution,
    command: str,
    executor: Executor | None = None,
    stack: str = "auto",
    stack_size: int = STACK_SIZE,
    retry: bool = False,
    tolerant: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Tell the whole story; finished parts are found in the store, interrupted ones continued.

    Args:
        executor, stack, stack_size, retry, tolerant: as `compare`'s.

    Returns:
        the folder of the study artifact.
    """
    progress = progress or Silent()
    resolve_stack(stack, execution)  # whatever is wrong is told before hours of work
    data = recipe.data.load(progress)
    check_data(recipe.comparison, data)
    recipe.comparison.check_spaces([options.name for options in recipe.sets], {})
    for options in recipe.sets:
        check_trajectory(options.method, recipe.teacher.protocol.total_epochs)
        check_images(options.method, data, ipc=options.ipc)
    for labeler in recipe.labelers:
        if labeler.hello is not None:
            check_projector(labeler.hello, data.info)
    given = [(one.name, keep_given(one.path, read_given(one.path, data.info, progress), store)) for one in recipe.given]

    def taught(seed: int) -> Path:
        return train_teacher(
            data,
            arch=recipe.teacher.arch,
            store=store,
            execution=execution,
            seed=seed,
            protocol=recipe.teacher.protocol,
            progress=progress,
        )

    path = taught(recipe.teacher.seed)
    teacher = load_teacher(path)
    labelers: dict[str, Sequence[Teacher]] = {}
    for labeler in recipe.labelers:
        seeds = labeler.seeds or (recipe.teacher.seed,)
        group = [load_teacher(taught(seed), epoch) for seed in seeds for epoch in labeler.epochs]
        if labeler.hello is not None:
            made = train_labeler(
                data,
                group,
                labeler.hello,
                store=store,
                execution=execution,
                seed=recipe.teacher.seed,
                progress=progress,
            )
            group = [load_labeler(made)]
        labelers[labeler.name] = group
    sets = []
    for options in recipe.sets:
        looked_at = set_teachers(options.method, path)
        sets.append(make_family(options, data, looked_at, recipe.comparison.seeds, store, execution, progress))
    learned = _learned(recipe, sets, data, store, execution, progress)
    distances = _distances(recipe, sets, learned, labelers, execution)
    updated = _updated(recipe, sets, data, labelers, store, execution, progress)
    sets += [SetPaths(one.name, _family(sets, one.of).by_seed) for one in recipe.learned]
    sets += updated
    sets += [SetPaths(name, tuple((seed, path) for seed in recipe.comparison.seeds)) for name, path in given]
    return compare(
        recipe.comparison,
        data,
        labelers,
        sets,
        store=store,
        execution=execution,
        command=command,
        teacher_facts=teacher_facts([path], [teacher], store),
        stored=learned,
        facts={"label_distances": distances} if distances else None,
        executor=executor,
        stack=stack,
        stack_size=stack_size,
        retry=retry,
        tolerant=tolerant,
        progress=progress,
    )


def _family(sets: Sequence[SetPaths], name: str) -> SetPaths:
    return next(family for family in sets if family.name == name)


def _learned(
    recipe: Recipe,
    sets: Sequence[SetPaths],
    data: Dataset,
    store: Store,
    execution: Execution,
    progress: Progress,
) -> dict[tuple[str, int], FixedLabels]:
    """Labels learned for the recipe's families, by family and seed."""
    found = {}
    for one in recipe.learned:
        for seed, where in _family(sets, one.of).by_seed:
            images = load_distilled(where)
            kept = keep_learned(one.learning, images, data, seed, store, execution, progress)
            found[one.name, seed] = load_labels(kept, images)
    return found


def _updated(
    recipe: Recipe,
    sets: Sequence[SetPaths],
    data: Dataset,
    labelers: Mapping[str, Sequence[Teacher]],
    store: Store,
    execution: Execution,
    progress: Progress,
) -> list[SetPaths]:
    """The families of updated images."""
    found = []
    for one in recipe.updated:
        [labeler] = labelers[one.labeler]
        paths = [
            (seed, keep_updated(one.update, path, data, labeler, store, execution, progress=progress))
            for seed, path in _family(sets, one.of).by_seed
        ]
        found.append(SetPaths(one.name, tuple(paths)))
    return found


def _distances(
    recipe: Recipe,
    sets: Sequence[SetPaths],
    learned: Mapping[tuple[str, int], FixedLabels],
    labelers: Mapping[str, Sequence[Teacher]],
    execution: Execution,
) -> dict[str, dict[str, float]]:
    """How far learned labels are from those of every teacher on the same images."""
    found = {}
    for one in recipe.learned:
        family = _family(sets, one.of)
        own = [learned[one.name, seed] for seed, _ in family.by_seed]
        found[one.name] = {
            name: label_distance(own, labelers[name], family, execution) for name in recipe.comparison.teachers
        }
    return found


def teacher_facts(paths: Sequence[Path], teachers: Sequence[Teacher], store: Store) -> dict[str, Any] | None:
    """What a report says of the first teacher, and how many there are."""
    if not paths:
        return None
    meta = read_artifact(paths[0], verify=False).meta  # of a teacher, or of a labeler in its place
    path, root = paths[0].resolve(), store.root.resolve()
    return {
        "arch": teachers[0].arch,
        "path": path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path),
        "fingerprint": teachers[0].fingerprint,
        "count": len(teachers),
        "test_accuracy": teachers[0].accuracy,
        "best_test_accuracy": meta.get("best_test_accuracy"),
        "bytes": sum(teacher.size for teacher in teachers),
        "epochs": teachers[0].epoch,
        "curve": meta.get("curve", []),
    }
