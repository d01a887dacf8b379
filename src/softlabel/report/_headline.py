"""The study's main finding in one sentence, derived from its comparisons."""

from collections.abc import Mapping
from typing import Any

from softlabel.core import count_of
from softlabel.report._facts import Arm, Comparison, StudyFacts, parse_facts
from softlabel.report._text import images_of, interval, percent, points, treatment, upper_first


def headline(meta: Mapping[str, Any]) -> str:
    """The main finding in plain words.

    The first comparison is taken: a study lists the question it was made for first. Picking the largest
    difference instead would report the luckiest of many.

    Raises:
        StoreError: `meta` is no study manifest.
    """
    return headline_of(parse_facts(meta))


def headline_of(facts: StudyFacts) -> str:
    """`headline` for facts that are parsed already."""
    if facts.comparisons:
        return finding(facts, facts.comparisons[0])
    arm = best_arm(facts)
    if arm is None:
        return "This study holds no results yet."
    seeds = count_of(arm.final.n, "seed")
    return f"{upper_first(describe(facts, arm))} reaches {percent(arm.final.mean)} % ({seeds})."


def finding(facts: StudyFacts, comparison: Comparison) -> str:
    """One comparison as a sentence, e.g. `GIFT beats KL on RDED images by 2.1 points (95 % interval ...).`"""
    left, right, where, plural = _sides(facts, comparison)
    size = points(comparison.difference.mean).lstrip("+")
    evidence = _evidence(comparison)
    if comparison.verdict == "better":
        sentence = f"{left} {'beat' if plural else 'beats'} {right}{where} by {size} points {evidence}."
    elif comparison.verdict == "worse":
        size = points(-comparison.difference.mean).lstrip("+")
        sentence = f"{left} {'fall' if plural else 'falls'} behind {right}{where} by {size} points {evidence}."
    elif comparison.difference.low is None:
        sentence = (
            f"{left} {'differ' if plural else 'differs'} from {right}{where} by "
            f"{points(comparison.difference.mean)} points with one seed: too few to tell them apart."
        )
    else:
        sentence = (
            f"{left} and {right} are not distinguishable{where}: the difference is "
            f"{points(comparison.difference.mean)} points {evidence}."
        )
    return upper_first(sentence)


def tally(facts: StudyFacts) -> str:
    """How all comparisons came out, e.g. `Of 6 comparisons, 4 are better and 2 are not distinguishable.`"""
    if len(facts.comparisons) < 2:
        return ""
    verdicts = [comparison.verdict for comparison in facts.comparisons]
    counts = [(verdicts.count(verdict), verdict) for verdict in dict.fromkeys(verdicts)]
    parts = [f"{count} {_verb_phrase(verdict, count)}" for count, verdict in counts]
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"Of {len(verdicts)} comparisons, {listed}."


def best_arm(facts: StudyFacts) -> Arm | None:
    """The arm with the highest mean final accuracy but for full data. A baseline may win, and is shown then."""
    return max(facts.distilled_arms or facts.arms, key=lambda arm: arm.final.mean, default=None)


def describe(facts: StudyFacts, arm: Arm) -> str:
    """An arm in words: `GIFT on RDED images`."""
    images = images_of(facts.set_of(arm), facts.sets)
    return images if arm is facts.full_data else f"{treatment(arm)} on {images}"


def _sides(facts: StudyFacts, comparison: Comparison) -> tuple[str, str, str, bool]:
    """What is compared, against what, where, and whether the first takes a plural verb."""
    left, right = facts.arm(comparison.arm), facts.arm(comparison.against)
    left_images, right_images = (images_of(facts.set_of(arm), facts.sets) for arm in (left, right))
    same_loss = (left.loss, left.labels) == (right.loss, right.labels)
    if left_images == right_images and treatment(left) != treatment(right):
        return treatment(left), treatment(right), f" on {left_images}", left.labels == "hard"
    if same_loss and left_images != right_images:
        return left_images, right_images, f" under {treatment(left)}", left is not facts.full_data
    first, second = describe(facts, left), describe(facts, right)
    if first == second:
        return f"\u201c{left.name}\u201d", f"\u201c{right.name}\u201d", "", False
    return first, second, "", left is not facts.full_data and left.labels == "hard"


def _evidence(comparison: Comparison) -> str:
    seeds = count_of(comparison.difference.n, "seed")
    if comparison.difference.low is None:
        return f"({seeds})"
    return f"(95 % interval {interval(comparison.difference)}, {seeds})"


def _verb_phrase(verdict: str, count: int) -> str:
    """`is better`, `are better`, `needs two seeds or more`, `need two seeds or more`."""
    if verdict.startswith("needs "):
        return verdict if count == 1 else f"need {verdict.removeprefix('needs ')}"
    return f"{'is' if count == 1 else 'are'} {verdict}"
