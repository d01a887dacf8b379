"""The learning-rate search of a comparison: students judged on the selection split, many rates in one stack."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Any

from softlabel.core import Progress
from softlabel.evaluation._comparison import Arm, Cell, Comparison, SetPaths
from softlabel.evaluation._tuning import tune
from softlabel.evaluation._units import Bench, Executor, Failure, make_units
from softlabel.training import Optimizer

Key = tuple[str, str, str, str]


def tune_rates(
    comparison: Comparison,
    bench: Bench,
    sets: Sequence[SetPaths],
    executor: Executor,
    stack_size: int,
    progress: Progress,
) -> tuple[dict[Key, Optimizer], list[dict[str, Any]]]:
    """The best rate by (set, student, optimizer, loss) as seen by the selection split, and all that was tried.

    The students that choose are trained on the first seed's set, labelled by the last teacher, with a seed of their
    own; the test split plays no part. Nothing, when the comparison asks for no search.
    """
    if comparison.tuning is None or bench.data.selection is None:
        return {}, []
    seed = comparison.tuning.seed
    # A rate that blows up is an answer, not a failure to be tried again.
    judged = replace(
        bench,
        data=replace(bench.data, test=bench.data.selection, selection=None),
        own={(name, family, seed): path for (name, family, own), path in bench.own.items()
             if own == comparison.seeds[0]},
        stored={(name, seed): source for (name, own), source in bench.stored.items() if own == comparison.seeds[0]},
        retry=False,
    )  # fmt: skip
    paths = {(family.name, seed): family.path(comparison.seeds[0]) for family in sets}
    optimizers = {
        (family.name, student, spec, loss): comparison.optimizer(spec)
        for family, student, spec, loss in product(
            sets, comparison.students, comparison.optimizer_specs, comparison.losses
        )
    }

    def measure(wanted: Sequence[tuple[Key, Optimizer]]) -> list[float | None]:
        plan = [_cell(comparison, key, optimizer, seed) for key, optimizer in wanted]
        found: dict[Cell, float | None] = {}
        progress.start(f"{comparison.name}: learning rates on the selection split", len(plan))
        for done in executor.run(make_units(plan, paths, stack_size), judged, progress):
            for cell, result in done:
                found[cell] = None if isinstance(result, Failure) else result["accuracy"]["final"]
            progress.advance(len(done))
        progress.finish()
        return [found[cell] for cell in plan]

    tuned = tune(comparison.tuning, optimizers, measure)
    # Where every rate blew up, nothing was chosen.
    best = {key: one for key, one in tuned.best.items() if any(seen is not None for seen in tuned.tried[key].values())}
    told = [
        {
            **dict(zip(("set", "student", "optimizer", "loss"), key, strict=True)),
            "chosen": best[key].lr if key in best else None,
            "tried": [{"rate": rate, "selection_accuracy": seen} for rate, seen in tried.items()],
        }
        for key, tried in tuned.tried.items()
    ]
    return best, told


def _cell(comparison: Comparison, key: Key, optimizer: Optimizer, seed: int) -> Cell:
    set_name, student, spec, loss = key
    protocol = replace(comparison.protocol.with_loss(loss), optimizer=optimizer)
    name = f"{set_name} / {student} / {spec} / {loss} / rate {optimizer.lr:g}"
    arm = Arm(
        name=name, set_name=set_name, protocol=protocol, student=student, teacher=comparison.teachers[-1], role="tuning"
    )
    return Cell(arm, seed)
