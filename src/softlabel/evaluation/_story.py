"""A recipe carried out: data, teacher, labelers, sets, comparison."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from softlabel.core import ConfigError, Dataset, Progress, Silent
from softlabel.distill import check_images, check_trajectory, needs_generator, with_generator
from softlabel.evaluation._checks import check_data
from softlabel.evaluation._comparison import SetPaths, labelled, own_labels
from softlabel.evaluation._generated import keep_generator, timed_family
from softlabel.evaluation._given import keep_given, read_given
from softlabel.evaluation._label_facts import label_distance
from softlabel.evaluation._recipe import Labeler, Recipe
from softlabel.evaluation._sets import keep_learned, keep_updated, make_family, set_teachers
from softlabel.evaluation._study import compare
from softlabel.evaluation._units import STACK_SIZE, Executor
from softlabel.generate import load_generator, survives
from softlabel.labels import (
    FixedLabels,
    check_projector,
    load_labeler,
    load_labels,
    train_labeler,
    train_set_labeler,
)
from softlabel.store import Store, load_distilled, read_artifact
from softlabel.training import Execution, Teacher, load_teacher, resolve_stack, train_teacher


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
    _check(recipe, data, store)
    given = [(one.name, keep_given(one.path, read_given(one.path, data.info, progress), store)) for one in recipe.given]

    path, labelers = _teachers(recipe, data, store, execution, progress)
    teacher = load_teacher(path)
    generator = None
    if recipe.generator is not None:
        generator = keep_generator(recipe.generator, data, store, execution, progress)
    sets = []
    for options in recipe.sets:
        if generator is not None:
            options = replace(options, method=with_generator(options.method, generator))
        looked_at = set_teachers(options.method, path)
        sets.append(make_family(options, data, looked_at, recipe.comparison.seeds, store, execution, progress))
    learned = _learned(recipe, sets, data, store, execution, progress)
    distances = _distances(recipe, sets, learned, labelers, execution)
    updated = _updated(recipe, sets, data, labelers, store, execution, progress)
    sets += [SetPaths(one.name, _family(sets, one.of).by_seed) for one in recipe.learned]
    sets += updated
    sets += [timed_family(one, generator, recipe.comparison.seeds, store, execution, progress) for one in recipe.timed]
    sets += [SetPaths(name, tuple((seed, path) for seed in recipe.comparison.seeds)) for name, path in given]
    own = _own_labelers(recipe, sets, own_labels(learned), data, store, execution, progress)
    return compare(
        recipe.comparison,
        data,
        labelers,
        sets,
        store=store,
        execution=execution,
        command=command,
        teacher_facts=teacher_facts([path], [teacher], store),
        own=own,
        stored=learned,
        facts=_facts(distances, generator, teacher, data, execution),
        executor=executor,
        stack=stack,
        stack_size=stack_size,
        retry=retry,
        tolerant=tolerant,
        progress=progress,
    )


def _check(recipe: Recipe, data: Dataset, store: Store) -> None:
    """Refuse what the data, the store or this machine cannot give, before anything is trained."""
    check_data(recipe.comparison, data)
    recipe.comparison.check_spaces([options.name for options in recipe.sets], {})
    if recipe.generator is not None:
        recipe.generator.check(data, recipe.waiting)
        with_generator("latent-diffusion", store.root)  # a path that no spec can hold
    for options in recipe.sets:
        check_trajectory(options.method, recipe.teacher.protocol.total_epochs)
        if not needs_generator(options.method):
            check_images(options.method, data, ipc=options.ipc)
    for labeler in recipe.labelers:
        if labeler.hello is not None:
            check_projector(labeler.hello, data.info)
            if labeler.hello.of_set and recipe.comparison.steps:
                raise ConfigError("A labeler of one set labels all of it. Leave the class-incremental steps out.")
            if labeler.hello.offset_epochs and recipe.comparison.protocol.mixes:
                raise ConfigError(
                    f"An offset per image is for views of one image, and those of the protocol "
                    f"{recipe.comparison.protocol.name!r} mix several. Leave offset_epochs out, or take another."
                )


def _teachers(
    recipe: Recipe, data: Dataset, store: Store, execution: Execution, progress: Progress
) -> tuple[Path, dict[str, Sequence[Teacher]]]:
    """The artifact of the story's teacher, and who labels, by name."""

    path = _taught(recipe, recipe.teacher.seed, data, store, execution, progress)
    labelers: dict[str, Sequence[Teacher]] = {}
    for labeler in recipe.labelers:
        group: Sequence[Teacher] = _group(labeler, recipe, data, store, execution, progress)
        if labeler.hello is not None:
            made = train_labeler(
                data, group, labeler.hello, store=store, execution=execution, seed=recipe.teacher.seed,
                progress=progress,
            )  # fmt: skip
            group = [load_labeler(made)]
        labelers[labeler.name] = group
    return path, labelers


def _taught(recipe: Recipe, seed: int, data: Dataset, store: Store, execution: Execution, progress: Progress) -> Path:
    """The story's teacher with another seed."""
    return train_teacher(
        data,
        arch=recipe.teacher.arch,
        store=store,
        execution=execution,
        seed=seed,
        protocol=recipe.teacher.protocol,
        progress=progress,
    )


def _group(
    labeler: Labeler, recipe: Recipe, data: Dataset, store: Store, execution: Execution, progress: Progress
) -> list[Teacher]:
    """The teachers that label, or that teach a projector."""
    return [
        load_teacher(_taught(recipe, seed, data, store, execution, progress), epoch)
        for seed in labeler.seeds or (recipe.teacher.seed,)
        for epoch in labeler.epochs
    ]


def _own_labelers(
    recipe: Recipe,
    sets: Sequence[SetPaths],
    learned: Collection[str],
    data: Dataset,
    store: Store,
    execution: Execution,
    progress: Progress,
) -> dict[tuple[str, str, int], Path]:
    """Projectors of one set, for every set that they label."""
    found = {}
    asked = labelled(recipe.comparison, [family.name for family in sets], learned)
    for labeler in recipe.labelers:
        if labeler.hello is None or not labeler.hello.of_set:
            continue
        group = _group(labeler, recipe, data, store, execution, progress)
        for family in sets:
            for seed, path in family.by_seed if (labeler.name, family.name) in asked else ():
                found[labeler.name, family.name, seed] = train_set_labeler(
                    data, group, labeler.hello, load_distilled(path), store=store, execution=execution,
                    seed=recipe.teacher.seed, progress=progress,
                )  # fmt: skip
    return found


def _facts(
    distances: Mapping[str, Any], generator: Path | None, teacher: Teacher, data: Dataset, execution: Execution
) -> dict[str, Any]:
    """What the study keeps beside its numbers: learned labels' distances, and what a generator's autoencoder loses."""
    facts: dict[str, Any] = {"label_distances": dict(distances)} if distances else {}
    if generator is not None:
        coder = load_generator(generator).to(execution.torch_device).autoencoder
        before, after = survives(coder, [teacher], data, execution)
        facts["generator"] = {"psnr": coder.psnr, "accuracy": before, "accuracy_reconstructed": after}
    return facts


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
    single = {labeler.name for labeler in recipe.labelers if labeler.hello is not None and labeler.hello.of_set}
    for one in recipe.learned:
        family = _family(sets, one.of)
        own = [learned[one.name, seed] for seed, _ in family.by_seed]
        found[one.name] = {
            name: label_distance(own, labelers[name], family, execution)
            for name in recipe.comparison.teachers
            if name not in single
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
