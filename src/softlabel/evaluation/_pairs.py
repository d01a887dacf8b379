"""Which arms are compared with which: those that differ on one axis only, seed by seed."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from softlabel.evaluation._comparison import AXES, Arm, Comparison
from softlabel.evaluation._statistics import paired_difference, verdict
from softlabel.evaluation._students import Record
from softlabel.losses import Loss

MOST_IN_PAIRS = 3  # values of an axis; beyond, not every pair is compared: the table would hide its own point


def compare_arms(
    comparison: Comparison,
    groups: Mapping[Arm, Sequence[Record]],
    sizes: Mapping[str, int],
    *,
    resolution: float,
    twins: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Paired differences of final accuracies with their verdicts; the main question first.

    Losses are compared on one set, optimizer, student, teacher and its labels; sets of one size, optimizers, teachers
    and labels under one loss. Students are not compared with each other. Arms of which a seed failed are compared
    with nothing.

    Args:
        sizes: images of every family of sets.
        twins: families that share the images of another one and have labels of their own: under these, its arms are
            compared with all of the other's, hard labels included.
    """
    found = [arm for arm, group in groups.items() if arm.role == "arm" and group]
    main = main_loss(comparison) or comparison.losses[-1]
    names = list(dict.fromkeys(arm.set_name for arm in found))
    last = max((arm.seen for arm in found), default=0)
    main_set = next((name for name in names if not name.startswith("random")), names[-1] if names else "")
    pairs: list[tuple[Arm, Arm]] = []
    for axis in ("loss", "set", "optimizer", "teacher", "labels"):
        for family in _families(found, axis, sizes):
            pairs += [(later, earlier) for earlier, later in _family_pairs(family, axis, main)]
    for own, other in comparison.pairs:
        pairs += [
            (later, earlier) for later in found for earlier in found
            if own.items() <= later.axes.items() and other.items() <= earlier.axes.items()
            and all(later.axes[rest] == earlier.axes[rest] for rest in AXES if rest not in {*own, *other})
            and later.seen == earlier.seen
        ]  # fmt: skip

    def is_main(pair: tuple[Arm, Arm]) -> bool:
        later, earlier = pair
        return (later.set_name, later.axes["loss"], later.seen) == (main_set, main, last) and (
            earlier.set_name, earlier.axes["loss"]) == (main_set, comparison.losses[0])  # fmt: skip

    pairs += [
        (own, other) for own in found for other in found
        if other.set_name == (twins or {}).get(own.set_name) and own.seen == other.seen
        and all(own.axes[axis] == other.axes[axis] for axis in ("student", "optimizer"))
        and (own.axes["loss"] == other.axes["loss"] or other.axes["teacher"] == "none")
    ]  # fmt: skip
    pairs = sorted(dict.fromkeys(pairs), key=lambda pair: not is_main(pair))
    return [
        told for later, earlier in pairs if (told := _paired(later, earlier, groups, len(comparison.seeds), resolution))
    ]


def main_loss(comparison: Comparison) -> str | None:
    """GIFT as it is by default, or else the first of its variants that is compared."""
    variants = [loss for loss in comparison.losses if Loss.parse(loss).name == "gift"]
    return "gift" if "gift" in variants else next(iter(variants), None)


def _families(found: Sequence[Arm], axis: str, sizes: Mapping[str, int]) -> list[list[Arm]]:
    """Arms that agree on all but `axis`, sets of one size each; a loss that looks at no teacher is compared under every
    teacher's labels."""
    families: dict[tuple[Any, ...], list[Arm]] = {}
    given = {_labelled(arm): None for arm in found if arm.axes["teacher"] != "none"}
    for arm in found:
        rest = tuple(arm.axes[other] for other in AXES if other not in (axis, "teacher", "labels"))
        everywhere = axis == "loss" and arm.axes["teacher"] == "none"
        for teacher, labels in (given or {_labelled(arm): None}) if everywhere else [_labelled(arm)]:
            kept = ("" if axis == "teacher" else teacher, "" if axis == "labels" else labels)
            size = sizes.get(arm.set_name) if axis == "set" else None
            families.setdefault((arm.seen, size, *rest, *kept), []).append(arm)
    return list(families.values())


def _labelled(arm: Arm) -> tuple[str, str]:
    return arm.axes["teacher"], arm.axes["labels"]


def _family_pairs(family: Sequence[Arm], axis: str, main_loss: str) -> list[tuple[Arm, Arm]]:
    """(earlier, later) pairs: all of a few; of many, each against the first, and the main loss against each."""
    if axis == "optimizer":
        # The drop from the first optimizer, and what tuning gains where the default rate did not fail.
        named = {arm.axes["optimizer"]: arm for arm in family}
        defaults = [(named.get(name.removesuffix(" (tuned)"), arm), arm) for name, arm in named.items()]
        return [(family[0], arm) for arm in family[1:]] + [
            (default, arm) for default, arm in defaults if default is not arm and default is not family[0]
        ]
    if len(family) <= MOST_IN_PAIRS:
        return list(combinations(family, 2))
    pairs = [(family[0], arm) for arm in family[1:]]
    if axis == "loss":
        main = next((arm for arm in family if arm.axes["loss"] == main_loss), family[0])
        pairs += [(arm, main) for arm in family[1:] if arm is not main and main is not family[0]]
    return pairs


def _paired(
    arm: Arm, against: Arm, groups: Mapping[Arm, Sequence[Record]], seed_count: int, resolution: float
) -> dict[str, Any] | None:
    mine, theirs = ({record["seed"]: record["accuracy"]["final"] for record in groups[one]} for one in (arm, against))
    seeds = [seed for seed in mine if seed in theirs]
    if not seeds or len(seeds) < seed_count:  # what is left after a failure is the luckier half of the story
        return None
    difference = paired_difference(
        [mine[seed] for seed in seeds], [theirs[seed] for seed in seeds], resolution=resolution
    )
    return {"arm": arm.name, "against": against.name, "difference": vars(difference), "verdict": verdict(difference)}
