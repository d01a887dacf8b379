"""The scaling surface, its law and the advice drawn from it."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.optimize import least_squares

from softlabel.core import ConfigError, StoreError
from softlabel.lab import HARD, Line, Size, Surface, advise, fit_laws, front, hold_out, read_surface

IPCS = (1, 2, 5, 10, 20, 50)


def line(a: float, b: float, beta: float, epoch: int | None = 4, kept: int = 10, noise: float = 0.0, seed: int = 0,
         ipcs: tuple[int, ...] = IPCS) -> Line:  # fmt: skip
    random = np.random.default_rng(seed)
    values = [a - b * n**-beta + float(random.normal(0, noise)) for n in ipcs]
    sizes = (Size(ipc=n, accuracy=v, std=0.01, seeds=3) for n, v in zip(ipcs, values, strict=True))
    return Line(epoch=epoch, kept=kept, sizes=tuple(sizes))


def surface(*lines: Line) -> Surface:
    return Surface(dataset="toy", classes=10, lines=lines)


def test_a_law_without_noise_is_found() -> None:
    true = {10: (0.7, 0.5, 0.6), 2: (0.6, 0.45, 0.6), HARD: (0.8, 0.65, 0.3)}
    made = surface(*(line(*abc, epoch=None if kept == HARD else 4, kept=kept) for kept, abc in true.items()))
    laws = {law.line.kept: law for law in fit_laws(made)}
    for kept, (a, b, beta) in true.items():
        assert (laws[kept].asymptote, laws[kept].missing, laws[kept].beta) == pytest.approx((a, b, beta), abs=2e-3)
        assert laws[kept].accuracy(10).value == pytest.approx(a - b * 10**-beta, abs=1e-5)
    assert laws[10].beta == laws[2].beta  # one expert, one exponent


def test_the_fit_is_that_of_a_general_solver() -> None:
    lines = [line(0.7, 0.5, 0.6, kept=10, noise=0.01), line(0.55, 0.4, 0.6, kept=2, noise=0.01, seed=1)]
    laws = fit_laws(surface(*lines))
    n = np.array(IPCS, dtype=float)
    measured = np.array([[size.accuracy for size in one.sizes] for one in lines])

    def residuals(p: Any) -> Any:
        return (np.stack([p[0] - p[1] * n ** -p[4], p[2] - p[3] * n ** -p[4]]) - measured).ravel()

    slow = least_squares(residuals, [0.7, 0.5, 0.55, 0.4, 0.6], xtol=1e-14, ftol=1e-14)
    ours = [laws[0].asymptote, laws[0].missing, laws[1].asymptote, laws[1].missing, laws[0].beta]
    assert float(np.sum(residuals(ours) ** 2)) == pytest.approx(float(np.sum(slow.fun**2)), rel=1e-4)
    assert ours == pytest.approx(slow.x, rel=2e-2)
    # Twelve cells less five parameters, were all noise each line's own; three of six sizes twice, were it all shared.
    squares = float(np.sum(slow.fun**2))
    assert math.sqrt(squares / 7) * 0.999 <= laws[0].error <= math.sqrt(squares / 6) * 1.001


def test_no_asymptote_above_one_and_no_loss_by_more_images() -> None:
    rising, falling = line(0.9, 0.8, 0.05, kept=3), line(0.5, -0.2, 0.5, kept=4)
    high, flat = fit_laws(surface(rising)) + fit_laws(surface(falling))
    assert high.asymptote <= 1
    assert flat.missing == 0
    assert flat.asymptote == pytest.approx(np.mean([size.accuracy for size in falling.sizes]))


def test_sizes_at_which_students_guess_do_not_bend_the_law() -> None:
    true = {10: (0.7, 1.2, 0.6), 2: (0.6, 0.7, 0.6)}  # below a chance of 0.1 at 1 and 2, and at 1, images
    lines = [line(*abc, kept=kept) for kept, abc in true.items()]
    guessed = [
        replace(one, sizes=tuple(replace(size, accuracy=max(0.1, size.accuracy)) for size in one.sizes))
        for one in lines
    ]
    made = surface(*guessed)
    for law in fit_laws(made):
        assert (law.asymptote, law.missing, law.beta) == pytest.approx(true[law.line.kept], abs=5e-3)
        assert law.accuracy(1).value == 0.1
        assert law.error < 1e-3
    held = hold_out(made)
    assert held is not None
    assert held.law < 0.03 < held.neighbour


def test_intervals_cover_the_truth_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabel.lab._law.DRAWS", 100)
    covered = 0
    for seed in range(40):
        [law] = fit_laws(surface(line(0.7, 0.5, 0.6, noise=0.012, seed=seed)), seed=seed)
        found = law.accuracy(10)
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        covered += found.low <= 0.7 - 0.5 * 10**-0.6 <= found.high
    assert covered >= 33


def test_intervals_hold_where_lines_share_their_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("softlabel.lab._law.DRAWS", 100)
    true = [(0.7, 0.5, 0.3), (0.6, 0.43, 0.3), (0.5, 0.35, 0.3)]
    covered = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        common = {n: float(random.normal(0, 0.011)) for n in IPCS}  # nine tenths of the variance
        lines = [
            Line(epoch=4, kept=kept, sizes=tuple(
                Size(ipc=n, accuracy=a - b * n**-beta + common[n] + float(random.normal(0, 0.0037)), std=None, seeds=3)
                for n in IPCS))
            for kept, (a, b, beta) in enumerate(true, 1)
        ]  # fmt: skip
        for law, (a, b, beta) in zip(fit_laws(surface(*lines), seed=seed), true, strict=True):
            found = law.accuracy(10)
            assert found.low is not None
            assert found.high is not None
            covered += found.low <= a - b * 10**-beta <= found.high
    assert covered >= 48  # of 60


def test_laws_are_the_same_each_time_and_draws_differ_with_the_seed() -> None:
    made = surface(line(0.7, 0.5, 0.6, noise=0.01))
    [one], [again], [other] = fit_laws(made), fit_laws(made), fit_laws(made, seed=1)
    assert np.array_equal(one.draws, again.draws)
    assert not np.array_equal(one.draws, other.draws)


# Advice.


def test_advice_inverts_the_law() -> None:
    many, few = line(0.7, 0.5, 0.6, kept=10, noise=0.004), line(0.68, 0.6, 0.6, kept=2, noise=0.004, seed=1)
    hard = line(0.6, 0.55, 0.3, epoch=None, kept=HARD)
    answers = advise(fit_laws(surface(hard, few, many)), 0.55)
    assert [answer.line.kept for answer in answers] == [10, 2, HARD]
    first, second, third = answers
    assert first.images is not None
    assert second.images is not None
    assert first.images.value == pytest.approx((0.5 / 0.15) ** (1 / 0.6), rel=0.1)
    assert first.images.low is not None
    assert first.images.high is not None
    assert first.images.low < first.images.value < first.images.high
    assert third.images is None
    assert third.note == "the law stays below with up to 50"
    [easy] = [answer for answer in advise(fit_laws(surface(hard, many)), 0.15) if answer.line.kept == 10]
    assert easy.note == "1 or fewer"


def test_an_interval_that_leaves_what_was_measured_has_an_open_end() -> None:
    [law] = fit_laws(surface(line(0.7, 0.5, 0.6, noise=0.02, seed=3)))
    images = law.images(law.accuracy(49).value)
    assert images is not None
    assert images.low is not None
    assert images.high is None


@pytest.mark.parametrize(("accuracy", "message"), [
    (0.9, r"90 % lies outside what the fitted laws give .* extrapolated: 20\.00 % .* 1 per class\) to 65\.22 "),
    (0.05, "5 % lies outside what the fitted laws give"),
    (0.0, "must lie between 0 and 100 %"),
    (60.0, "must lie between 0 and 100 %"),
])  # fmt: skip
def test_advice_is_not_extrapolated(accuracy: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        advise(fit_laws(surface(line(0.7, 0.5, 0.6))), accuracy)


def test_no_law_goes_below_chance() -> None:
    steep = line(0.9, 2.0, 1.0, ipcs=(1, 2, 4, 8))
    floored = replace(steep, sizes=tuple(replace(size, accuracy=max(0.1, size.accuracy)) for size in steep.sizes))
    [law] = fit_laws(surface(floored))
    assert all(law.accuracy(n).value >= 0.1 for n in (1, 1.5, 8))
    assert law.images(0.1) is None  # chance needs no images


def test_an_accuracy_between_two_lines_is_answered() -> None:
    """One kind of labels is beyond it from the start, the other never gets there."""
    low, high = line(0.35, 0.25, 0.6, kept=1), line(0.75, 0.3, 0.6, kept=10)
    answers = advise(fit_laws(surface(low, high)), 0.4)
    assert [(one.line.kept, one.images, one.note) for one in answers] == [
        (10, None, "1 or fewer"), (1, None, "the law stays below with up to 50")]  # fmt: skip


def test_a_law_is_not_asked_beyond_what_was_measured() -> None:
    [law] = fit_laws(surface(line(0.7, 0.5, 0.6)))
    for ipc in (0.5, 51):
        with pytest.raises(ConfigError, match="lie outside what was measured: 1 to 50"):
            law.accuracy(ipc)


def test_a_sparse_surface_says_so() -> None:
    short = line(0.7, 0.5, 0.6, ipcs=(1, 10, 50))
    with pytest.raises(ConfigError, match=r"too sparse to fit: a line needs 4 .* top 10 of epoch 4, has 3 numbers"):
        fit_laws(surface(short))
    # A short line beside long ones has no law, and takes none from them.
    assert [law.line.kept for law in fit_laws(surface(line(0.7, 0.5, 0.6), replace(short, kept=1)))] == [10]
    assert hold_out(surface(short)) is None


# Cells left out.


def test_left_out_sizes_are_foretold_by_the_law_and_naively() -> None:
    made = surface(line(0.7, 0.5, 0.6), line(0.6, 0.4, 0.6, kept=2))
    held = hold_out(made)
    assert held is not None
    assert (held.cells, held.inside.cells) == (12, 8)
    assert held.law < 1e-3
    near, straight = [], []
    for one in made.lines:
        for place, size in enumerate(one.sizes):
            others = [other for other in one.sizes if other is not size]
            gaps = {other: round(abs(math.log(other.ipc) - math.log(size.ipc)), 9) for other in others}
            nearest = min(others, key=lambda other, gaps=gaps: (gaps[other], other.ipc))  # type: ignore[misc]
            near.append((nearest.accuracy - size.accuracy) ** 2)
            if 0 < place < len(one.sizes) - 1:
                x, y = zip(
                    *((math.log(o.ipc), o.accuracy) for o in (one.sizes[place - 1], one.sizes[place + 1])), strict=True
                )
                straight.append((float(np.interp(math.log(size.ipc), x, y)) - size.accuracy) ** 2)
    assert held.neighbour == pytest.approx(math.sqrt(sum(near) / 12))
    assert held.inside.straight == pytest.approx(math.sqrt(sum(straight) / 8))
    assert held.inside.neighbour < held.neighbour


def test_a_size_is_left_out_of_all_lines_at_once() -> None:
    """A bump that all lines share at one size must not be foretold from the others."""
    lines = [line(0.7, 0.5, 0.6, kept=kept) for kept in (1, 2, 4, 10)]
    bumped = [replace(one, sizes=tuple(replace(size, accuracy=size.accuracy + 0.05 * (size.ipc == 10))
                                       for size in one.sizes)) for one in lines]  # fmt: skip
    held = hold_out(surface(*bumped))
    assert held is not None
    assert held.inside.law * math.sqrt(4) >= 0.045  # one of the four inner sizes is missed by nearly the whole bump


def test_lines_of_four_sizes_cannot_lose_one() -> None:
    assert hold_out(surface(line(0.7, 0.5, 0.6, ipcs=(1, 2, 5, 10)))) is None


def test_the_law_has_no_advantage_on_noise() -> None:
    random = np.random.default_rng(0)
    sizes = tuple(Size(ipc=n, accuracy=float(random.uniform(0.3, 0.5)), std=0.05, seeds=3) for n in IPCS)
    held = hold_out(surface(Line(epoch=4, kept=10, sizes=sizes)))
    assert held is not None
    assert held.law > 0.03


# The surface as a study has it.


def test_the_front_is_what_nothing_betters() -> None:
    lines = [line(0.7, 0.6, 0.4, kept=k, noise=0.05, seed=k) for k in (1, 2, 4, 10)]
    cells = [(one, size) for one in lines for size in one.sizes]

    def beaten(size: Size) -> bool:
        return any(other.ipc <= size.ipc and other.accuracy >= size.accuracy and other != size for _, other in cells)

    slow = [(one, size) for one, size in cells if not beaten(size)]
    assert front(lines) == sorted(slow, key=lambda cell: cell[1].ipc)


def _study(**changes: Any) -> dict[str, Any]:
    def arm(set_name: str, teacher: str, labels: str, mean: float | None) -> dict[str, Any]:
        final = None if mean is None else {"mean": mean, "std": 0.01, "low": 0.0, "high": 1.0, "n": 3}
        axes = {"set": set_name, "teacher": teacher, "labels": labels, "loss": "soft_ce_mass"}
        return {"name": "x", "axes": axes, "final": final}

    return {
        "dataset": {"name": "toy", "class_names": ["a", "b", "c"]},
        "plots": [
            {"kind": "bars"},
            {"kind": "surface", "ipc": {"IPC 1": 1, "IPC 10": 10}, "epochs": {"epoch 4": 4}, "kept": {"keep:top=2": 2}},
        ],
        "arms": [
            arm("IPC 10", "epoch 4", "keep:top=2", 0.5),
            arm("IPC 1", "epoch 4", "keep:top=2", 0.2),
            arm("IPC 10", "none", "hard", 0.4),
            arm("IPC 1", "none", "hard", None),
            arm("IPC 10", "epoch 4", "swap:rank=1", 0.3),
            arm("full data", "none", "hard", 0.8),
        ],
        **changes,
    }


def test_a_study_s_surface() -> None:
    found = read_surface(_study(), "somewhere")
    assert (found.dataset, found.classes) == ("toy", 3)
    assert [(one.epoch, one.kept, one.ipcs) for one in found.lines] == [(None, HARD, (10,)), (4, 2, (1, 10))]
    assert [one.name for one in found.lines] == ["hard labels", "top 2 of epoch 4"]
    assert found.lines[1].sizes[0] == Size(ipc=1, accuracy=0.2, std=0.01, seeds=3)
    assert list(found.experts) == [None, 4]


def test_studies_without_a_surface() -> None:
    with pytest.raises(StoreError, match="The study at somewhere has no scaling surface"):
        read_surface(_study(plots=[]), "somewhere")
    with pytest.raises(StoreError, match="No cell of the surface at somewhere has finished"):
        read_surface(_study(arms=[]), "somewhere")


def test_an_exponent_at_its_bound_says_so_and_the_ceiling_has_an_interval() -> None:
    [straight] = fit_laws(surface(line(0.9, 0.8, 0.015)))  # as good as a straight line over the logarithm
    [bent] = fit_laws(surface(line(0.7, 0.5, 0.6, noise=0.01)))
    assert (straight.at_bound, bent.at_bound) == (True, False)
    low, high = bent.ceiling
    assert low < bent.asymptote < high
    assert low == pytest.approx(float(np.quantile(bent.draws[:, 0], 0.025)))


def test_a_cell_that_reached_it_is_told_where_the_law_stays_below() -> None:
    low = line(0.7, 0.5, 0.6)
    lucky = replace(low, sizes=tuple(
        replace(size, accuracy=0.69) if size.ipc == 20 else size for size in low.sizes))  # fmt: skip
    other = line(0.9, 0.5, 0.6, kept=3)
    answers = {one.line.kept: one for one in advise(fit_laws(surface(lucky, other)), 0.68)}
    assert answers[10].images is None
    assert answers[10].note == "the law stays below with up to 50; measured with 20"


@pytest.mark.parametrize("damage", [
    lambda meta: meta.update(plots="abc"),
    lambda meta: meta.update(arms="x"),
    lambda meta: meta["plots"][0]["ipc"].update(one="x"),
    lambda meta: meta["plots"][0].update(ipc=3),
    lambda meta: meta["plots"][0]["ipc"].update(one=-1),
    lambda meta: meta["arms"][0]["final"].update(mean="x"),
    lambda meta: meta["arms"][0]["final"].update(mean=float("nan")),
    lambda meta: meta.pop("dataset"),
])  # fmt: skip
def test_a_damaged_study_is_told_in_one_sentence(damage: Any) -> None:
    def arm(mean: float) -> dict[str, Any]:
        axes = {"set": "one", "teacher": "none", "labels": "hard", "loss": "ce"}
        return {"axes": axes, "final": {"mean": mean, "std": 0.0, "n": 3}}

    meta: dict[str, Any] = {
        "arms": [arm(0.3)],
        "plots": [{"kind": "surface", "ipc": {"one": 1}, "epochs": {}, "kept": {}}],
        "dataset": {"name": "toy", "class_names": ["a", "b"]},
    }
    assert read_surface(meta, "here").lines[0].sizes[0].accuracy == 0.3
    damage(meta)
    with pytest.raises(StoreError, match=r"The manifest of the study at here does not hold|has no scaling surface"):
        read_surface(meta, "here")


def test_cells_of_which_a_seed_failed_are_left_out() -> None:
    axes = {"set": "one", "teacher": "none", "labels": "hard", "loss": "ce"}
    arm = {"axes": axes, "final": {"mean": 0.3, "std": None, "n": 1}, "failed": [{"seed": 1, "error": "no"}]}
    meta = {"arms": [arm], "plots": [{"kind": "surface", "ipc": {"one": 1}, "epochs": {}, "kept": {}}],
            "dataset": {"name": "toy", "class_names": ["a", "b"]}}  # fmt: skip
    with pytest.raises(StoreError, match="No cell of the surface at here has finished"):
        read_surface(meta, "here")


def test_a_straight_line_goes_on_beyond_the_ends() -> None:
    """On accuracies that are straight over the logarithm it misses nothing, at the ends neither."""
    sizes = tuple(Size(ipc=n, accuracy=0.2 + 0.1 * math.log(n), std=0.0, seeds=3) for n in (1, 2, 5, 10, 20))
    held = hold_out(surface(Line(epoch=4, kept=10, sizes=sizes)))
    assert held is not None
    assert held.straight < 1e-9 < held.law
    assert held.inside.straight < 1e-9
