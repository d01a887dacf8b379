"""The zero-shot study: what a student knows of a class whose images, or whose entries in labels, it never saw."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Absent:
    """Test accuracy on one class, mean over seeds, in 0..1.

    Attributes:
        control: of students that saw everything.
        without_images: of those that saw no image of the class, but its entries in other images' labels.
        without_entries: of those that saw its images, but 0 for it in all other images' labels.
    """

    name: str
    control: float
    without_images: float
    without_entries: float


def absent(meta: Mapping[str, Any]) -> list[Absent]:
    """The classes of a study that has a plot of the kind `absent`; none for others, or where arms failed."""
    plot = next((entry for entry in meta.get("plots") or () if entry.get("kind") == "absent"), None)
    if plot is None:
        return []
    arms = {
        (arm["axes"]["set"], arm["axes"]["labels"]): arm
        for arm in meta["arms"]
        if arm.get("per_class") and not arm.get("failed")
    }
    names, found = meta["dataset"]["class_names"], []
    for place, set_name in plot["images"].items():
        arms_of = [arms.get(key) for key in (
            (plot["set"], plot["labels"]), (set_name, plot["labels"]), (plot["set"], plot["entries"][place])
        )]  # fmt: skip
        values = [arm["per_class"][int(place)] for arm in arms_of if arm is not None]
        if len(values) == len(arms_of) and None not in values:
            control, images, entries = values
            found.append(
                Absent(name=names[int(place)], control=control, without_images=images, without_entries=entries)
            )
    return found
