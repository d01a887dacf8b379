"""Distilled sets, and labels learned for them, as artifacts of the store: made once, found again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from softlabel.core import ConfigError, Dataset, DistilledSet, Progress, build_config, fingerprint, plain
from softlabel.distill import ImageUpdate, check_method, distill, find_method, update_images
from softlabel.evaluation._comparison import SetPaths
from softlabel.labels import Learning, labeler_features, learn_labels, save_labels
from softlabel.store import (
    FileCheckpoint,
    Store,
    check_storage,
    is_complete,
    load_distilled,
    read_artifact,
    require_same,
    save_distilled,
)
from softlabel.training import Execution, Teacher, load_teacher, load_trajectory

LEARNED_REVISION = 1
"""Part of the identity of learned labels: raised when a release learns other ones from the same settings."""

UPDATED_REVISION = 1
"""The same of updated images."""


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """A family of distilled sets, one drawn per seed of the comparison.

    Attributes:
        without: classes whose images are taken out of the set that was made.
    """

    name: str
    method: str
    ipc: int
    storage: str = "png"
    without: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_method(self.method)
        if self.ipc < 1:
            raise ConfigError(f"--ipc must be 1 or more. Got {self.ipc} instead.")
        check_storage(self.storage)


def set_teachers(method: str, path: Path) -> list[Teacher]:
    """The teachers that a method looks at, of the teacher kept at `path`: its last epoch, or its trajectory."""
    found, _ = find_method(method)
    return load_trajectory(path) if found.teacher == "trajectory" else [load_teacher(path)]


def set_seed(options: SetOptions, seeds: Sequence[int], seed: int) -> int:
    """The seed that a family's set is drawn with: the students', or the first one where nothing is drawn."""
    method, _ = find_method(options.method)
    return seed if method.seeded else seeds[0]


def make_set(
    options: SetOptions,
    data: Dataset,
    teachers: Sequence[Teacher],
    seed: int,
    store: Store,
    execution: Execution,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make and keep a distilled set; an equal one that is finished is found.

    Args:
        out: the artifact's folder; its place in the store by default.

    Raises:
        StoreError: `out` holds another set.
    """
    path = set_path(options, data, teachers, seed, store, execution, out=out)
    if is_complete(path):
        return path
    key = _set_key(options, data, teachers, seed, execution)
    made = distill(options.method, data, teachers, ipc=options.ipc, seed=seed, execution=execution, progress=progress)
    if options.without:
        made = made.without(options.without)
    save_distilled(replace(made, provenance={**made.provenance, "key": key}), path, options.storage)
    return path


def make_family(
    options: SetOptions,
    data: Dataset,
    teachers: Sequence[Teacher],
    seeds: Sequence[int],
    store: Store,
    execution: Execution,
    progress: Progress | None = None,
) -> SetPaths:
    """The sets of a family, one per seed; one for all seeds of a method that draws nothing."""
    drawn = {
        draw: make_set(options, data, teachers, draw, store, execution, progress=progress)
        for draw in dict.fromkeys(set_seed(options, seeds, seed) for seed in seeds)
    }
    return SetPaths(options.name, tuple((seed, drawn[set_seed(options, seeds, seed)]) for seed in seeds))


def set_path(
    options: SetOptions,
    data: Dataset,
    teachers: Sequence[Teacher],
    seed: int,
    store: Store,
    execution: Execution,
    *,
    out: Path | None = None,
) -> Path:
    """Where the set of these options stands, or will stand.

    Raises:
        StoreError: `out` holds another set.
    """
    key = _set_key(options, data, teachers, seed, execution)
    if out is not None:
        if is_complete(out):
            require_same(out, "distilled set", load_distilled(out).provenance.get("key", ""), key)
        return out
    return store.distilled(f"{data.info.name}-{options.method}-ipc{options.ipc}-s{seed}", key)


