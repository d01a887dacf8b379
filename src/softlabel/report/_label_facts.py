"""What a study's manifest says of its teachers' labels, as typed values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softlabel.lab import Kinship, kinship


@dataclass(frozen=True, kw_only=True)
class LabelFacts:
    """What one teacher's labels look like on real images; see `softlabel.evaluation`'s facts of labels.

    Attributes:
        epoch: of the teacher, where the study follows a trajectory.
        classes: mean label per class, [C, C]; empty with many classes.
        kinship: how the classes mixed up agree with a hierarchy; None where none is known.
        distance: from learned labels on the same images, in 0..1, mean over families; None where none were learned.
    """

    name: str
    entropy: float
    confidence: float
    agreement: float
    epoch: float | None
    classes: Sequence[Sequence[float]]
    kinship: Kinship | None
    distance: float | None


def parse_label_facts(meta: Mapping[str, Any]) -> tuple[LabelFacts, ...]:
    """The study's entries, in its order."""
    plot: Mapping[str, Any] = next((p for p in meta.get("plots") or () if p.get("kind") == "classes"), {})
    epochs, groups = plot.get("x") or {}, plot.get("groups") or {}
    kinds = [groups[name] for name in meta["dataset"]["class_names"]] if groups else []
    learned = list((meta.get("label_distances") or {}).values())
    found = []
    for entry in meta.get("label_facts") or ():
        rows = entry.get("classes") or []
        found.append(
            LabelFacts(
                name=entry["name"],
                entropy=float(entry["entropy"]),
                confidence=float(entry["confidence"]),
                agreement=float(entry["agreement"]),
                epoch=epochs.get(entry["name"]),
                classes=rows,
                kinship=kinship(rows, kinds) if kinds and rows else None,
                distance=sum(float(one[entry["name"]]) for one in learned) / len(learned) if learned else None,
            )
        )
    return tuple(found)
