"""The frontier of a study of bytes: a table of regimes, and accuracy over bytes with the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from softlabel.core import human_bytes
from softlabel.lab import Regime
from softlabel.report._facts import SetFacts
from softlabel.report._figure import Figure, blank_layout, bytes_axis, escape, short, titled
from softlabel.report._grid_plots import GridKey
from softlabel.report._palette import INK, MARKS, SYMBOLS
from softlabel.report._text import NO_VALUE, percent

_COLOURS = {"hard": "#8c8c8c", "fixed": "#0072b2", "online": "#d55e00", "replay": "#009e73", "hello": "#cc79a7"}
_WORDS = {
    "hard": "hard labels",
    "fixed": "one soft label per image",
    "online": "the teacher is shipped",
    "replay": "one soft label per view, stored",
    "hello": "a labeler is shipped",
}
_FORMS = {"png": "PNG", "webp": "lossless WebP", "raw": "plain pixels (safetensors)"}


REGIME_COLUMNS = (
    "set",
    "labels",
    "who labels",
    "loss",
    "accuracy, %",
    "of full labels', %",
    "95 % interval of that",
    "times fewer bytes",
    "labels and labeler",
    "total",
)


@dataclass(frozen=True, kw_only=True)
class RegimeRow:
    """One regime in text."""

    set: str
    labels: str
    teacher: str
    loss: str
    accuracy: str
    interval: str
    kept: str
    kept_interval: str
    smaller: str
    images: int
    label_bytes: int
    labeler: int
    total: int
    public: int
    front: bool

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text, under `REGIME_COLUMNS`."""
        labels = f"{self.labels} ★" if self.front else self.labels
        bytes_ = (human_bytes(size) for size in (self.label_bytes + self.labeler, self.total))
        shown = (self.accuracy, self.kept, self.kept_interval, self.smaller)
        return (self.set, labels, self.teacher, self.loss, *shown, *bytes_)


def regime_rows(regimes: Sequence[Regime]) -> list[RegimeRow]:
    """The table, by total bytes."""
    return [
        RegimeRow(
            set=one.set,
            labels=one.labels,
            teacher="" if one.teacher == "none" else one.teacher,
            loss=one.loss,
            accuracy=percent(one.accuracy),
            interval=_between(one.low, one.high),
            kept=NO_VALUE if one.kept is None else percent(one.kept),
            kept_interval=_between(one.kept_low, one.kept_high),
            smaller=NO_VALUE
            if one.smaller is None
            else f"{one.smaller:,.0f}"
            if one.smaller >= 100
            else f"{one.smaller:.3g}",
            images=round(one.images),
            label_bytes=round(one.label_bytes),
            labeler=round(one.labeler),
            total=round(one.total),
            public=round(one.public),
            front=one.front,
        )
        for one in regimes
    ]


def regime_notes(rows: Sequence[RegimeRow]) -> list[str]:
    """What the table of regimes has to say beside its numbers, in sentences."""
    notes = [
        "A star: on the Pareto front.",
        "Full labels are every logit of every view in 16 bits (replay+fp16), under the same loss on the same set; the "
        "share of their accuracy has the 95 % interval of the difference paired by seed, over full labels' mean, which "
        "is taken as exact.",
        "Labels and labeler count towards times fewer.",
        "A dash: full labels were not tried there, failed, or taught too little above chance for a share of them to "
        "mean anything; there are no bytes of labels; or one seed has no interval.",
    ]
    if public := max((row.public for row in rows), default=0):
        notes.append(
            f"Public weights that a labeler is built on ({human_bytes(public)}) are in no total: everybody can get "
            f"them, or make them again from their recipe."
        )
    return notes


def _between(low: float | None, high: float | None) -> str:
    return NO_VALUE if low is None or high is None else f"{percent(low)} to {percent(high)}"


def image_forms(entry: SetFacts) -> str:
    """What the images of a set weigh in each lossless form, in words."""
    forms = entry.image_forms or {}
    told = ", ".join(f"{human_bytes(size)} as {_FORMS.get(form, form)}" for form, size in forms.items())
    return f"{entry.name}: {told}"


def frontier_keys(regimes: Sequence[Regime]) -> list[GridKey]:
    """The legend: a colour per kind of labels, a symbol per set."""
    kinds = dict.fromkeys(_kind(one) for one in regimes)
    sets = list(dict.fromkeys(one.set for one in regimes))
    keys = [GridKey(label=_WORDS[kind], colour=_COLOURS[kind], mark=MARKS[0]) for kind in _COLOURS if kind in kinds]
    if len(sets) > 1:
        keys += [GridKey(label=name, colour=INK, mark=MARKS[i % len(MARKS)]) for i, name in enumerate(sets)]
    return keys


def frontier_figure(regimes: Sequence[Regime]) -> Figure:
    """Accuracy over all bytes, on a logarithmic scale; the steps are the Pareto front."""
    sets = list(dict.fromkeys(one.set for one in regimes))
    data: list[dict[str, Any]] = [_dot(one, SYMBOLS[sets.index(one.set) % len(SYMBOLS)]) for one in regimes]
    front = [one for one in regimes if one.front]
    data.append({
        "type": "scatter", "mode": "lines", "name": "Pareto front", "hoverinfo": "skip",
        "x": [one.total for one in front], "y": [short(100 * one.accuracy) for one in front],
        "line": {"color": INK, "width": 1.2, "dash": "dot", "shape": "hv"},
    })  # fmt: skip
    layout = blank_layout(height=420, left=56, right=24, top=14, bottom=52)
    layout["xaxis"] = bytes_axis(layout["xaxis"], [one.total for one in regimes])
    layout["yaxis"] = titled(layout["yaxis"], {"title": {"text": "final accuracy, %"}})
    return {"data": data, "layout": layout | {"hovermode": "closest"}}


def _dot(one: Regime, symbol: str) -> dict[str, Any]:
    colour = _COLOURS[_kind(one)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(one.name),
        "x": [one.total],
        "y": [short(100 * one.accuracy)],
        "marker": {
            "color": colour if one.loss == "gift" else "rgba(0,0,0,0)",
            "size": 10,
            "symbol": symbol,
            "line": {"color": colour, "width": 2},
        },
        "hoverinfo": "text",
        "hovertext": [
            f"<b>{escape(one.labels)}</b> of {escape(one.teacher)}, {escape(one.loss)}<br>{escape(one.set)}<br>"
            f"{percent(one.accuracy)} %, "
            f"{human_bytes(round(one.total))}, of which labels {human_bytes(round(one.label_bytes))}"
        ],
    }


def _kind(one: Regime) -> str:
    if one.public:
        return "hello"
    kind = one.labels.partition("+")[0].partition(":")[0]
    return kind if kind in _COLOURS else "fixed"
