"""A study's manifest as typed, frozen values, so that the rest of the report reads plain attributes."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from softlabel.core import DatasetInfo, StoreError

T = TypeVar("T")

FULL_DATA_NAMES = {"full", "full-data", "full data"}


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
    """What must be stored or shipped to repeat an arm, in bytes."""

    images: int
    labels: int
    labeler: int

    @property
    def total(self) -> int:
        return self.images + self.labels + self.labeler


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One cell of the study: a set, its labels and a loss, trained with several seeds. Accuracies in 0..1."""

    name: str
    set: str | None
    loss: str
    labels: str
    role: str
    epochs: int
    seeds: tuple[int, ...]
    final: Score
    best_test: Score | None
    bytes: ArmBytes
    records: tuple[str, ...]
    note: str = ""

    @property
    def is_baseline(self) -> bool:
        return self.role == "baseline"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Paired difference of final accuracies, `arm` minus `against`."""

    arm: str
    against: str
    difference: Score
    verdict: str


@dataclass(frozen=True, kw_only=True)
class SetFacts:
    """A distilled set of the study; `path` is relative to the store root unless absolute."""

    name: str
    path: str
    method: str
    ipc: int
    images: int
    image_bytes: int
    digest: str


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
        notes=tuple(meta["notes"]),
        environment=dict(meta["environment"]),
    )


def _arm(entry: Mapping[str, Any]) -> Arm:
    return _pick(
        Arm,
        entry,
        seeds=tuple(entry["seeds"]),
        records=tuple(entry["records"]),
        final=_pick(Score, entry["final"]),
        best_test=_pick(Score, entry["best_test"]) if entry["best_test"] else None,
        bytes=_pick(ArmBytes, entry["bytes"]),
    )


def _comparison(entry: Mapping[str, Any]) -> Comparison:
    return _pick(Comparison, entry, difference=_pick(Score, entry["difference"]))


def _label_shown(entry: Mapping[str, Any]) -> LabelShown:
    bars = tuple(_pick(LabelBar, bar, class_index=bar["class"]) for bar in entry["bars"])
    return _pick(LabelShown, entry, bars=bars)


def _pick(cls: type[T], entry: Mapping[str, Any], **ready: Any) -> T:
    """An instance of `cls` from the entries of its fields' names; `ready` ones are taken as they are."""
    values = dict(ready)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in values or (field.name not in entry and field.default is not dataclasses.MISSING):
            continue
        values[field.name] = entry[field.name]
    return cls(**values)
