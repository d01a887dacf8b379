"""What would have been chosen: on the selection split, as one should, and on the test split, as the paper does."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The choice among the arms of one set and loss. Accuracies in 0..1, on the test split, means over seeds.

    Attributes:
        chosen: (teacher, labels) with the highest accuracy on the selection split.
        accuracy: of the chosen arm.
        best: (teacher, labels) with the highest accuracy on the test split.
        best_accuracy: of that arm: what a choice on the test split would have reported.
    """

    set: str
    loss: str
    chosen: tuple[str, str]
    accuracy: float
    best: tuple[str, str]
    best_accuracy: float

    @property
    def difference(self) -> float:
        """How much better the choice on the test split looks: what it flatters itself by, and what the selection split
        missed for being small."""
        return self.best_accuracy - self.accuracy


def choices(meta: Mapping[str, Any]) -> list[Choice]:
    """The choices of a study that is made for choosing; none for others.

    Of equally good arms the earlier counts. Arms without a teacher, and those that failed, are no candidates.
    """
    if not meta.get("choosing"):
        return []
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for arm in meta["arms"]:
        axes = arm.get("axes") or {}
        if arm.get("selection") and not arm.get("failed") and axes.get("teacher", "none") != "none":
            groups.setdefault((axes["set"], axes["loss"]), []).append(arm)
    found: list[Choice] = []
    for (set_name, loss), arms in groups.items():
        chosen = max(arms, key=lambda arm: arm["selection"]["mean"])
        best = max(arms, key=lambda arm: arm["final"]["mean"])
        found.append(
            Choice(
                set=set_name,
                loss=loss,
                chosen=_place(chosen),
                accuracy=chosen["final"]["mean"],
                best=_place(best),
                best_accuracy=best["final"]["mean"],
            )
        )
    return found


def _place(arm: Mapping[str, Any]) -> tuple[str, str]:
    return arm["axes"]["teacher"], arm["axes"]["labels"]
