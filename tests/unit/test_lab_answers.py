"""The sentences in which a study of labels answers its own question."""

from typing import Any

from softlabel.lab import answers

WHOLE = "fixed+keep:top=10"


def arm(set_name: str, labels: str, mean: float, **more: Any) -> dict[str, Any]:
    axes = {"set": set_name, "labels": labels, "loss": "soft_ce", "teacher": "epoch 8", **more.pop("axes", {})}
    final = {"mean": mean, "std": 0.01, "n": 3}
    return {
        "name": f"{set_name} / {labels}",
        "set": set_name,
        "axes": axes | more.pop("axes", {}),
        "final": final,
    } | more


def study(*arms: dict[str, Any], verdicts: tuple[tuple[str, str, float, str], ...] = (), **more: Any) -> dict[str, Any]:
    comparisons = [
        {"arm": one, "against": other, "difference": {"mean": mean}, "verdict": verdict}
        for one, other, mean, verdict in verdicts
    ]
    return {"arms": list(arms), "comparisons": comparisons, "sets": [], "plots": [], **more}


def test_a_choice_is_told_with_what_looked_best() -> None:
    def one(epoch: int, selection: float, final: float, set_name: str = "IPC 1") -> dict[str, Any]:
        return arm(set_name, "fixed", final, axes={"teacher": f"epoch {epoch}"}, selection={"mean": selection})

    made = study(
        one(1, 0.5, 0.4), one(4, 0.4, 0.45), one(1, 0.1, 0.1, "IPC 9"), one(4, 0.2, 0.2, "IPC 9"), choosing=True
    )
    assert answers(made) == [
        "IPC 1: epoch 1 is chosen on the selection split and reaches 40.0 %; on the test split epoch 4 looks best, "
        "with 45.0 %.",
        "IPC 9: epoch 4 is chosen on the selection split and reaches 20.0 %, the best on the test split too. No later "
        "one than epoch 4 was tried.",
    ]


def test_a_choice_names_the_labels_where_these_are_chosen_too() -> None:
    def one(labels: str, selection: float) -> dict[str, Any]:
        return arm("IPC 1", labels, 0.3, selection={"mean": selection})

    [told] = answers(
        study(one("fixed+temper:temperature=2", 0.2), one("fixed+temper:temperature=1", 0.3), choosing=True)
    )
    assert told.startswith("IPC 1: fixed+temper:temperature=1 is chosen on the selection split and reaches 30.0 %; on")


def test_what_a_swapped_entry_costs() -> None:
    costs = {1: 0.3, 2: 0.1, 3: 0.04, 4: 0.02, 9: -0.01}
    made = study(arm("A", WHOLE, 0.5), *(arm("A", f"fixed+swap:rank={r}", 0.5 - c) for r, c in costs.items()))
    assert answers(made) == [
        "A: points lost by swapping one entry with the smallest: entry 1: 30.0, entry 2: 10.0, entry 3: 4.0, entry 9: "
        "-1.0 (1 is the largest)."
    ]


def keeps(*worse: int) -> dict[str, Any]:
    tops = (1, 2, 4, 8)
    return study(
        arm("A", WHOLE, 0.5),
        *(arm("A", f"fixed+keep:top={top}", 0.4 + top / 100) for top in tops),
        verdicts=tuple(
            (f"A / fixed+keep:top={top}", f"A / {WHOLE}", -0.1, "worse" if top in worse else "not distinguishable")
            for top in tops
        ),
    )


def test_how_many_entries_are_enough() -> None:
    told = "A: labels of the {} largest entries of 10 cannot be told from whole ones ({} points lost)."
    assert answers(keeps(1, 2)) == [told.format(4, "6.0")]
    assert answers(keeps(2)) == [told.format(4, "6.0")]  # one entry alone is not enough when two are worse
    assert answers(keeps(1, 2, 4, 8)) == ["A: every number of kept entries tried is worse than whole labels."]


def test_which_images_to_take() -> None:
    names = ("random", "herding", "k-centre")
    sets = [{"name": name, "method": name} for name in names]
    made = study(
        *(arm(name, "fixed", 0.3) for name in names),
        sets=sets,
        verdicts=(("herding / fixed", "random / fixed", 0.02, "better"),
                  ("k-centre / fixed", "random / fixed", -0.01, "worse")),
    )  # fmt: skip
    assert answers(made) == [
        "Beside random: better herding (+2.0 points); worse k-centre (-1.0 points); not distinguishable none."
    ]


def test_what_hard_labels_need_more_images_for() -> None:
    plot = {"kind": "surface", "ipc": {"one": 1, "ten": 10}, "epochs": {"epoch 8": 8}, "kept": {WHOLE: 10}}

    def hard(set_name: str, mean: float) -> dict[str, Any]:
        return arm(set_name, "hard", mean, axes={"teacher": "none", "loss": "ce"})

    cells = (hard("one", 0.1), hard("ten", 0.2), arm("one", WHOLE, 0.15), arm("ten", WHOLE, 0.4))
    info = {"dataset": {"name": "toy", "class_names": ["a"] * 10}, "plots": [plot]}
    told = "Hard labels reach 20.0 % with 10 images per class; top 10 of epoch 8 reach "
    assert answers(study(*cells, **info)) == [told + "40.0 % with 10."]
    assert answers(study(*cells[:2], arm("one", WHOLE, 0.25), **info)) == [told + "25.0 % with 1."]
    assert answers(study(*cells[:3], **info)) == [
        "Hard labels reach 20.0 % with 10 images per class; no soft label tried reaches that with as many."
    ]


