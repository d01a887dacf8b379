"""Images chosen by a score against slow loops over images and epochs."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import ConfigError, Dataset, DistilledSet, DistillError, stream
from softlabel.distill import _scores as scores
from softlabel.distill import distill
from softlabel.distill._scores import Outlook, forgetting_events, outlook, spread_late
from softlabel.models import build_model
from softlabel.training import Execution, Normaliser, Teacher

EPOCHS, IMAGES, CLASSES = 7, 30, 5


def trajectory(data: Dataset, epochs: int = EPOCHS) -> list[Teacher]:
    """Models that have nothing to do with each other: what they are right about changes every epoch."""
    found = []
    for seed in range(epochs):
        model = build_model(
            "convnet-1:width=4", image_shape=data.info.image_shape, classes=data.info.classes, seed=seed
        )
        for parameter in model.parameters():
            parameter.data *= 3
        model.eval().requires_grad_(False)
        found.append(Teacher(model, data.info, "convnet-1:width=4", f"epoch-{seed}", None, seed + 1, 0))
    return found


def probabilities() -> tuple[Tensor, Tensor]:
    logits = 2 * torch.randn(EPOCHS, IMAGES, CLASSES, generator=stream(0, "p"), dtype=torch.float64)
    return F.softmax(logits, dim=-1), torch.randint(CLASSES, (IMAGES,), generator=stream(0, "y"))


def outlooks() -> list[Outlook]:
    made, target = probabilities()
    hard = F.one_hot(target, CLASSES)
    return [
        Outlook(p.gather(-1, target[:, None])[:, 0], (p - hard).norm(dim=-1), p.argmax(dim=-1) == target) for p in made
    ]


def test_the_outlook_of_a_model(tiny_data: Dataset, execution: Execution) -> None:
    teacher = trajectory(tiny_data, 1)[0]
    seen = outlook(tiny_data, teacher, execution)
    views = Normaliser(tiny_data.info, torch.device("cpu"))(tiny_data.train.images)
    for row, (view, target) in enumerate(zip(views, tiny_data.train.targets.tolist(), strict=True)):
        p = F.softmax(teacher.model(view[None]), dim=-1)[0].tolist()
        assert float(seen.true[row]) == pytest.approx(p[target], abs=1e-5)
        error = math.sqrt(sum((value - float(c == target)) ** 2 for c, value in enumerate(p)))
        assert float(seen.error[row]) == pytest.approx(error, abs=1e-5)
        assert bool(seen.right[row]) == (p.index(max(p)) == target)


def test_errors_of_a_sure_model_keep_their_digits(tiny_data: Dataset, execution: Execution) -> None:
    """A sum of squares would cancel: the model holds the true class to be 0.9999 likely, and more."""
    teacher = trajectory(tiny_data, 1)[0]

    class Sure(torch.nn.Module):
        def forward(self, views: Tensor) -> Tensor:
            spread = views.flatten(1).mean(dim=1, keepdim=True).abs()
            return 12 * F.one_hot(torch.zeros(len(views), dtype=torch.int64), 4) + spread

    sure = replace(teacher, model=Sure(), fingerprint="sure")
    seen = outlook(tiny_data, sure, execution)
    mine = tiny_data.train.targets == 0
    other = 1 / (3 + math.exp(12))
    exact = other * math.sqrt(3 + 9)
    torch.testing.assert_close(seen.error[mine], torch.full((int(mine.sum()),), exact), rtol=2e-2, atol=0)


def test_what_was_seen_is_not_looked_at_again(
    tiny_data: Dataset, execution: Execution, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers = [replace(teacher, fingerprint=f"again-{teacher.epoch}") for teacher in trajectory(tiny_data)]
    looks = []
    look = scores._look
    monkeypatch.setattr(scores, "_look", lambda *inputs: (looks.append(1), look(*inputs))[1])
    for spec in ("forgetting", "cad-prune:span=2,window=4", "forgetting:easy=true"):
        distill(spec, tiny_data, teachers, ipc=1, execution=execution)
    assert len(looks) == EPOCHS


def _slow_forgetting(right: Sequence[Sequence[bool]], image: int) -> int:
    story = [epoch[image] for epoch in right]
    if not any(story):
        return len(story)
    return sum(before and not after for before, after in pairwise(story))


def test_forgetting() -> None:
    right = (torch.rand(EPOCHS, IMAGES, generator=stream(0, "r")) < 0.3).tolist()
    assert any(not any(epoch[image] for epoch in right) for image in range(IMAGES))  # some are never right
    seen = [Outlook(torch.zeros(IMAGES), torch.zeros(IMAGES), torch.tensor(epoch)) for epoch in right]
    assert forgetting_events(seen).tolist() == [_slow_forgetting(right, image) for image in range(IMAGES)]


@pytest.mark.parametrize(("span", "window"), [(2, 1), (3, 3), (2, 5), (4, 3)])
def test_cad(span: int, window: int) -> None:
    true = [seen.true.tolist() for seen in outlooks()]

    def spread(k: int, image: int) -> float:
        values = [true[epoch][image] for epoch in range(k, k + span)]
        mean = sum(values) / span
        return math.sqrt(sum((value - mean) ** 2 for value in values) / span)

    starts = range(EPOCHS - span - window, EPOCHS - span)
    slow = [sum(spread(k, image) for k in starts) / window for image in range(IMAGES)]
    torch.testing.assert_close(spread_late(outlooks(), span, window), torch.tensor(slow, dtype=torch.float64))


# Which images are taken.


def made(spec: str, data: Dataset, execution: Execution, ipc: int = 3, seed: int = 0) -> DistilledSet:
    return distill(spec, data, trajectory(data), ipc=ipc, seed=seed, execution=execution)


def scores_of(spec: str, data: Dataset, execution: Execution) -> Tensor:
    seen = [outlook(data, teacher, execution) for teacher in trajectory(data)]
    return {
        "el2n:epochs=7": lambda: torch.stack([one.error for one in seen]).mean(dim=0),
        "el2n:epochs=2": lambda: torch.stack([one.error for one in seen[:2]]).mean(dim=0),
        "forgetting": lambda: forgetting_events(seen),
        "cad-prune:span=2,window=4": lambda: spread_late(seen, 2, 4),
        "ce": lambda: -seen[0].true.log(),
    }[spec]()


@pytest.mark.parametrize("spec", ["el2n:epochs=7", "el2n:epochs=2", "forgetting", "cad-prune:span=2,window=4"])
def test_the_highest_scores_of_every_class_are_taken(spec: str, tiny_data: Dataset, execution: Execution) -> None:
    known = scores_of(spec, tiny_data, execution).tolist()
    chosen = made(spec, tiny_data, execution).provenance["train_indices"]
    for c in range(tiny_data.info.classes):
        members = [i for i, y in enumerate(tiny_data.train.targets.tolist()) if y == c]
        assert chosen[3 * c : 3 * c + 3] == sorted(members, key=lambda i: (-known[i], i))[:3]


@pytest.mark.parametrize(("spec", "easy"), [("el2n:epochs=7", "el2n:epochs=7,easy=true"),
                                            ("forgetting", "forgetting:easy=true")])  # fmt: skip
def test_the_lowest_scores_on_demand(spec: str, easy: str, tiny_data: Dataset, execution: Execution) -> None:
    known = scores_of(spec, tiny_data, execution).tolist()
    chosen = made(easy, tiny_data, execution).provenance["train_indices"]
    members = [i for i, y in enumerate(tiny_data.train.targets.tolist()) if y == 0]
    assert chosen[:3] == sorted(members, key=lambda i: (known[i], i))[:3]


@pytest.mark.parametrize("decile", [0, 4, 9])
@pytest.mark.parametrize("ipc", [1, 5])
def test_deciles(decile: int, ipc: int, tiny_data: Dataset, execution: Execution) -> None:
    known = scores_of("ce", tiny_data, execution).tolist()
    chosen = made(f"ce-decile:decile={decile}", tiny_data, execution, ipc).provenance["train_indices"]
    for c in range(tiny_data.info.classes):
        members = [i for i, y in enumerate(tiny_data.train.targets.tolist()) if y == c]
        ranked = sorted(members, key=lambda i: known[i])
        size = max(ipc, math.ceil(len(ranked) / 10))
        start = min(decile * len(ranked) // 10, len(ranked) - size)
        mine = chosen[ipc * c : ipc * c + ipc]
        assert set(mine) <= set(ranked[start : start + size])
        assert len(set(mine)) == ipc


def test_strata(tiny_data: Dataset, execution: Execution) -> None:
    known = scores_of("ce", tiny_data, execution).tolist()
    sets = [made("stratified", tiny_data, execution, 4, seed).provenance["train_indices"] for seed in (0, 1)]
    assert sets[0] != sets[1]
    for chosen in sets:
        for c in range(tiny_data.info.classes):
            members = [i for i, y in enumerate(tiny_data.train.targets.tolist()) if y == c]
            ranked = sorted(members, key=lambda i: known[i])
            for stratum, index in enumerate(chosen[4 * c : 4 * c + 4]):
                assert stratum * len(ranked) // 4 <= ranked.index(index) < (stratum + 1) * len(ranked) // 4


@pytest.mark.parametrize(("spec", "message"), [
    ("ce-decile:decile=10", "from 0 to 9. Got 10"),
    ("el2n:epochs=0", "must be 1 or more. Got 0"),
    ("cad-prune:span=1", "needs a span of 2 or more"),
    ("cad-prune:window=0", "a window of 1 or more"),
])  # fmt: skip
def test_settings_that_cannot_be(spec: str, message: str, tiny_data: Dataset, execution: Execution) -> None:
    with pytest.raises(ConfigError, match=message):
        made(spec, tiny_data, execution)


def test_a_trajectory_that_is_too_short(tiny_data: Dataset, execution: Execution) -> None:
    for spec in ("cad-prune:span=4,window=4", "el2n:epochs=8"):
        with pytest.raises(DistillError, match=r"needs a trajectory of 8 epochs, and there are 7\. Train the teacher"):
            made(spec, tiny_data, execution)
