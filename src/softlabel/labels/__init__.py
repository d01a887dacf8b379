"""Where soft labels come from, and what they cost to keep."""

from softlabel.labels._files import load_labels, save_labels
from softlabel.labels._sources import (
    FixedLabels,
    HardLabels,
    OnlineLabels,
    fixed_labels,
    make_labels,
    online_labels,
)

__all__ = [
    "FixedLabels",
    "HardLabels",
    "OnlineLabels",
    "fixed_labels",
    "load_labels",
    "make_labels",
    "online_labels",
    "save_labels",
]
