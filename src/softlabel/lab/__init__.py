"""What follows from the studies of labels: the scaling surface, its law, and advice."""

from softlabel.lab._absent import Absent, absent
from softlabel.lab._advise import Advice, advise
from softlabel.lab._choices import Choice, choices
from softlabel.lab._law import HeldOut, Law, Prediction, fit_laws, hold_out
from softlabel.lab._surface import HARD, Line, Size, Surface, front, read_surface

__all__ = [
    "HARD",
    "Absent",
    "Advice",
    "Choice",
    "HeldOut",
    "Law",
    "Line",
    "Prediction",
    "Size",
    "Surface",
    "absent",
    "advise",
    "choices",
    "fit_laws",
    "front",
    "hold_out",
    "read_surface",
]
