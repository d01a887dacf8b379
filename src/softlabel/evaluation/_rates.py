"""The learning-rate search of a comparison: students judged on the selection split, many rates in one stack."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from softlabel.core import Progress
from softlabel.evaluation._comparison import Arm, Cell, Comparison, SetPaths
from softlabel.evaluation._tuning import tune
from softlabel.evaluation._units import STACK_SIZE, Bench, Failure, make_units, run_unit
from softlabel.training import Optimizer

Key = tuple[str, str, str, str]


def tune_rates(
    comparison: Comparison, bench: Bench, sets: Sequence[SetPaths], progress: Progress
) -> dict[Key, Optimizer]:
    """The best rate by (set, student, optimizer, loss), as seen by the selection split.

    The students that choose are trained on the first seed's set with a seed of their own; the test split plays no part.
    """
    assert comparison.tuning is not None
    assert bench.data.selection is not None  # check_inputs
    seed = comparison.tuning.seed
    judged = replace(bench, data=replace(bench.data, test=bench.data.selection))
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
        for unit in make_units(plan, paths, STACK_SIZE):
            for cell, result in run_unit(unit, judged, progress):
                found[cell] = None if isinstance(result, Failure) else result["accuracy"]["final"]
            progress.advance(len(unit.cells))
        progress.finish()
        return [found[cell] for cell in plan]

    return tune(comparison.tuning, optimizers, measure)


def _cell(comparison: Comparison, key: Key, optimizer: Optimizer, seed: int) -> Cell:
    set_name, student, spec, loss = key
    protocol = replace(comparison.protocol.with_loss(loss), optimizer=optimizer)
    name = f"{set_name} / {student} / {spec} / {loss} / rate {optimizer.lr:g}"
    arm = Arm(
        name=name, set_name=set_name, protocol=protocol, student=student, teacher=comparison.teachers[-1], role="tuning"
    )
    return Cell(arm, seed)
