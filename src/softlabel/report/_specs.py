"""The plots that a study of many arms asks for (`meta["plots"]`), as typed, frozen values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

AXES = ("set", "teacher", "labels", "student", "optimizer", "loss")
SILENT = {"teacher": "none", "labels": "hard"}
"""Values that say no more than that a loss looks at no teacher."""

Where = Mapping[str, tuple[str, ...]]
"""Which values an axis may have; axes that are not named may have any."""


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Grouped bars: one group per value of one axis, one bar per value of another."""

    title: str
    group: str
    bar: str
    where: Where = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.group, self.bar)


@dataclass(frozen=True, kw_only=True)
class Heat:
    """A table of coloured cells, one axis down and one across."""

    title: str
    rows: str
    columns: str
    where: Where = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.rows, self.columns)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Accuracy against one option of one loss. The loss without options stands at `default`."""

    title: str
    loss: str
    parameter: str
    line: str
    default: float | None = None
    log: bool = False
    where: Where = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        return ("loss", self.line)


@dataclass(frozen=True, kw_only=True)
class Epochs:
    """Accuracy against a number that `x` gives for the values of one axis, e.g. a teacher's epoch or a set's IPC."""

    title: str
    axis: str
    x: Mapping[str, float]
    line: str
    x_title: str
    log: bool = False
    where: Where = field(default_factory=dict)

    @property
    def axes(self) -> tuple[str, ...]:
        return (self.axis, self.line)


PlotSpec = Bars | Heat | Sweep | Epochs


def parse_plot(entry: Mapping[str, Any]) -> PlotSpec:
    """One entry of `meta["plots"]`.

    Raises:
        KeyError: an entry is missing.
        ValueError: the kind, or an axis, is not known; or a number is none.
    """
    kind = entry["kind"]
    if kind not in _KINDS:
        raise ValueError(f"a plot of the kind {kind!r}; known are {', '.join(_KINDS)}")
    return _KINDS[kind](entry)


def _bars(entry: Mapping[str, Any]) -> Bars:
    return Bars(title=entry["title"], where=_where(entry), group=_axis(entry, "group"), bar=_axis(entry, "bar"))


def _heat(entry: Mapping[str, Any]) -> Heat:
    return Heat(title=entry["title"], where=_where(entry), rows=_axis(entry, "rows"), columns=_axis(entry, "columns"))


def _sweep(entry: Mapping[str, Any]) -> Sweep:
    default = entry.get("default")
    return Sweep(
        title=entry["title"],
        where=_where(entry),
        loss=entry["loss"],
        parameter=entry["parameter"],
        line=_axis(entry, "line"),
        default=None if default is None else float(default),
        log=bool(entry.get("log", False)),
    )


def _epochs(entry: Mapping[str, Any]) -> Epochs:
    return Epochs(
        title=entry["title"],
        where=_where(entry),
        axis=_axis(entry, "axis"),
        x={name: float(value) for name, value in entry["x"].items()},
        line=_axis(entry, "line"),
        x_title=entry["x_title"],
        log=bool(entry.get("log", False)),
    )


_KINDS: dict[str, Callable[[Mapping[str, Any]], PlotSpec]] = {
    "bars": _bars,
    "heat": _heat,
    "sweep": _sweep,
    "epochs": _epochs,
}


def _axis(entry: Mapping[str, Any], role: str) -> str:
    return _known(entry[role], entry["title"])


def _where(entry: Mapping[str, Any]) -> Where:
    """Axis to allowed values; one value may stand without a list."""
    pairs = (entry.get("where") or {}).items()
    return {
        _known(axis, entry["title"]): (values,) if isinstance(values, str) else tuple(values) for axis, values in pairs
    }


def _known(axis: str, title: str) -> str:
    if axis not in AXES:
        raise ValueError(f"the plot {title!r} names the axis {axis!r}; the axes are {', '.join(AXES)}")
    return axis
