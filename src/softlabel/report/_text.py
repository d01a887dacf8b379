"""Numbers and names as people read them: percent, points, intervals, bytes, seconds, losses and methods."""

from collections.abc import Mapping
from typing import Any

from softlabel.core import count_of as count_of  # these two for the templates, which see this module
from softlabel.core import human_bytes as human_bytes
from softlabel.core import human_seconds, parse_spec
from softlabel.report._facts import Arm, Score, SetFacts

MINUS = "\u2212"
NO_VALUE = "\u2014"

_LOSS_NAMES = {
    "ce": "cross-entropy",
    "cosine": "cosine",
    "gift": "GIFT",
    "gift_additive": "GIFT (additive)",
    "kl": "KL",
    "kl_scaled": "scaled KL",
    "mse": "MSE",
    "mse_ce": "MSE + cross-entropy",
    "soft_ce": "soft cross-entropy",
    "soft_ce_ce": "soft cross-entropy + cross-entropy",
}
_METHOD_NAMES = {
    "cda": "CDA",
    "datm": "DATM",
    "dc": "DC",
    "dm": "DM",
    "dsa": "DSA",
    "ftd": "FTD",
    "hello": "HeLlO",
    "mtt": "MTT",
    "random": "random real",
    "rded": "RDED",
    "sre2l": "SRe2L",
}


def percent(fraction: float) -> str:
    """`0.6317` -> `63.2`; the unit is left to the column or the sentence."""
    return _signed(fraction * 100)


def points(difference: float) -> str:
    """`0.1624` -> `+16.2` percentage points."""
    text = _signed(difference * 100)
    return text if text.startswith(MINUS) or text == "0.0" else f"+{text}"


def plus_minus(score: Score | None) -> str:
    """`63.2 ± 0.4`, or the mean alone when there is one seed."""
    if score is None:
        return NO_VALUE
    return percent(score.mean) if score.std is None else f"{percent(score.mean)} ± {percent(score.std)}"


def interval(score: Score | None) -> str:
    """`62.9 to 63.6`; a dash when there is one seed."""
    if score is None or score.low is None or score.high is None:
        return NO_VALUE
    return f"{percent(score.low)} to {percent(score.high)}"


def outcome(arm: Arm) -> str:
    """An arm's final accuracy as `plus_minus`, or `failed` when no seed of it gave one."""
    return "failed" if arm.final is None else plus_minus(arm.final)


def seed_count(arm: Arm) -> str:
    """`3`, or `2 of 3` when a seed failed."""
    done = 0 if arm.final is None else arm.final.n
    return f"{done} of {done + len(arm.failed)}" if arm.failed else str(done)


def arm_note(arm: Arm) -> str:
    """The arm's note, and which of its seeds failed with what."""
    failures = [f"seed {failure.seed} failed: {failure.error}" for failure in arm.failed]
    return "; ".join(part for part in (arm.note, *failures) if part)


def duration(seconds: float | None) -> str:
    """`human_seconds`, or a dash when it is not known."""
    return NO_VALUE if seconds is None else human_seconds(seconds)


def loss_name(spec: str) -> str:
    """A loss spec in words: `kl:temperature=4` -> `KL (temperature=4)`."""
    name, _ = parse_spec(spec)
    tail = spec.partition(":")[2]
    words = _LOSS_NAMES.get(name, name)
    return f"{words} ({tail})" if tail else words


def treatment(arm: Arm) -> str:
    """What is done with the images: `hard labels`, or the loss on soft labels."""
    if arm.labels != "hard":
        return loss_name(arm.loss)
    return "hard labels" if parse_spec(arm.loss)[0] == "ce" else f"hard labels with {loss_name(arm.loss)}"


def images_of(entry: SetFacts | None, among: tuple[SetFacts, ...]) -> str:
    """The images in words: `RDED images`, with the set's name when sets share a method."""
    if entry is None:
        return "the full data set"
    method = parse_spec(entry.method)[0]
    alike = [other for other in among if parse_spec(other.method)[0] == method]
    images = f"{_METHOD_NAMES.get(method, method)} images"
    return f"{images} ({entry.name})" if len(alike) > 1 else images


def upper_first(text: str) -> str:
    """`text` with its first letter in upper case, the rest as it is."""
    return text[:1].upper() + text[1:]


def flat_settings(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (`optimizer.lr`, `0.001`) pairs, in their order."""
    pairs: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            pairs.extend(flat_settings(value, f"{name}."))
        else:
            pairs.append((name, plain_value(value)))
    return pairs


def plain_value(value: Any) -> str:
    """A JSON value for a table cell."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(plain_value(item) for item in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={plain_value(item)}" for key, item in value.items()) or "none"
    return str(value)


def _signed(value: float) -> str:
    text = f"{abs(value):.1f}"
    return f"{MINUS}{text}" if value < 0 and text != "0.0" else text
