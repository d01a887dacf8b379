"""What the labels say: how sure they are along an expert's epochs, and which classes they mix up."""

from collections.abc import Sequence

from softlabel.report._figure import Figure, blank_layout, escape, short, titled
from softlabel.report._label_facts import LabelFacts

_PURPLES = ((0.0, "#f7f5fb"), (0.3, "#cfc6e6"), (0.6, "#8d78c0"), (1.0, "#3f2a7e"))


def classes_figure(facts: LabelFacts, names: Sequence[str]) -> Figure:
    """The mean label of every class, its own entry left out, darker where more of it goes to the other class."""
    values = [
        [None if down == across else short(100 * value) for across, value in enumerate(row)]
        for down, row in enumerate(facts.classes)
    ]
    hovers = [
        [f"{escape(names[down])} to {escape(names[across])}: {100 * value:.2f} %" for across, value in enumerate(row)]
        for down, row in enumerate(facts.classes)
    ]
    size = max(320, 24 * len(names) + 130)
    trace = {
        "type": "heatmap",
        "z": values,
        "hovertext": hovers,
        "hoverinfo": "text",
        "hoverongaps": False,
        "colorscale": [list(stop) for stop in _PURPLES],
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
    }
    layout = blank_layout(height=size, left=90, right=6, top=10, bottom=90)
    ticks = {"tickvals": list(range(len(names))), "ticktext": [escape(name) for name in names], "showgrid": False}
    layout["xaxis"] = titled(layout["xaxis"], {"title": {"text": "entry of the label"}, **ticks, "tickangle": -60})
    layout["yaxis"] = titled(layout["yaxis"], {"title": {"text": "class of the image"}, **ticks})
    layout["yaxis"]["autorange"] = "reversed"
    return {"data": [trace], "layout": layout | {"hovermode": "closest"}}


def entropy_figure(facts: Sequence[LabelFacts]) -> Figure:
    """Mean entropy over the expert's epochs."""
    along = sorted((one for one in facts if one.epoch is not None), key=lambda one: one.epoch or 0.0)
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "x": [one.epoch for one in along],
        "y": [short(one.entropy) for one in along],
        "line": {"color": "#6a51a3", "width": 2},
        "marker": {"color": "#6a51a3", "size": 9},
        "hoverinfo": "text",
        "hovertext": [f"<b>{escape(one.name)}</b><br>{one.entropy:.2f} nats" for one in along],
    }
    layout = blank_layout(height=320, left=56, right=16, top=14, bottom=52)
    layout["xaxis"] = titled(layout["xaxis"], {"title": {"text": "epochs that the expert was trained"}, "type": "log",
                                               "tickvals": [one.epoch for one in along]})  # fmt: skip
    layout["yaxis"] = titled(layout["yaxis"], {"title": {"text": "mean entropy, nats"}, "rangemode": "tozero"})
    return {"data": [trace], "layout": layout | {"hovermode": "closest"}}
