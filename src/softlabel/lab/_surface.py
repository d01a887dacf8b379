"""The scaling surface: accuracy over images per class, kept entries of a label, and the expert's epoch.

"A label is worth a thousand images" (NeurIPS 2024) calls it the data-knowledge scaling law, and shows its measured
curves; it fits no formula. The law that is fitted here is our own (`softlabel.lab._law`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from softlabel.core import StoreError

HARD = 0
"""Kept entries of a hard label."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """One measured cell.

    Attributes:
        ipc: images per class.
        accuracy: mean over seeds of the final accuracy, in 0..1.
        std: over seeds; None for one seed.
        seeds: how many.
    """

    ipc: int
    accuracy: float
    std: float | None
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Line:
    """Cells with the same labels, over images per class.

    Attributes:
        epoch: of the expert; None for hard labels.
        kept: largest entries of a label that are kept; `HARD` for hard labels.
        sizes: ascending in images per class.
    """

    epoch: int | None
    kept: int
    sizes: tuple[Size, ...]

    @property
    def name(self) -> str:
        """In words, e.g. `top 4 of epoch 8`."""
        return "hard labels" if self.epoch is None else f"top {self.kept} of epoch {self.epoch}"

    @property
    def ipcs(self) -> tuple[int, ...]:
        return tuple(size.ipc for size in self.sizes)


@dataclass(frozen=True, kw_only=True)
class Surface:
    """All measured lines; hard labels first, then by epoch and kept entries."""

    dataset: str
    classes: int
    lines: tuple[Line, ...]

    @property
    def experts(self) -> dict[int | None, tuple[Line, ...]]:
        """The lines of every expert's epoch; those of hard labels under None."""
        found: dict[int | None, list[Line]] = {}
        for line in self.lines:
            found.setdefault(line.epoch, []).append(line)
        return {epoch: tuple(lines) for epoch, lines in found.items()}


def read_surface(meta: Mapping[str, Any], where: str) -> Surface:
    """The surface of a study's manifest: its plot of the kind `surface` says what its arms stand for.

    Cells of which a seed failed are left out: what remains of them is the luckier half.

    Raises:
        StoreError: the study at `where` has no surface, no finished cell of one, or a manifest that is damaged.
    """
    try:
        return _read(meta, where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(
            f"The manifest of the study at {where} does not hold what a scaling study has ({error!r}). Make it again "
            f"with softlabel lab scaling: what is finished is found."
        ) from error


def _read(meta: Mapping[str, Any], where: str) -> Surface:
    plot = next((entry for entry in meta.get("plots") or () if entry.get("kind") == "surface"), None)
    if plot is None:
        raise StoreError(
            f"The study at {where} has no scaling surface. Make one with softlabel lab scaling, and give the folder "
            f"that it prints."
        )
    cells: dict[tuple[int | None, int], dict[int, Size]] = {}
    for arm in meta["arms"]:
        place = _place(arm, plot)
        if place is not None and arm["final"] and not arm.get("failed"):
            epoch, kept, ipc = place
            final = arm["final"]
            if ipc < 1 or not 0 <= final["mean"] <= 1:
                raise ValueError(f"an accuracy of {final['mean']} at {ipc} images per class")
            size = Size(ipc=ipc, accuracy=final["mean"], std=final["std"], seeds=final["n"])
            cells.setdefault((epoch, kept), {})[ipc] = size
    if not cells:
        raise StoreError(f"No cell of the surface at {where} has finished. Run softlabel lab scaling again.")
    lines = [
        Line(epoch=epoch, kept=kept, sizes=tuple(sizes[ipc] for ipc in sorted(sizes)))
        for (epoch, kept), sizes in sorted(cells.items(), key=lambda item: (item[0][0] or 0, item[0][1]))
    ]
    data = meta["dataset"]
    return Surface(dataset=data["name"], classes=len(data["class_names"]), lines=tuple(lines))


def front(lines: Sequence[Line]) -> list[tuple[Line, Size]]:
    """The Pareto front: cells that no other one matches with as few images and betters, or betters with fewer.

    Ascending in images per class, and so in accuracy.
    """
    cells = sorted(((line, size) for line in lines for size in line.sizes), key=lambda c: (c[1].ipc, -c[1].accuracy))
    found: list[tuple[Line, Size]] = []
    for line, size in cells:
        if not found or size.accuracy > found[-1][1].accuracy:
            found.append((line, size))
    return found


def _place(arm: Mapping[str, Any], plot: Mapping[str, Any]) -> tuple[int | None, int, int] | None:
    """(expert's epoch, kept entries, images per class) of an arm; None for one that is not on the surface."""
    axes = arm.get("axes") or {}
    ipc = plot["ipc"].get(axes.get("set"))
    if ipc is None:
        return None
    if axes["teacher"] == "none":
        return None, HARD, int(ipc)
    epoch, kept = plot["epochs"].get(axes["teacher"]), plot["kept"].get(axes["labels"])
    return None if epoch is None or kept is None else (int(epoch), int(kept), int(ipc))
