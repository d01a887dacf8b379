"""The parts of a plan that are labelers: a projector's training, images updated for it, and those of single sets."""

from collections.abc import Mapping
from pathlib import Path

from softlabel.core import Dataset, DistilledSet, count_of, fingerprint, plain
from softlabel.distill import ImageUpdate
from softlabel.evaluation._comparison import SetPaths
from softlabel.evaluation._plan_parts import FORWARD_SHARE, PlanLine
from softlabel.evaluation._sets import updated_path
from softlabel.labels import (
    HelloConfig,
    labeler_path,
    labeler_step_seconds,
    load_labeler,
    set_labeler_path,
    stand_in_labeler,
)
from softlabel.store import Store, is_complete, load_distilled
from softlabel.training import Execution, Teacher


def plan_labeler(
    config: HelloConfig,
    update: ImageUpdate | None,
    teachers: list[Teacher],
    family: SetPaths,
    images: int,
    patches: int,
    data: Dataset,
    seed: int,
    store: Store,
    execution: Execution,
    *,
    out: Path | None = None,
) -> list[PlanLine]:
    """The parts of a set's labeler, of the update of its images, and of training it on these, where there are such.

    Args:
        out: where the updated set is to be kept; its place in the store by default.
    """
    _, line, made = plan_projector(config.backbone, config, teachers, data, seed, store, execution)
    lines = [line]
    if update is not None:
        name = f"{family.name}, updated"
        line, family = plan_updated(name, update, config, made, patches, family, data, store, execution, out=out)
        lines.append(line)
    if config.of_set:
        sizes = {family.name: images}
        more, _ = plan_set_labelers(
            config.backbone, config, teachers, [family], sizes, data, seed, store, execution, set()
        )
        lines += more
    return lines


def plan_one_labeler(
    config: HelloConfig,
    teachers: list[Teacher],
    distilled: DistilledSet | None,
    data: Dataset,
    seed: int,
    store: Store,
    execution: Execution,
    *,
    out: Path | None = None,
) -> list[PlanLine]:
    """The parts of one labeler, for any images or for those of one set; its last part is kept at `out`."""
    if distilled is None:
        _, line, _ = plan_projector(config.backbone, config, teachers, data, seed, store, execution, out=out)
        return [line]
    parts = []
    for stage, what in _set_stages(config):
        last = out if stage == config else None
        at = set_labeler_path(data, teachers, stage, distilled, store=store, execution=execution, seed=seed, out=last)
        parts.append((stage, f"labeler {config.backbone}: {what} of the set", is_complete(at)))
    _, what, done = parts[-1]
    if done:  # whatever it was made of is not asked for again
        return [PlanLine(what, 1, 1, 0.0, 0)]
    _, line, _ = plan_projector(config.backbone, config, teachers, data, seed, store, execution)
    step = labeler_step_seconds(data, teachers, config, execution) / config.batch
    counts = [len(distilled)]
    return [line, *(_set_line(what, stage, 1, [] if done else counts, step, data) for stage, what, done in parts)]


def plan_projector(
    name: str,
    config: HelloConfig,
    group: list[Teacher],
    data: Dataset,
    seed: int,
    store: Store,
    execution: Execution,
    *,
    out: Path | None = None,
) -> tuple[Path, PlanLine, list[Teacher]]:
    """Where one projector stands or will stand, its part, and who labels: it, or an untrained one of the same cost."""
    path = labeler_path(data, group, config, store=store, execution=execution, seed=seed, out=out)
    what = f"labeler {name}"
    if is_complete(path):
        return path, PlanLine(what, 1, 1, 0.0, 0), [load_labeler(path)]
    labeler = stand_in_labeler(data, config)
    looks = len(data.test) + len(data.selection or ())  # it is judged on these
    looks += 0 if getattr(labeler.model, "centred", False) else len(data.train)  # a head that begins at least squares
    per_image = labeler_step_seconds(data, group, config, execution) / config.batch
    seconds = (config.epochs * len(data.train) + looks * FORWARD_SHARE) * per_image
    return path, PlanLine(what, 0, 1, seconds, labeler.size), [labeler]