def test_an_ordinary_study_is_told_by_its_comparisons() -> None:
    assert answers(study(arm("A", "fixed", 0.4), verdicts=(("A / fixed", "A / fixed", 0.0, "better"),))) == []


def test_failed_arms_are_left_out() -> None:
    broken = arm("A", "fixed+swap:rank=1", 0.0) | {"final": None, "failed": [{"seed": 0, "error": "no"}]}
    assert answers(study(arm("A", WHOLE, 0.5), broken, arm("A", "fixed+swap:rank=2", 0.4))) == []


def test_what_learned_labels_are_worth() -> None:
    def pair(against: str, mean: float, verdict: str) -> tuple[str, str, float, str]:
        return "A, learned / own", against, mean, verdict

    arms = [
        arm("A", "hard", 0.3, name="A / ce", axes={"loss": "ce", "teacher": "none"}),
        *(arm("A", "fixed", mean, name=f"A / {teacher}", axes={"teacher": teacher})
          for teacher, mean in (("epoch 1", 0.35), ("epoch 8", 0.45))),
        arm("A, learned", "fixed", 0.4, name="A, learned / own", axes={"teacher": "own labels"}),
    ]  # fmt: skip
    verdicts = (pair("A / ce", 0.1, "better"), pair("A / epoch 1", 0.05, "not distinguishable"),
                pair("A / epoch 8", -0.05, "worse"))  # fmt: skip
    distances = {"A, learned": {"epoch 1": 0.31, "epoch 8": 0.45}}
    found = answers(study(*arms, verdicts=verdicts, label_distances=distances))
    assert found == [
        "A, learned: 40.0 %, +10.0 points from hard labels (better) and -5.0 points from the best of 2 experts' (epoch "
        "8; worse). They resemble those of epoch 1 most (distance 0.31 of 1)."
    ]
    assert answers(study(*arms, verdicts=verdicts[1:], label_distances=distances)) == []  # hard labels failed


def test_one_candidate_is_no_choice() -> None:
    assert answers(study(arm("A", "fixed", 0.4, selection={"mean": 0.3}), choosing=True)) == []


def test_whether_a_temperature_mends_an_old_expert() -> None:
    def one(epoch: int, temperature: str, mean: float) -> dict[str, Any]:
        labels = f"fixed+temper:temperature={temperature}"
        return arm("A", labels, mean, axes={"teacher": f"epoch {epoch}"}, name=f"{epoch} {temperature}")

    made = study(one(8, "1", 0.45), one(8, "2", 0.4), one(24, "0.5", 0.3), one(24, "1", 0.35), one(24, "2", 0.4))
    assert answers(made) == [
        "A: the labels of epoch 24, the last, reach 35.0 % as they are and 40.0 % at the best of 3 temperatures (2); "
        "those of epoch 8, the best epoch, 45.0 % as they are."
    ]


def test_an_expert_that_is_not_old_needs_no_mending() -> None:
    cells = ((8, "1", 0.3), (24, "1", 0.4), (24, "2", 0.45))
    made = study(*(
        arm("A", f"fixed+temper:temperature={t}", mean, axes={"teacher": f"epoch {epoch}"}, name=f"{epoch} {t}")
        for epoch, t, mean in cells))  # fmt: skip
    assert answers(made) == [
        "A: of the epochs tried the last, epoch 24, labels best as it is: there is nothing to mend."
    ]


def test_what_soft_labels_add_to_hard_ones() -> None:
    arms = [
        arm("A", "hard", 0.3, name="A / ce", axes={"loss": "ce", "teacher": "none"}),
        arm("A", "fixed", 0.4, name="A / fixed / soft_ce"),
        arm("A", "online", 0.5, name="A / online / soft_ce"),
        arm("A", "online", 0.5, name="A / online / gift", axes={"loss": "gift"}),
    ]
    made = study(*arms, verdicts=(
        ("A / online / gift", "A / ce", 0.21, "better"), ("A / fixed / soft_ce", "A / ce", 0.1, "better"),
        ("A / online / soft_ce", "A / ce", 0.2, "better"),
        ("A / online / soft_ce", "A / fixed / soft_ce", 0.1, "better"),
    ))  # fmt: skip
    made["comparisons"][1]["difference"] |= {"low": 0.07, "high": 0.13}
    assert answers(made) == [
        "A, against hard labels: one soft label per image +10.0 points (7.0 to 13.0; better), one per view +20.0 "
        "points (no interval; better)."
    ]


def test_what_more_experts_add() -> None:
    names = ("1 expert of epoch 8", "3 experts of epoch 8", "1 expert of epoch 24")
    arms = [arm("A", "fixed", 0.4, name=name, axes={"teacher": name}) for name in names]
    made = study(*arms, verdicts=((names[1], names[0], 0.02, "better"), (names[2], names[0], 0.01, "better")))
    assert answers(made) == ["A, epoch 8: 3 experts +2.0 points over one (no interval; better)."]
