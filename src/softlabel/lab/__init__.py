"""What follows from the studies of labels: the scaling surface, its law, and advice."""

from softlabel.lab._absent import Absent, absent
from softlabel.lab._advise import Advice, advise
from softlabel.lab._answers import answers
from softlabel.lab._choices import Choice, choices
from softlabel.lab._classes import HIERARCHIES, Kinship, check_hierarchy, kinship, read_hierarchy
from softlabel.lab._frontier import FULL_LABELS, Regime, cheapest, frontier
from softlabel.lab._law import HeldOut, Inside, Law, Prediction, fit_laws, hold_out
from softlabel.lab._surface import HARD, Line, Size, Surface, front, read_surface

__all__ = [
    "FULL_LABELS",
    "HARD",
    "HIERARCHIES",
    "Absent",
    "Advice",
    "Choice",
    "HeldOut",
    "Inside",
    "Kinship",
    "Law",
    "Line",
    "Prediction",
    "Regime",
    "Size",
    "Surface",
    "absent",
    "advise",
    "answers",
    "cheapest",
    "check_hierarchy",
    "choices",
    "fit_laws",
    "front",
    "frontier",
    "hold_out",
    "kinship",
    "read_hierarchy",
    "read_surface",
]