def _set_key(options: SetOptions, data: Dataset, teachers: Sequence[Teacher], seed: int, execution: Execution) -> str:
    method, given = find_method(options.method)
    config: Any = build_config(method.config, given, "the method")
    teachers = method.looks_at(config, teachers)
    identity = {
        "method": method.name,
        "config": {**plain(config), **(method.reads(config) if method.reads else {})},
        "revision": method.revision,
        "ipc": options.ipc,
        "storage": options.storage,
        "data": data.info.digest,
        "classes": list(data.info.class_names),
        "train": data.train.digest,
        "teachers": [teacher.fingerprint for teacher in teachers],
        "seed": seed,
        # A chosen patch or a computed pixel can depend on rounding: precision and device belong to the identity.
        "execution": [execution.device, execution.precision] if teachers or method.computes else [],
    }
    if options.without:
        identity["without"] = list(options.without)
    return fingerprint(identity)


def learned_path(learning: Learning, path: Path, data: Dataset, seed: int, store: Store, execution: Execution) -> Path:
    """Where the labels learned for the set at `path` stand, or will stand."""
    key = _learned_key(learning, load_distilled(path), data, seed, execution)
    return store.labels(f"{data.info.name}-learned", key)


def keep_updated(
    update: ImageUpdate,
    path: Path,
    data: Dataset,
    labeler: Teacher,
    store: Store,
    execution: Execution,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The artifact of the set at `path` with its images updated for a labeler; an equal one that is finished is found.

    Args:
        labeler: a projector (`load_labeler`).
        out: the artifact's folder; its place in the store by default.

    Raises:
        DistillError: the set does not consist of smaller patches of this data.
        StoreError: `out` holds another set.
    """
    images, key, _ = _updated(update, path, data, labeler, store, execution)
    place = updated_path(update, path, data, labeler, store, execution, out=out)
    if is_complete(place):
        return place
    features = labeler_features(labeler.to(execution.torch_device))
    made = update_images(images, data, features, update, execution=execution, progress=progress)
    storage = read_artifact(path, "distilled", verify=False).meta["storage"]
    save_distilled(replace(made, provenance={**made.provenance, "key": key, "of": images.digest}), place, storage)
    return place


def updated_path(
    update: ImageUpdate, path: Path, data: Dataset, labeler: Teacher, store: Store, execution: Execution, *,
    out: Path | None = None,
) -> Path:  # fmt: skip
    """Where the set at `path` with images updated for a labeler stands, or will stand.

    Raises:
        StoreError: `out` holds another set.
    """
    _, key, place = _updated(update, path, data, labeler, store, execution)
    if is_complete(out or place):
        require_same(out or place, "distilled set", load_distilled(out or place).provenance.get("key", ""), key)
    return out or place


def _updated(
    update: ImageUpdate, path: Path, data: Dataset, labeler: Teacher, store: Store, execution: Execution
) -> tuple[DistilledSet, str, Path]:
    """The set that is to be updated, the key of what will be made of it, and its place in the store."""
    images, storage = load_distilled(path), read_artifact(path, "distilled", verify=False).meta["storage"]
    identity = [plain(update), images.digest, storage, labeler.fingerprint, execution.device]
    key = fingerprint("updated images", UPDATED_REVISION, identity)
    return images, key, store.distilled(f"{data.info.name}-updated-ipc{images.ipc}-s{images.seed}", key)


def _learned_key(learning: Learning, images: DistilledSet, data: Dataset, seed: int, execution: Execution) -> str:
    identity = [plain(learning), images.digest, data.train.digest, seed, execution.device]
    return fingerprint("learned labels", LEARNED_REVISION, identity)


def keep_learned(
    learning: Learning,
    images: DistilledSet,
    data: Dataset,
    seed: int,
    store: Store,
    execution: Execution,
    progress: Progress | None = None,
) -> Path:
    """The artifact of labels learned for `images`; equal ones that are finished are found, interrupted ones go on."""
    key = _learned_key(learning, images, data, seed, execution)
    path = store.labels(f"{data.info.name}-learned", key)
    if not is_complete(path):
        checkpoint = FileCheckpoint(store.student(key))
        labels = learn_labels(
            images, data, learning, seed=seed, execution=execution, checkpoint=checkpoint, progress=progress
        )
        save_labels(labels, images, path)
        checkpoint.clear()
    return path