def plan_updated(
    name: str,
    update: ImageUpdate,
    config: HelloConfig | None,
    group: list[Teacher],
    patches: int,
    family: SetPaths,
    data: Dataset,
    store: Store,
    execution: Execution,
    *,
    out: Path | None = None,
) -> tuple[PlanLine, SetPaths]:
    """The part of one family of updated images, and where its sets stand or will stand."""
    trained = len(group) == 1 and group[0].public > 0
    places = [
        (seed, updated_path(update, path, data, group[0], store, execution, out=out)
         if trained and is_complete(path) else out or store.distilled("updated", f"of {path.name}"))
        for seed, path in family.by_seed
    ]  # fmt: skip
    left, what = sum(not is_complete(path) for _, path in places), f"{name}: {update.steps} steps of images"
    if not left or config is None:
        return PlanLine(what, len(places), len(places), 0.0, 0), SetPaths(name, tuple(places))
    step = labeler_step_seconds(data, group, config, execution) / config.batch
    seconds = left * patches * update.steps * step
    return PlanLine(what, len(places) - left, len(places), seconds, left * patches * 1000), SetPaths(
        name, tuple(places)
    )


def plan_set_labelers(
    name: str,
    config: HelloConfig,
    teachers: list[Teacher],
    families: list[SetPaths],
    sizes: Mapping[str, int],
    data: Dataset,
    seed: int,
    store: Store,
    execution: Execution,
    planned: set[Path],
) -> tuple[list[PlanLine], dict[tuple[str, str, int], Path]]:
    """The parts of making a projector every set's own, of so many images, and where each stands or will stand.

    Args:
        planned: those that other parts make; what this one makes is added.
    """
    step, lines = 0.0, []
    places: dict[tuple[str, str, int], Path] = {}
    for stage, what in _set_stages(config):
        counts = {}
        for family in families:
            for drawn, path in family.by_seed:
                place = _set_labeler_at(data, teachers, stage, path, seed, store, execution)
                places[name, family.name, drawn] = place
                counts[place] = sizes[family.name]  # seeds may share one set
        counts = {place: count for place, count in counts.items() if place not in planned}
        if not counts:
            continue
        planned.update(counts)
        left = [count for place, count in counts.items() if not is_complete(place)]
        if left:
            step = step or labeler_step_seconds(data, teachers, config, execution) / config.batch
        lines.append(_set_line(f"labeler {name}: {what} of its set", stage, len(counts), left, step, data))
    return lines, places


def _set_stages(config: HelloConfig) -> list[tuple[HelloConfig, str]]:
    """What is done for one set, in order, in words: the last is a labeler with all of it."""
    stages = []
    if config.set_epochs:
        stages.append((config.without_offsets, f"{count_of(config.set_epochs, 'epoch')} over images"))
    if config.offset_epochs:
        what = "offsets and the head refitted" if config.refit else "offsets"
        stages.append((config, f"{what}, of {count_of(config.offset_epochs, 'epoch')} over images"))
    return stages


def _set_line(
    what: str, stage: HelloConfig, total: int, left: list[int], image_seconds: float, data: Dataset
) -> PlanLine:
    """The part of a stage for `total` sets, of which those with so many images are left; a training pass of an image
    takes `image_seconds`."""
    passes = stage.offset_epochs * FORWARD_SHARE if stage.offset_epochs else stage.set_epochs
    seconds, disk = passes * sum(left) * image_seconds, 0
    if not stage.offset_epochs or stage.refit:  # judged on the test images, too
        seconds += len(left) * len(data.test) * image_seconds * FORWARD_SHARE
    if left:
        disk = len(left) * stand_in_labeler(data, stage).size
        disk += sum(left) * (data.info.classes + 4) if stage.offset_epochs else 0
    return PlanLine(what, total - len(left), total, seconds, disk)


def _set_labeler_at(
    data: Dataset, teachers: list[Teacher], config: HelloConfig, path: Path, seed: int, store: Store,
    execution: Execution,
) -> Path:  # fmt: skip
    """Where the labeler of the set at `path` stands or will stand; a name for it where there is no set yet."""
    if not is_complete(path):
        return store.labels("own", fingerprint(path.name, plain(config), [one.fingerprint for one in teachers]))
    distilled = load_distilled(path)
    return set_labeler_path(data, teachers, config, distilled, store=store, execution=execution, seed=seed)
