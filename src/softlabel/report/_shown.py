"""What the template is given: each part of the page as plain values, figures as markup."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from softlabel.report._continual import ContinualRow
from softlabel.report._facts import Arm, SetFacts
from softlabel.report._frontier import RegimeRow
from softlabel.report._grid_plots import GridKey
from softlabel.report._label_facts import LabelFacts
from softlabel.report._pictures import Sheet
from softlabel.report._surface import SurfaceFacts


@dataclass(frozen=True, kw_only=True)
class Span:
    """A bar in percent of its track."""

    left: float
    width: float


@dataclass(frozen=True, kw_only=True)
class BarRow:
    """One class of a shown label."""

    name: str
    is_target: bool
    probability: str
    before: Span
    after: Span
    before_value: float
    after_value: float


@dataclass(frozen=True, kw_only=True)
class LabelCard:
    """One image with its soft label; `uri` is empty when its set could not be read."""

    set: str
    image: int
    class_name: str
    uri: str
    rows: tuple[BarRow, ...]


@dataclass(frozen=True, kw_only=True)
class SetView:
    """One distilled set as shown: a sheet, or a problem in words."""

    facts: SetFacts
    title: str
    sheet: Sheet | None
    problem: str
    cell: int


@dataclass(frozen=True, kw_only=True)
class ByteRow:
    """The bytes of one arm, as bar widths in percent. `beyond` says how far the bar would leave the scale."""

    arm: Arm
    parts: tuple[float, float, float]
    beyond: str


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A number of the strip under the title."""

    value: str
    label: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class LabelsView:
    """What the teachers' labels say, as shown; `kin` is whether a class hierarchy is known, `learned` whether labels
    were learned."""

    facts: Sequence[LabelFacts]
    kin: bool
    learned: bool
    plots: Sequence[tuple[str, Markup]]


@dataclass(frozen=True, kw_only=True)
class SurfaceView:
    """The scaling surface as shown."""

    facts: SurfaceFacts
    keys: Sequence[GridKey]
    cells: Markup
    contour_keys: Sequence[GridKey]
    contours: Sequence[tuple[str, Markup]]


@dataclass(frozen=True, kw_only=True)
class FrontierView:
    """Accuracy over bytes as shown."""

    rows: Sequence[RegimeRow]
    notes: Sequence[str]
    keys: Sequence[GridKey]
    plot: Markup
    forms: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class ContinualView:
    """The continual part as shown."""

    keys: Sequence[GridKey]
    rows: Sequence[ContinualRow]
    plot: Markup
