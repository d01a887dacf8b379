"""The study's main finding in words, derived from its arms and comparisons."""

from collections.abc import Mapping
from typing import Any

from softlabel.core import count_of
from softlabel.report._facts import Arm, Comparison, Score, StudyFacts, parse_facts
from softlabel.report._specs import SILENT
from softlabel.report._text import images_of, interval, percent, points, treatment, upper_first

OTHER_AXES = ("teacher", "labels", "student", "optimizer")
"""The axes that the words for a set and a loss do not name."""
_NONE_MADE = "could not be made"


def headline(meta: Mapping[str, Any]) -> str:
    """The main finding in plain words.

    A study of labels answers its own question. Of others the first comparison whose arms gave results is taken: a
    study lists the question it was made for first. Picking the largest difference instead would report the luckiest
    of many.

    Raises:
        StoreError: `meta` is no study manifest.
    """
    return headline_of(parse_facts(meta))


def headline_of(facts: StudyFacts) -> str:
    """`headline` for facts that are parsed already."""
    if facts.answers:
        return " ".join(facts.answers)
    made = next((entry for entry in facts.comparisons if entry.difference is not None), None)
    if made is not None:
        return finding(facts, made)
    arm = best_arm(facts)
    if arm is None or arm.final is None:
        return "Every arm of this study failed." if facts.arms else "This study holds no results yet."
    seeds = count_of(arm.final.n, "seed")
    verb = "reach" if arm.labels == "hard" else "reaches"
    after = f" after all {arm.seen} classes" if arm.seen else ""
    return f"{upper_first(describe(facts, arm))} {verb} {percent(arm.final.mean)} %{after} ({seeds})."


def finding(facts: StudyFacts, comparison: Comparison) -> str:
    """One comparison as a sentence, e.g. `GIFT beats KL on RDED images by 2.1 points (95 % interval ...).`"""
    left, right, where, plural = _sides(facts, comparison)
    difference = comparison.difference
    if difference is None:
        return f"{upper_first(left)} cannot be compared with {right}{where}: {_who_failed(facts, comparison)}."
    size = points(difference.mean).lstrip("+")
    evidence = _evidence(difference)
    if comparison.verdict == "better":
        sentence = f"{left} {'beat' if plural else 'beats'} {right}{where} by {size} points {evidence}."
    elif comparison.verdict == "worse":
        size = points(-difference.mean).lstrip("+")
        sentence = f"{left} {'fall' if plural else 'falls'} behind {right}{where} by {size} points {evidence}."
    elif difference.low is None:
        sentence = (
            f"{left} {'differ' if plural else 'differs'} from {right}{where} by "
            f"{points(difference.mean)} points with one seed: too few to tell them apart."
        )
    else:
        sentence = (
            f"{left} and {right} are not distinguishable{where}: the difference is "
            f"{points(difference.mean)} points {evidence}."
        )
    return upper_first(sentence)


def tally(facts: StudyFacts) -> str:
    """How all comparisons came out, e.g. `Of 6 comparisons, 4 are better and 2 are not distinguishable.`

    Arms without any result are counted after that, because a comparison cannot tell of them.
    """
    return " ".join(part for part in (_tally_verdicts(facts), _tally_failures(facts)) if part)


def _tally_verdicts(facts: StudyFacts) -> str:
    if len(facts.comparisons) < 2:
        return ""
    verdicts = [comparison.verdict if comparison.difference else _NONE_MADE for comparison in facts.comparisons]
    counts = [(verdicts.count(verdict), verdict) for verdict in dict.fromkeys(verdicts)]
    parts = [f"{count} {_verb_phrase(verdict, count)}" for count, verdict in counts]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"Of {len(verdicts)} comparisons, {listed}."


def _tally_failures(facts: StudyFacts) -> str:
    count = sum(arm.final is None for arm in facts.arms)
    return f"{count} of {count_of(len(facts.arms), 'arm')} failed." if count else ""


def best_arm(facts: StudyFacts) -> Arm | None:
    """The arm with the highest mean final accuracy but for full data. A baseline may win, and is shown then."""
    arms = [arm for arm in facts.distilled_arms or facts.arms if arm.final is not None]
    last = max((arm.seen for arm in arms), default=0)  # few classes are easy: only the last step says how well it went
    scored = {arm.name: arm.final.mean for arm in arms if arm.final is not None and arm.seen == last}
    return facts.arm(max(scored, key=lambda name: scored[name])) if scored else None


def describe(facts: StudyFacts, arm: Arm) -> str:
    """An arm in words: `GIFT on RDED images`."""
    images = images_of(facts.set_of(arm), facts.sets)
    return images if arm is facts.full_data else f"{treatment(arm)} on {images}"


def _sides(facts: StudyFacts, comparison: Comparison) -> tuple[str, str, str, bool]:
    """What is compared, against what, where, and whether the first takes a plural verb."""
    left, right = facts.arm(comparison.arm), facts.arm(comparison.against)
    both = bool(left.axes and right.axes)
    if both and any(_differ(left, right, axis) for axis in OTHER_AXES):
        return f"\u201c{left.name}\u201d", f"\u201c{right.name}\u201d", "", False
    setting = _setting(facts, left) if both else ""
    left_images, right_images = (images_of(facts.set_of(arm), facts.sets) for arm in (left, right))
    same_loss = (left.loss, left.labels) == (right.loss, right.labels)
    if left_images == right_images and treatment(left) != treatment(right):
        return treatment(left), treatment(right), f" on {left_images}{setting}", left.labels == "hard"
    if same_loss and left_images != right_images:
        return left_images, right_images, f" under {treatment(left)}{setting}", left is not facts.full_data
    first, second = describe(facts, left), describe(facts, right)
    if first == second:
        return f"\u201c{left.name}\u201d", f"\u201c{right.name}\u201d", "", False
    return first, second, setting, left is not facts.full_data and left.labels == "hard"


def _differ(left: Arm, right: Arm, axis: str) -> bool:
    """Whether two arms differ on an axis; that a loss looks at no teacher is no difference of its own."""
    values = {left.axes.get(axis), right.axes.get(axis)}
    return len(values) > 1 and SILENT.get(axis) not in values


def _setting(facts: StudyFacts, arm: Arm) -> str:
    """What else the arms share, of the axes on which the study has several values: ` (optimizer sgd)`."""
    said = {
        axis: {arm.axes[axis] for arm in facts.arms if axis in arm.axes} - {SILENT.get(axis)} for axis in OTHER_AXES
    }
    shared = [f"{axis} {arm.axes[axis]}" for axis in OTHER_AXES if len(said[axis]) > 1 and axis in arm.axes]
    return f" ({', '.join(shared)})" if shared else ""


def _who_failed(facts: StudyFacts, comparison: Comparison) -> str:
    names = [name for name in (comparison.arm, comparison.against) if facts.arm(name).final is None]
    quoted = " and ".join(f"\u201c{name}\u201d" for name in names)
    return f"{quoted} failed" if names else "no seed of both gave a result"


def _evidence(difference: Score) -> str:
    seeds = count_of(difference.n, "seed")
    if difference.low is None:
        return f"({seeds})"
    return f"(95 % interval {interval(difference)}, {seeds})"


def _verb_phrase(verdict: str, count: int) -> str:
    """`is better`, `are better`, `needs two seeds or more`, `need two seeds or more`."""
    if verdict == _NONE_MADE:
        return verdict
    if verdict.startswith("needs "):
        return verdict if count == 1 else f"need {verdict.removeprefix('needs ')}"
    return f"{'is' if count == 1 else 'are'} {verdict}"
