"""Accuracy over bytes: the Pareto front, what is kept, and the cheapest that keeps enough."""

import random
from typing import Any

import pytest

from softlabel.lab import FULL_LABELS, answers, cheapest, frontier


def arm(
    labels: str, mean: float, images: int = 100, stored: int = 0, labeler: int = 0, loss: str = "gift"
) -> dict[str, Any]:
    axes = {"set": "A", "labels": labels, "loss": loss, "teacher": "epoch 8"}
    final = {"mean": mean, "std": 0.01, "low": mean - 0.02, "high": mean + 0.02, "n": 3}
    bytes_ = {"images": images, "labels": stored, "labeler": labeler}
    return {"name": f"{labels} / {loss}", "set": "A", "axes": axes, "final": final, "bytes": bytes_}


def study(*arms: dict[str, Any]) -> dict[str, Any]:
    names = [f"class {c}" for c in range(10)]
    return {"arms": list(arms), "plots": [{"kind": "bytes"}], "comparisons": [], "sets": [],
            "dataset": {"class_names": names}}  # fmt: skip


def test_a_front_against_brute_force() -> None:
    draws = random.Random(0)
    arms = [
        arm(
            f"replay:epochs={n}",
            draws.choice([0.1, 0.2, 0.3, 0.4]),
            images=draws.choice([10, 14, 18]),
            stored=draws.choice([1, 5, 9]),
            labeler=draws.choice([0, 3]),
        )
        for n in range(40)
    ]
    found = frontier(study(*arms))
    for one in found:
        beaten = any(
            other.total <= one.total and other.accuracy >= one.accuracy
            and (other.total, other.accuracy) != (one.total, one.accuracy)
            for other in found
        )  # fmt: skip
        assert one.front != beaten
    assert [one.total for one in found] == sorted(one.total for one in found)
    assert sorted(one.total for one in found) == sorted(sum(one["bytes"].values()) for one in arms)


def test_what_is_kept_of_full_labels_and_at_what_price() -> None:
    made = study(arm(FULL_LABELS, 0.5, stored=4000), arm("replay+int4", 0.49, stored=1000),
                 arm("online", 0.5, labeler=200),
                 arm("hard", 0.2, loss="ce"), arm("fixed", 0.4, stored=10, loss="soft_ce"))  # fmt: skip
    found = {one.labels: one for one in frontier(made)}
    assert (found["replay+int4"].kept, found["replay+int4"].smaller) == (pytest.approx(0.98), 4.0)
    assert (found["online"].kept, found["online"].smaller) == (1.0, 20.0)  # a teacher that is shipped is a price too
    assert (found["hard"].kept, found["hard"].smaller) == (None, None)
    assert (found["fixed"].kept, found["fixed"].smaller) == (None, None)  # full labels were not tried under its loss


def test_the_cheapest_that_keeps_enough() -> None:
    arms = [arm(FULL_LABELS, 0.5, stored=4000), arm("replay+int8", 0.5, stored=2000)]
    made = study(*arms, arm("replay+int4", 0.491, stored=1000), arm("replay+vq", 0.4, stored=10))
    [best] = cheapest(frontier(made))
    assert best.labels == "replay+int4"
    [best] = cheapest(frontier(made), kept=0.5)
    assert best.labels == "replay+vq"
    assert answers(made) == [
        "A, gift: replay+int4 keeps 98.2 % of the accuracy of full labels at 4 times fewer bytes of labels: of 3 "
        "tried, the smallest whose mean keeps 98.0 %."
    ]
    difference = {"mean": -0.009, "low": -0.02, "high": 0.002}
    made["comparisons"] = [{"arm": "replay+int4 / gift", "against": f"{FULL_LABELS} / gift", "difference": difference,
                            "verdict": "not distinguishable"}]  # fmt: skip
    assert "keeps 98.2 % (95 % interval 96.0 to 100.4) of the accuracy" in answers(made)[0]


def test_nothing_is_kept_of_labels_that_teach_no_more_than_guessing() -> None:
    made = study(arm(FULL_LABELS, 0.11, stored=4000), arm("replay+int4", 0.12, stored=1000))  # 9 to 13 %, of 10 classes
    assert [one.kept for one in frontier(made)] == [None, None]
    assert answers(made) == []


def test_a_row_says_who_labels_and_what_is_public() -> None:
    light = arm("online", 0.49, labeler=50)
    light["bytes"]["public"] = 10**9
    light["axes"]["teacher"], light["name"] = "probe", "probe / online / gift"
    made = study(arm(FULL_LABELS, 0.5, stored=4000), light)
    found = {one.teacher: one for one in frontier(made)}
    assert (found["probe"].public, found["epoch 8"].public) == (10**9, 0)
    assert "A, gift: online by probe keeps 98.0 %" in answers(made)[0]


def test_public_weights_are_no_bytes_of_an_arm() -> None:
    light = arm("online", 0.65, labeler=50)
    light["bytes"]["public"] = 10**9
    found = {one.labels: one for one in frontier(study(light, arm(FULL_LABELS, 0.6, stored=4000)))}
    assert (found["online"].total, found["online"].front, found[FULL_LABELS].front) == (150, True, False)


def test_full_labels_are_no_answer_to_what_is_cheaper() -> None:
    assert answers(study(arm(FULL_LABELS, 0.5, stored=4000), arm("replay+vq", 0.1, stored=10))) == []


def test_other_studies_have_no_front() -> None:
    assert frontier({**study(arm(FULL_LABELS, 0.5)), "plots": []}) == []
    broken = arm("replay+int8", 0.5) | {"final": None, "failed": [{"seed": 0, "error": "no"}]}
    assert [one.labels for one in frontier(study(arm(FULL_LABELS, 0.5), broken))] == [FULL_LABELS]
