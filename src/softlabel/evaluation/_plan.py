"""What work will be done, before it is done: each part of a recipe, what is finished, and a forecast."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from softlabel.core import Dataset
from softlabel.distill import (
    find_method,
    latent_config,
    needs_generator,
    plain_sampling,
    tiles,
    with_generator,
)
from softlabel.evaluation._comparison import SetPaths, labelled, own_labels
from softlabel.evaluation._generated import TimedSet
from softlabel.evaluation._given import read_given
from softlabel.evaluation._plan_labelers import plan_projector, plan_set_labelers, plan_updated
from softlabel.evaluation._plan_parts import (
    PlanLine,
    plan_generator,
    plan_set,
    plan_students,
    plan_teacher,
    plan_timed,
)
from softlabel.evaluation._recipe import LearnedSet, Recipe, TeacherOptions
from softlabel.evaluation._sets import SetOptions, learned_path, set_path, set_seed, set_teachers
from softlabel.generate import Forecast
from softlabel.labels import (
    FixedLabels,
    learning_step_seconds,
    load_labels,
)
from softlabel.store import Store, is_complete, load_distilled
from softlabel.training import Execution, Teacher, load_teacher, teacher_path


def plan_recipe(recipe: Recipe, data: Dataset, *, store: Store, execution: Execution) -> list[PlanLine]:
    """The parts of a recipe. Trains a few steps of each kind to measure their pace; writes nothing."""
    line, teacher = plan_teacher(recipe.teacher, data, store=store, execution=execution)
    kept = _teacher_at(recipe.teacher, data, store, execution)

    def looked_at(options: SetOptions) -> list[Teacher]:
        if is_complete(kept):
            return set_teachers(options.method, kept)
        follows = find_method(options.method)[0].teacher == "trajectory"
        return [teacher] * (recipe.teacher.protocol.total_epochs if follows else 1)

    seeds = recipe.comparison.seeds
    lines, paths = [line], []
    generator = _Generator.of(recipe, data, store, execution)
    lines += generator.lines
    for options in recipe.sets:
        if needs_generator(options.method):
            line, family = generator.plan_set(options, data, looked_at(options), seeds, store, execution)
            lines.append(line)
            paths.append(family)
            continue
        drawn = ((seed, set_seed(options, seeds, seed)) for seed in seeds)
        places = ((seed, set_path(options, data, looked_at(options), draw, store, execution)) for seed, draw in drawn)
        paths.append(SetPaths(options.name, tuple(places)))
        lines.append(plan_set(options, paths[-1], data, looked_at(options), execution))
    sizes = {options.name: options.ipc * data.info.classes for options in recipe.sets}
    paths += [SetPaths(one.name, tuple((seed, one.path) for seed in seeds)) for one in recipe.given]
    sizes |= {one.name: len(read_given(one.path, data.info)) for one in recipe.given}
    for timed in recipe.timed:
        line, family, images = generator.plan_timed(timed, data, seeds, store, execution)
        lines.append(line)
        paths.append(family)
        sizes[timed.name] = images
    stored: dict[tuple[str, int], FixedLabels] = {}
    for one in recipe.learned:
        family = next(family for family in paths if family.name == one.of)
        line, labels = _plan_learned(one, family, data, sizes[one.of], store, execution)
        lines.append(line)
        paths.append(SetPaths(one.name, family.by_seed))
        sizes[one.name] = sizes[one.of]
        stored |= {(one.name, seed): found for seed, found in labels.items()}
    labelers, planned = {}, {recipe.teacher.seed}
    weak: dict[str, list[Teacher]] = {}
    trained: set[Path] = set()
    for labeler in recipe.labelers:
        group = []
        for seed in labeler.seeds or (recipe.teacher.seed,):
            taught = replace(recipe.teacher, seed=seed)
            line, stand_in = plan_teacher(taught, data, store=store, execution=execution)
            if seed not in planned:
                planned.add(seed)
                lines.append(replace(line, what=f"{line.what}, seed {seed}"))
            group += [_finished(taught, epoch, data, store, execution) or stand_in for epoch in labeler.epochs]
        if labeler.hello is not None:
            weak[labeler.name] = group
            place, line, group = plan_projector(
                labeler.name, labeler.hello, group, data, recipe.teacher.seed, store, execution
            )
            lines += [line] if place not in trained else []  # what is fine-tuned may be another part's
            trained.add(place)
        labelers[labeler.name] = group
    for updated in recipe.updated:
        family = next(family for family in paths if family.name == updated.of)
        labeler = next(one for one in recipe.labelers if one.name == updated.labeler)
        options = next(options for options in recipe.sets if options.name == updated.of)
        patches = sizes[updated.of] * tiles(options.method)
        line, made = plan_updated(
            updated.name, updated.update, labeler.hello, labelers[labeler.name], patches, family, data, store, execution
        )
        lines.append(line)
        paths.append(made)
        sizes[updated.name] = sizes[updated.of]
    comparison = recipe.comparison
    own: dict[tuple[str, str, int], Path] = {}
    asked = labelled(comparison, [family.name for family in paths], own_labels(stored))
    for labeler in recipe.labelers:
        if labeler.hello is not None and labeler.hello.of_set:
            families = [family for family in paths if (labeler.name, family.name) in asked]
            more, tuned = plan_set_labelers(
                labeler.name, labeler.hello, weak[labeler.name], families, sizes, data, recipe.teacher.seed, store,
                execution, trained,
            )  # fmt: skip
            lines += more
            own |= tuned
    return lines + plan_students(
        comparison, data, paths, sizes, labelers, store=store, execution=execution, own=own, stored=stored
    )


@dataclass(frozen=True)
class _Generator:
    """A recipe's generator as far as it is there, and what it will cost.

    Attributes:
        path: of the generator, when it is finished.
        cost: where something of it, or of its images, is still to be made.
    """

    path: Path | None
    cost: Forecast | None
    lines: tuple[PlanLine, ...] = ()

    @classmethod
    def of(cls, recipe: Recipe, data: Dataset, store: Store, execution: Execution) -> "_Generator":
        options = recipe.generator
        if options is None:
            return cls(None, None)
        options.check(data, recipe.waiting)
        lines, path, cost = plan_generator(options, data, store=store, execution=execution)
        return cls(path if is_complete(path) else None, cost, tuple(lines))

    def plan_set(
        self,
        options: SetOptions,
        data: Dataset,
        teachers: list[Teacher],
        seeds: tuple[int, ...],
        store: Store,
        execution: Execution,
    ) -> tuple[PlanLine, SetPaths]:
        """The part of one family of generated sets, and where they stand or will stand."""
        if self.path is None:
            places = [(seed, store.distilled("generated", f"{options.name}-{seed}")) for seed in seeds]
        else:
            named = replace(options, method=with_generator(options.method, self.path))
            places = [
                (seed, set_path(named, data, teachers, set_seed(named, seeds, seed), store, execution))
                for seed in seeds
            ]
        family = SetPaths(options.name, tuple(places))
        line = plan_set(options, family, data, teachers, execution, checked=False)
        config = latent_config(options.method)
        images = options.ipc * data.info.classes * config.samples
        seconds = self.cost.sampling_seconds(config.sampling, images) if self.cost else 0.0
        return replace(line, seconds=(line.total - line.done) * seconds), family

    def plan_timed(
        self, options: TimedSet, data: Dataset, seeds: tuple[int, ...], store: Store, execution: Execution
    ) -> tuple[PlanLine, SetPaths, int]:
        """The part of one timed family, where its sets stand or will stand, and about how many images one has."""
        sampling = plain_sampling(options.method)[1]
        per_image = self.cost.sampling_seconds(sampling, 1) if self.cost else None
        return plan_timed(options, self.path, data, seeds, store, execution, per_image)


def _plan_learned(
    one: LearnedSet, family: SetPaths, data: Dataset, images: int, store: Store, execution: Execution
) -> tuple[PlanLine, dict[int, FixedLabels]]:
    """The part of one family of learned labels, and the labels: those that are there, or stand-ins."""
    labels, done = {}, 0
    for seed, path in family.by_seed:
        kept = learned_path(one.learning, path, data, seed, store, execution) if is_complete(path) else None
        if kept is not None and is_complete(kept):
            labels[seed], done = load_labels(kept, load_distilled(path)), done + 1
        else:
            labels[seed] = FixedLabels(torch.zeros(images, data.info.classes))
    left = len(family.by_seed) - done
    step = learning_step_seconds(data, images, one.learning, execution) if left else 0.0
    seconds = left * one.learning.steps * step
    what = f"{one.name}: {one.learning.steps} steps of labels"
    return PlanLine(what, done, done + left, seconds, left * images * data.info.classes * 4), labels


def _finished(
    options: TeacherOptions, epoch: int | None, data: Dataset, store: Store, execution: Execution
) -> Teacher | None:
    path = _teacher_at(options, data, store, execution)
    return load_teacher(path, epoch) if is_complete(path) else None


def _teacher_at(options: TeacherOptions, data: Dataset, store: Store, execution: Execution) -> Path:
    return teacher_path(
        data, arch=options.arch, protocol=options.protocol, store=store, execution=execution, seed=options.seed
    )
