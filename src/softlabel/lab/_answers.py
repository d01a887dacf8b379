"""What a study of labels found, in sentences: each answers a question that the study was made for."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from softlabel.lab._absent import absent
from softlabel.lab._choices import choices
from softlabel.lab._frontier import KEPT, cheapest, frontier
from softlabel.lab._surface import read_surface

SOFT = "soft_ce"
VERDICTS = ("better", "worse", "not distinguishable")
_SWAP = re.compile(r"fixed\+swap:rank=(\d+)")
_KEEP = re.compile(r"fixed\+keep:top=(\d+)")
_TEMPER = re.compile(r"fixed\+temper:temperature=([\d.]+)")
_EXPERTS = re.compile(r"(\d+) experts? of epoch (\d+)")
_FIRST_RANKS = 3

Arms = Mapping[tuple[str, str], Mapping[str, Any]]


def answers(meta: Mapping[str, Any]) -> list[str]:
    """The findings of a study's manifest; none for a study whose comparisons say it best.

    Differences are between means over seeds, in points.
    """
    arms = {
        (arm["axes"]["set"], arm["axes"]["labels"]): arm
        for arm in meta["arms"]
        if (arm.get("axes") or {}).get("loss") == SOFT and arm["final"] and not arm.get("failed")
    }
    whole = _whole(arms)
    found = [*_chosen(meta)]
    for set_name in dict.fromkeys(name for name, _ in arms) if whole else ():
        found += [*_swaps(arms, set_name, whole), *_enough(meta, arms, set_name, whole)]
    found += [*_mended(meta), *_worth(meta), *_ensembles(meta)]
    return [*found, *_images(meta), *_absent(meta), *_learned(meta), *_fewer(meta), *_cheapest(meta)]


def _chosen(meta: Mapping[str, Any]) -> Iterator[str]:
    judged = [arm["axes"] for arm in meta["arms"] if arm.get("selection")] if meta.get("choosing") else []
    tried = [list(dict.fromkeys(axes[axis] for axes in judged)) for axis in ("teacher", "labels")]
    several = [len(values) > 1 for values in tried]
    if not any(several):  # one candidate is no choice
        return

    def said(place: Sequence[str]) -> str:
        return ", ".join(part for part, tell in zip(place, several, strict=True) if tell)

    for one in choices(meta):
        told = f"{one.set}: {said(one.chosen)} is chosen on the selection split and reaches {_percent(one.accuracy)} %"
        if one.chosen == one.best:
            told += ", the best on the test split too."
        else:
            told += f"; on the test split {said(one.best)} looks best, with {_percent(one.best_accuracy)} %."
        if several[0] and one.chosen[0] == tried[0][-1]:
            told += f" No later one than {one.chosen[0]} was tried."
        yield told


def _mended(meta: Mapping[str, Any]) -> Iterator[str]:
    """Whether a temperature makes up for an expert that was trained too long."""
    cells = {
        (arm["axes"]["set"], arm["axes"]["teacher"], float(match[1])): arm["final"]["mean"]
        for arm in meta["arms"]
        if arm["final"]
        and not arm.get("failed")
        and (match := _TEMPER.fullmatch((arm.get("axes") or {}).get("labels", "")))
    }
    for set_name in dict.fromkeys(name for name, _, _ in cells):
        plain = {teacher: mean for (name, teacher, t), mean in cells.items() if name == set_name and t == 1}
        if len(plain) < 2:
            continue
        last, best = list(plain)[-1], max(plain, key=lambda teacher: plain[teacher])
        if best == last:
            yield f"{set_name}: of the epochs tried the last, {last}, labels best as it is: there is nothing to mend."
            continue
        own = {t: mean for (name, teacher, t), mean in cells.items() if (name, teacher) == (set_name, last)}
        at = max(own, key=lambda t: own[t])
        yield (
            f"{set_name}: the labels of {last}, the last, reach {_percent(plain[last])} % as they are and "
            f"{_percent(own[at])} % at the best of {len(own)} temperatures ({at:g}); those of {best}, the best epoch, "
            f"{_percent(plain[best])} % as they are."
        )


def _worth(meta: Mapping[str, Any]) -> Iterator[str]:
    """What one soft label per image, and one per view, add to hard labels; where a study has both."""
    arms = {arm["name"]: arm["axes"] for arm in meta["arms"] if arm.get("axes")}
    if {axes.get("labels") for axes in arms.values()} != {"hard", "fixed", "online"}:
        return
    for set_name in dict.fromkeys(axes["set"] for axes in arms.values()):
        parts = []
        for labels, told in (("fixed", "one soft label per image"), ("online", "one per view")):
            for entry in meta["comparisons"]:
                own, other = arms.get(entry["arm"], {}), arms.get(entry["against"], {})
                if (own.get("set"), own.get("labels"), own.get("loss")) == (set_name, labels, SOFT) and (
                    other.get("set"), other.get("labels")) == (set_name, "hard") and entry["difference"]:  # fmt: skip
                    parts.append(f"{told} {_apart(entry)} ({_interval(entry)}; {entry['verdict']})")
        if parts:
            yield f"{set_name}, against hard labels: {', '.join(parts)}."


def _ensembles(meta: Mapping[str, Any]) -> Iterator[str]:
    """What several experts add to one of the same epoch."""
    arms = {arm["name"]: arm["axes"] for arm in meta["arms"] if arm.get("axes")}
    for entry in meta["comparisons"]:
        own, other = arms.get(entry["arm"]), arms.get(entry["against"])
        if own is None or other is None or not entry["difference"]:
            continue
        many, one = (_EXPERTS.fullmatch(axes.get("teacher", "")) for axes in (own, other))
        if many and one and one[1] == "1" and many[2] == one[2]:
            yield (
                f"{own['set']}, epoch {many[2]}: {many[1]} experts {_apart(entry)} over one ({_interval(entry)}; "
                f"{entry['verdict']})."
            )


def _interval(entry: Mapping[str, Any]) -> str:
    low, high = entry["difference"].get("low"), entry["difference"].get("high")
    return "no interval" if low is None or high is None else f"{100 * low:.1f} to {100 * high:.1f}"


def _swaps(arms: Arms, set_name: str, whole: str) -> Iterator[str]:
    costs = {
        int(match[1]): arms[set_name, whole]["final"]["mean"] - arm["final"]["mean"]
        for (name, labels), arm in arms.items()
        if name == set_name and (match := _SWAP.fullmatch(labels))
    }
    if (set_name, whole) in arms and len(costs) > 1:
        ranks = sorted(costs)
        shown = dict.fromkeys((*ranks[:_FIRST_RANKS], ranks[-1]))
        told = [f"entry {rank}: {100 * costs[rank]:.1f}" for rank in shown]
        yield f"{set_name}: points lost by swapping one entry with the smallest: {', '.join(told)} (1 is the largest)."


def _enough(meta: Mapping[str, Any], arms: Arms, set_name: str, whole: str) -> Iterator[str]:
    """The fewest entries from which on nothing is told apart from the whole label, by the paired verdicts."""
    if (set_name, whole) not in arms:
        return
    names = {
        int(match[1]): arm["name"]
        for (name, labels), arm in arms.items()
        if name == set_name and labels != whole and (match := _KEEP.fullmatch(labels))
    }
    control = arms[set_name, whole]["name"]
    against = [entry for entry in meta["comparisons"] if entry["against"] == control]
    as_good = {entry["arm"] for entry in against if entry["verdict"] in ("better", "not distinguishable")}
    enough = None
    for top in sorted(names, reverse=True):
        if names[top] not in as_good:
            break
        enough = top
    if enough is not None:
        total = _KEEP.fullmatch(whole)[1]  # type: ignore[index]
        lost = round(100 * (arms[set_name, whole]["final"]["mean"] - _mean(meta, names[enough])), 1) + 0.0  # no -0.0
        yield (
            f"{set_name}: labels of the {enough} largest entries of {total} cannot be told from whole ones "
            f"({lost:.1f} points lost)."
        )
    elif names and all(entry["verdict"] in VERDICTS for entry in against):
        yield f"{set_name}: every number of kept entries tried is worse than whole labels."


def _images(meta: Mapping[str, Any]) -> Iterator[str]:
    """The best way of taking images beside random ones, of each size; only where a study compares several ways."""
    methods = {entry["name"]: entry["method"] for entry in meta["sets"]}
    if len(set(methods.values())) < 2:
        return
    arms = {arm["name"]: arm for arm in meta["arms"] if (arm.get("axes") or {}).get("loss") == SOFT and arm["final"]}
    for control in (arm for arm in arms.values() if methods.get(arm["set"], "") == "random"):
        rivals = [
            entry for entry in meta["comparisons"]
            if entry["against"] == control["name"] and entry["arm"] in arms and entry["difference"]
        ]  # fmt: skip
        if rivals:
            better, worse, same = (
                [_told(entry, arms) for entry in rivals if entry["verdict"] == verdict] for verdict in VERDICTS
            )
            yield (
                f"Beside {control['set']}: better {_listed(better)}; worse {_listed(worse)}; not distinguishable "
                f"{len(same) or 'none'}."
            )


def _told(entry: Mapping[str, Any], arms: Mapping[str, Mapping[str, Any]]) -> str:
    return f"{arms[entry['arm']]['set']} ({100 * entry['difference']['mean']:+.1f} points)"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts) or "none"


def _absent(meta: Mapping[str, Any]) -> Iterator[str]:
    rows = absent(meta)
    if rows:
        control, images, entries = (
            sum(getattr(row, part) for row in rows) / len(rows)
            for part in ("control", "without_images", "without_entries")
        )
        yield (
            f"Of a class of which they see no image, students get {_percent(images)} % right, by the labels of other "
            f"images ({_percent(control)} % with everything); where they see its images, and the labels of all others "
            f"have 0 for it, {_percent(entries)} % (means over {len(rows)} classes)."
        )


def _learned(meta: Mapping[str, Any]) -> Iterator[str]:
    """What learned labels are worth beside hard ones and experts', and whose they resemble."""
    arms = {arm["name"]: arm for arm in meta["arms"]}
    for name, distances in (meta.get("label_distances") or {}).items():
        rivals = [entry for entry in meta["comparisons"] if arms[entry["arm"]]["set"] == name and entry["difference"]]
        own = next((arm for arm in arms.values() if arm["set"] == name and arm["final"]), None)
        hard = next((entry for entry in rivals if arms[entry["against"]]["axes"]["teacher"] == "none"), None)
        soft = [entry for entry in rivals if arms[entry["against"]]["axes"]["teacher"] in distances]
        if own is None or hard is None or not soft:
            continue
        best = min(soft, key=lambda entry: entry["difference"]["mean"])  # what the best of the experts leaves
        expert = arms[best["against"]]["axes"]["teacher"]
        near = min(distances, key=lambda teacher: distances[teacher])
        yield (
            f"{name}: {_percent(own['final']['mean'])} %, {_apart(hard)} from hard labels ({hard['verdict']}) and "
            f"{_apart(best)} from the best of {len(soft)} experts' ({expert}; {best['verdict']}). They resemble those "
            f"of {near} most (distance {distances[near]:.2f} of 1)."
        )


