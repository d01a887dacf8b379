"""Two arms of finished studies, of the same study or not, compared seed by seed: what a report compares within one.

    python runs/paired.py results/A/cells.csv results/B/cells.csv ARM [ARM-OF-B]

It prints the difference of final accuracies, the first less the second, in points, with its 95 % interval (Student's t
over seeds). That the two studies share data, images and protocol is for the reader to see to.
"""

import csv
import sys
from pathlib import Path

from softlabel.evaluation import paired_difference, verdict


def accuracies(path: Path, arm: str) -> dict[int, float]:
    """Final test accuracy by seed, shares from 0 to 1, of one arm of a report's `cells.csv`."""
    try:
        with path.open(newline="") as file:
            cells = list(csv.DictReader(file))
        found = {int(cell["seed"]): cell["final"] for cell in cells if cell["arm"] == arm}
        arms = dict.fromkeys(cell["arm"] for cell in cells)
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, ValueError) as error:
        raise SystemExit(f"{path} is not a report's cells.csv ({type(error).__name__}: {error}).") from None
    if not found:
        raise SystemExit("\n  ".join((f"{path} has no arm {arm!r}. It has:", *arms)))
    if not all(found.values()):
        raise SystemExit(f"Seeds of {arm!r} in {path} failed: they cannot be compared.")
    return {seed: float(final) for seed, final in found.items()}


def main(arguments: list[str]) -> None:
    if len(arguments) not in (3, 4):
        raise SystemExit(__doc__)
    first = accuracies(Path(arguments[0]), arguments[2])
    second = accuracies(Path(arguments[1]), arguments[-1])
    if first.keys() != second.keys():
        raise SystemExit(f"The arms have other seeds: {sorted(first)} and {sorted(second)}. Compare those of the same.")
    found = paired_difference(list(first.values()), [second[seed] for seed in first])
    low, high = (None if end is None else 100 * end for end in (found.low, found.high))
    interval = "no interval" if low is None or high is None else f"{low:+.2f} to {high:+.2f}"
    print(f"{100 * found.mean:+.2f} points ({interval}), {found.n} seeds: {verdict(found)}")


if __name__ == "__main__":
    main(sys.argv[1:])
