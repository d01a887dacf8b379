"""A study's manifest as typed, frozen values, so that the rest of the report reads plain attributes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from softlabel.core import DatasetInfo, StoreError
from softlabel.lab import Absent, Choice, Regime, Surface, absent, answers, choices, frontier, read_surface
from softlabel.report._label_facts import LabelFacts, parse_label_facts
from softlabel.report._samples import SampleFacts
from softlabel.report._specs import AXES, PlotSpec, parse_plot

T = TypeVar("T")

FULL_DATA_NAMES = {"full", "full-data", "full data"}
LAB_KINDS = ("surface", "absent", "classes", "bytes")
"""Entries of `plots` that are no plot of arms, but tell what arms stand for in a study of labels."""
MANY_ARMS = 12
"""Beyond, a grid's page folds the plots that have a row or a line per arm."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """Mean over `n` seeds. `std` and the 95 % interval (`low`, `high`) are None when n is 1."""

    mean: float
    std: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, kw_only=True)
class ArmBytes:
    """What must be stored or shipped to repeat an arm, in bytes; `public` weights are not in the total."""

    images: int
    labels: int
    labeler: int
    public: int = 0

    @property
    def total(self) -> int:
        return self.images + self.labels + self.labeler


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A seed that gave no accuracy, and why."""

    seed: int
    error: str


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One cell of the study: a set, its labels and a loss, trained with several seeds. Accuracies in 0..1.

    Attributes:
        final: None when every seed failed.
        axes: where the arm stands in a grid; empty in a study that is none.
        own_loss: the loss is the one that the set's method was published with.
        seen: classes it is trained and judged on in a class-incremental study; 0 for all.
        failed: seeds that are not in `seeds`.
    """

    name: str
    set: str | None
    loss: str
    labels: str
    role: str
    epochs: int
    seeds: tuple[int, ...]
    final: Score | None
    best_test: Score | None
    bytes: ArmBytes
    records: tuple[str, ...]
    note: str = ""
    axes: Mapping[str, str] = field(default_factory=dict)
    own_loss: bool = False
    seen: int = 0
    failed: tuple[Failure, ...] = ()

    @property
    def is_baseline(self) -> bool:
        return self.role == "baseline"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired difference of final accuracies, `arm` minus `against`; None when one of them failed."""

    arm: str
    against: str
    difference: Score | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """A distilled set of the study; `path` is relative to the store root unless absolute.

    Attributes:
        image_forms: bytes of the same pixels in each lossless form, in studies of bytes.
    """

    name: str
    path: str
    method: str
    ipc: int
    images: int
    image_bytes: int
    digest: str
    image_forms: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class LabelBar:
    """One class of a soft label; `before` and `after` are components of the unit-length target."""

    class_index: int
    probability: float
    before: float
    after: float


@dataclass(frozen=True, kw_only=True)
class LabelShown:
    """The largest entries of one image's soft label."""

    set: str
    image: int
    target: int
    bars: tuple[LabelBar, ...]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the students were trained; `settings` is a nested dict of plain values."""

    name: str
    fingerprint: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ContinualArm:
    """One arm of a continual part; a score is None where it failed.

    Attributes:
        steps: accuracy on all classes seen so far, after each step.
        average: of the steps.
        forgetting: accuracy lost on the classes of earlier steps, as a fraction.
    """

    name: str
    set: str
    loss: str
    steps: tuple[Score | None, ...]
    average: Score | None
    forgetting: Score | None


@dataclass(frozen=True, kw_only=True)
class Continual:
    """Classes that arrive step by step, and what each arm knew after every step."""

    classes: tuple[tuple[str, ...], ...]
    arms: tuple[ContinualArm, ...]

    @property
    def seen(self) -> tuple[int, ...]:
        """Number of classes seen after each step."""
        return tuple(sum(len(step) for step in self.classes[: position + 1]) for position in range(len(self.classes)))


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """All that the manifest of a study says."""

    name: str
    title: str
    command: str
    info: DatasetInfo
    protocol: Protocol
    student: str
    teacher: dict[str, Any] | None
    sets: tuple[SetFacts, ...]
    arms: tuple[Arm, ...]
    comparisons: tuple[Comparison, ...]
    labels_shown: tuple[LabelShown, ...]
    notes: tuple[str, ...]
    environment: dict[str, Any]
    kind: str = ""
    plots: tuple[PlotSpec, ...] = ()
    continual: Continual | None = None
    surface: Surface | None = None
    choices: tuple[Choice, ...] = ()
    absent: tuple[Absent, ...] = ()
    answers: tuple[str, ...] = ()
    regimes: tuple[Regime, ...] = ()
    label_facts: tuple[LabelFacts, ...] = ()
    samples: tuple[SampleFacts, ...] = ()
    generator: dict[str, float] | None = None

    @property
    def is_grid(self) -> bool:
        return self.kind == "grid"

    @property
    def is_large_grid(self) -> bool:
        """A grid with more arms than a plot of single arms can show well."""
        return self.is_grid and len(self.arms) > MANY_ARMS

    def arm(self, name: str) -> Arm:
        """The arm called `name`."""
        return next(arm for arm in self.arms if arm.name == name)

    def set_of(self, arm: Arm) -> SetFacts | None:
        """The distilled set that `arm` trains on; None for the full data set."""
        if arm.set is None or arm.set in FULL_DATA_NAMES:
            return None
        return next((entry for entry in self.sets if entry.name == arm.set), None)

    @property
    def full_data(self) -> Arm | None:
        """The baseline trained on the whole data set: a baseline arm without a distilled set."""
        return next((arm for arm in self.arms if arm.is_baseline and self.set_of(arm) is None), None)

    @property
    def distilled_arms(self) -> tuple[Arm, ...]:
        """Every arm but the full-data one, baselines included."""
        return tuple(arm for arm in self.arms if arm is not self.full_data)

    def class_name(self, index: int) -> str:
        """The name of a class, or its number when the data set does not name it."""
        names = self.info.class_names
        return names[index] if 0 <= index < len(names) else f"class {index}"


def parse_facts(meta: Mapping[str, Any], where: str = "This study") -> StudyFacts:
    """`meta` of a study manifest, as typed values.

    Raises:
        StoreError: something is missing or of a wrong type; the message names it and `where`.
    """
    try:
        facts = _facts(meta)
    except KeyError as error:
        raise StoreError(
            f"{where} has no entry {error.args[0]!r}: it was written by another version, or is damaged. "
            f"Run the command that made it again."
        ) from error
    except (TypeError, AttributeError, ValueError) as error:
        raise StoreError(
            f"{where} holds an entry of the wrong form ({error}): it was written by another version, or is "
            f"damaged. Run the command that made it again."
        ) from error
    known = {arm.name for arm in facts.arms}
    for comparison in facts.comparisons:
        for name in (comparison.arm, comparison.against):
            if name not in known:
                raise StoreError(f"{where} compares the arm {name!r}, which it does not list. Make the study again.")
    return facts


def _facts(meta: Mapping[str, Any]) -> StudyFacts:
    return StudyFacts(
        name=meta["name"],
        title=meta["title"] or meta["name"],
        command=meta["command"],
        info=DatasetInfo.from_json(meta["dataset"]),
        protocol=_pick(Protocol, meta["protocol"]),
        student=meta["student"],
        teacher=dict(meta["teacher"]) if meta["teacher"] else None,
        sets=tuple(_pick(SetFacts, entry) for entry in meta["sets"]),
        arms=tuple(_arm(entry) for entry in meta["arms"]),
        comparisons=tuple(_comparison(entry) for entry in meta["comparisons"]),
        labels_shown=tuple(_label_shown(entry) for entry in meta["labels_shown"]),
        generator={name: float(value) for name, value in meta["generator"].items()} if meta.get("generator") else None,
        samples=tuple(_pick(SampleFacts, entry) for entry in meta.get("samples") or ()),
        notes=tuple(meta["notes"]),
        environment=dict(meta["environment"]),
        kind=meta.get("kind") or "",
        plots=tuple(parse_plot(entry) for entry in meta.get("plots") or () if entry.get("kind") not in LAB_KINDS),
        continual=_continual(meta["continual"]) if meta.get("continual") else None,
        surface=_surface(meta),
        choices=tuple(choices(meta)),
        absent=tuple(absent(meta)),
        answers=tuple(answers(meta)),
        regimes=tuple(frontier(meta)),
        label_facts=parse_label_facts(meta),
    )


def _surface(meta: Mapping[str, Any]) -> Surface | None:
    """The scaling surface, where the study has one and any cell of it finished."""
    has_one = any(entry.get("kind") == "surface" for entry in meta.get("plots") or ())
    return read_surface(meta, "this folder") if has_one and any(arm["final"] for arm in meta["arms"]) else None


def _arm(entry: Mapping[str, Any]) -> Arm:
    failed = tuple(_pick(Failure, failure) for failure in entry.get("failed") or ())
    if not entry["final"] and not failed:
        raise ValueError(f"the arm {entry['name']!r} has no accuracy, and no seed of it is listed as failed")
    axes = dict(entry.get("axes") or {})
    if axes:
        axes.setdefault("labels", entry["labels"])  # studies made before labels were an axis have the regime alone
    if axes and sorted(axes) != sorted(AXES):
        raise ValueError(f"the arm {entry['name']!r} has the axes {', '.join(axes)}; needed are {', '.join(AXES)}")
    return _pick(
        Arm,
        entry,
        seeds=tuple(entry["seeds"]),
        records=tuple(entry["records"]),
        final=_score(entry["final"]),
        best_test=_score(entry["best_test"]),
        bytes=_pick(ArmBytes, entry["bytes"]),
        axes=axes,
        own_loss=bool(entry.get("own_loss", False)),
        failed=failed,
    )


def _score(entry: Mapping[str, Any] | None) -> Score | None:
    return _pick(Score, entry) if entry else None


def _comparison(entry: Mapping[str, Any]) -> Comparison:
    return _pick(Comparison, entry, difference=_score(entry["difference"]))


def _continual(entry: Mapping[str, Any]) -> Continual:
    classes = tuple(tuple(step) for step in entry["classes"])
    arms = tuple(_continual_arm(arm) for arm in entry["arms"])
    for arm in arms:
        if len(arm.steps) != len(classes):
            raise ValueError(f"the continual arm {arm.name!r} has {len(arm.steps)} steps, and there are {len(classes)}")
    return Continual(classes=classes, arms=arms)


def _continual_arm(entry: Mapping[str, Any]) -> ContinualArm:
    steps = tuple(_score(step) for step in entry["steps"])
    scores = {name: _score(entry[name]) for name in ("average", "forgetting")}
    return _pick(ContinualArm, entry, steps=steps, **scores)


def _label_shown(entry: Mapping[str, Any]) -> LabelShown:
    bars = tuple(_pick(LabelBar, bar, class_index=bar["class"]) for bar in entry["bars"])
    return _pick(LabelShown, entry, bars=bars)


def _pick(cls: type[T], entry: Mapping[str, Any], **ready: Any) -> T:
    """An instance of `cls` from the entries of its fields' names; `ready` ones are taken as they are."""
    values = dict(ready)
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        if item.name in values or (item.name not in entry and item.default is not dataclasses.MISSING):
            continue
        values[item.name] = entry[item.name]
    return cls(**values)
