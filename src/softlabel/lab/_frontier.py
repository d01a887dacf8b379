"""Accuracy over bytes: which label regimes are worth theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FULL_LABELS = "replay+fp16"
"""The label spec that others are measured against: every logit of every view, as SRe2L and its followers store them."""
KEPT = 0.98


@dataclass(frozen=True, kw_only=True)
class Regime:
    """One arm of a study of bytes. Accuracies in 0..1, means over seeds; bytes are means over seeds too.

    Attributes:
        set, loss, labels, teacher: what was trained, as the arm's axes have it.
        images, label_bytes, labeler: bytes of the images, of stored labels, and of models that must be shipped.
        public: bytes of public weights that are needed beside these, which no total counts; 0 for none.
        kept: accuracy over that of full labels on the same set under the same loss; None where these were not tried, or
            may be no better than guessing.
        kept_low, kept_high: the same with the ends of the paired difference's 95 % interval; None without one.
        smaller: how many times fewer bytes its labels and labeler have than the full labels; None likewise, and for
            arms without any.
        front: no arm has as few bytes in all and more accuracy, or fewer bytes and as much.
    """

    name: str
    set: str
    loss: str
    labels: str
    teacher: str
    accuracy: float
    low: float | None
    high: float | None
    images: float
    label_bytes: float
    labeler: float
    public: float
    kept: float | None
    kept_low: float | None
    kept_high: float | None
    smaller: float | None
    front: bool

    @property
    def total(self) -> float:
        return self.images + self.label_bytes + self.labeler


def frontier(meta: Mapping[str, Any]) -> list[Regime]:
    """Every arm of a study that asks for it (a plot of the kind `bytes`), by its bytes; none for other studies."""
    if not any(entry.get("kind") == "bytes" for entry in meta.get("plots") or ()):
        return []
    arms = [arm for arm in meta["arms"] if arm.get("axes") and arm["final"] and not arm.get("failed")]
    chance = 1 / len(meta["dataset"]["class_names"])
    full = {
        (arm["axes"]["set"], arm["axes"]["loss"]): arm
        for arm in arms
        if arm["axes"]["labels"] in (FULL_LABELS, "replay")
    }
    told = {(entry["arm"], entry["against"]): entry["difference"] for entry in meta["comparisons"]}
    found = [_regime(arm, full.get((arm["axes"]["set"], arm["axes"]["loss"])), arms, told, chance) for arm in arms]
    return sorted(found, key=lambda one: (one.total, -one.accuracy))


def cheapest(regimes: Sequence[Regime], kept: float = KEPT) -> list[Regime]:
    """Per set and loss the regime with the fewest label bytes that keeps such a share of full labels' accuracy."""
    best: dict[tuple[str, str], Regime] = {}
    for one in regimes:
        enough = one.kept is not None and one.kept >= kept and one.smaller is not None and one.smaller > 1
        known = best.get((one.set, one.loss))
        if enough and (known is None or (one.smaller or 0) > (known.smaller or 0)):
            best[one.set, one.loss] = one
    return list(best.values())


def _regime(
    arm: Mapping[str, Any],
    full: Mapping[str, Any] | None,
    arms: Sequence[Mapping[str, Any]],
    told: Mapping[tuple[str, str], Mapping[str, Any] | None],
    chance: float,
) -> Regime:
    axes, final, own = arm["axes"], arm["final"], arm["bytes"]
    spent = own["labels"] + own["labeler"]
    sure = full is not None and (full["final"]["low"] or full["final"]["mean"]) > chance
    whole = full["final"]["mean"] if full is not None and sure else None
    apart = told.get((arm["name"], full["name"])) if full is not None else None
    low, high = (
        None if whole is None or apart is None or apart[end] is None else (whole + apart[end]) / whole
        for end in ("low", "high")
    )
    return Regime(
        name=arm["name"],
        set=axes["set"],
        loss=axes["loss"],
        labels=axes["labels"],
        teacher=axes["teacher"],
        accuracy=final["mean"],
        low=final["low"],
        high=final["high"],
        images=own["images"],
        label_bytes=own["labels"],
        labeler=own["labeler"],
        public=own.get("public", 0),
        kept=final["mean"] / whole if whole else None,
        kept_low=low,
        kept_high=high,
        smaller=(full["bytes"]["labels"] + full["bytes"]["labeler"]) / spent if full and spent else None,
        front=not any(_beats(other, arm) for other in arms),
    )


def _beats(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    bytes_, accuracy = _total(one) - _total(other), one["final"]["mean"] - other["final"]["mean"]
    return bool(bytes_ <= 0 <= accuracy and (bytes_ < 0 or accuracy > 0))


def _total(arm: Mapping[str, Any]) -> float:
    return float(sum(arm["bytes"][kind] for kind in ("images", "labels", "labeler")))
