"""What every figure shares: plotly's plain JSON form, its layout, intervals and safe texts."""

import html
import math
from collections.abc import Sequence
from typing import Any

from softlabel.core import human_bytes
from softlabel.report._facts import Arm, Score
from softlabel.report._palette import INK, MUTED, RULE
from softlabel.report._text import interval, outcome

Figure = dict[str, Any]
"""`data` and `layout`, as plotly reads them."""

_FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def blank_layout(*, height: int, left: int, right: int, top: int, bottom: int) -> dict[str, Any]:
    """Margins in pixels, fonts and colours of the page."""
    axis = {
        "gridcolor": RULE,
        "linecolor": RULE,
        "zerolinecolor": RULE,
        "ticks": "",
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13, "color": MUTED}},
        "tickfont": {"size": 12},
    }
    return {
        "height": height,
        "margin": {"l": left, "r": right, "t": top, "b": bottom},
        "font": {"family": _FONT, "size": 13, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "x",
        "xaxis": dict(axis),
        "yaxis": dict(axis),
    }


def titled(axis: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`axis` with `changes`, the title keeping its looks."""
    return {**axis, **changes, "title": axis["title"] | changes["title"]}


def bytes_axis(axis: dict[str, Any], sizes: Sequence[float]) -> dict[str, Any]:
    """`axis` as a logarithmic one of all bytes of an arm, with the sizes that are shown within."""
    wide = not sizes or max(sizes) > 30 * max(1, min(sizes))
    ticks = [step * 10**power for power in range(16) for step in ((1,) if wide else (1, 2, 5))]
    found = titled(axis, {"title": {"text": "images + labels + labeler, log scale"}, "type": "log", "tickvals": ticks})
    found["ticktext"] = [human_bytes(tick) for tick in ticks]
    if sizes:
        found["range"] = [math.log10(max(1, min(sizes))) - 0.3, math.log10(max(sizes)) + 0.3]
    return found


def error_bar(score: Score, colour: str) -> dict[str, Any]:
    """The 95 % interval in percent; nothing when there is one seed."""
    if score.low is None or score.high is None:
        return {"visible": False}
    return {
        "type": "data",
        "symmetric": False,
        "array": [short((score.high - score.mean) * 100)],
        "arrayminus": [short((score.mean - score.low) * 100)],
        "color": colour,
        "thickness": 2,
        "width": 5,
    }


def hover_text(arm: Arm, extra: str = "") -> str:
    """Name, accuracy and interval of an arm."""
    if arm.final is None:
        return f"<b>{escape(arm.name)}</b><br>failed"
    lines = [f"<b>{escape(arm.name)}</b>", f"{outcome(arm)} %"]
    if arm.final.low is not None:
        lines.append(f"95 % interval {interval(arm.final)}")
    return "<br>".join([*lines, *([extra] if extra else [])])


def short(value: float) -> float:
    """Five significant digits: enough for a screen, and a smaller page."""
    return float(f"{value:.5g}")


def escape(text: str) -> str:
    """`text` for a place where plotly would read tags."""
    # Plotly reads a small HTML in its texts (bold, links); what the user wrote must stay text.
    return html.escape(text, quote=False)