def _apart(entry: Mapping[str, Any]) -> str:
    return f"{100 * entry['difference']['mean']:+.1f} points"


def _fewer(meta: Mapping[str, Any]) -> Iterator[str]:
    """Which soft labels reach with the fewest images, as measured, what hard labels reach with the most."""
    if not any(entry.get("kind") == "surface" for entry in meta.get("plots") or ()):
        return
    lines = read_surface(meta, "this study").lines
    hard = next((line.sizes[-1] for line in lines if line.epoch is None), None)
    if hard is None:
        return
    cells = [(size.ipc, -size.accuracy, line.name) for line in lines if line.epoch is not None for size in line.sizes]
    told = f"Hard labels reach {_percent(hard.accuracy)} % with {hard.ipc} images per class"
    enough = min((cell for cell in cells if -cell[1] >= hard.accuracy), default=None)
    if enough is None:
        yield f"{told}; no soft label tried reaches that with as many."
    else:
        yield f"{told}; {enough[2]} reach {_percent(-enough[1])} % with {enough[0]}."


def _cheapest(meta: Mapping[str, Any]) -> Iterator[str]:
    """The fewest bytes of labels that keep `KEPT` of the accuracy."""
    regimes = frontier(meta)
    for one in cheapest(regimes):
        assert one.kept is not None  # or it would not be among the cheapest
        assert one.smaller is not None
        told = "" if one.kept_low is None or one.kept_high is None else (
            f" (95 % interval {_percent(one.kept_low)} to {_percent(one.kept_high)})")  # fmt: skip
        tried = sum((other.set, other.loss) == (one.set, one.loss) and other.kept is not None for other in regimes) - 1
        who = f" by {one.teacher}" if len({other.teacher for other in regimes} - {"none"}) > 1 else ""
        yield (
            f"{one.set}, {one.loss}: {one.labels}{who} keeps {_percent(one.kept)} %{told} of the accuracy of full "
            f"labels at {one.smaller:.0f} times fewer bytes of labels: of {tried} tried, the smallest whose mean keeps "
            f"{_percent(KEPT)} %."
        )


def _whole(arms: Arms) -> str:
    """The spec of labels that keep all entries: the most that any arm keeps; empty where none keeps some."""
    kept = {int(match[1]): labels for _, labels in arms if (match := _KEEP.fullmatch(labels))}
    return kept[max(kept)] if kept else ""


def _mean(meta: Mapping[str, Any], name: str) -> float:
    return next(float(arm["final"]["mean"]) for arm in meta["arms"] if arm["name"] == name)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
