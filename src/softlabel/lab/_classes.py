"""Which classes labels mix up, and whether a hierarchy of the classes foretells it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from softlabel.core import ConfigError

HIERARCHIES: dict[str, dict[str, str]] = {
    "cifar10": {
        **dict.fromkeys(("airplane", "automobile", "ship", "truck"), "machine"),
        **dict.fromkeys(("bird", "cat", "deer", "dog", "frog", "horse"), "animal"),
    },
    "fashion-mnist": {
        **dict.fromkeys(("T-shirt/top", "Pullover", "Dress", "Coat", "Shirt"), "upper body"),
        **dict.fromkeys(("Sandal", "Sneaker", "Ankle boot"), "foot"),
        "Trouser": "trouser",
        "Bag": "bag",
    },
}
"""Groups of classes, where they are plain to see; by the name of the data set."""


@dataclass(frozen=True, kw_only=True)
class Kinship:
    """How much of a label goes to classes of the own group, beside the own class.

    Attributes:
        within: mean entry for another class of the same group.
        across: mean entry for a class of another group.
        ranked: the share of all pairs (one of each kind) in which the entry within is the larger: 0.5 is chance.
    """

    within: float
    across: float
    ranked: float


def kinship(rows: Sequence[Sequence[float]], groups: Sequence[str]) -> Kinship | None:
    """Compare mean labels [C, C] with the groups of the C classes; None where one of the two kinds has no pair.

    The own classes' entries (the diagonal) are left out.
    """
    table, group = np.array(rows), np.array(groups)
    other = ~np.eye(len(group), dtype=bool)
    same = group[:, None] == group[None, :]
    within, across = table[other & same], table[other & ~same]
    if not len(within) or not len(across):
        return None
    wins = (within[:, None] > across[None, :]).mean() + 0.5 * (within[:, None] == across[None, :]).mean()
    return Kinship(within=float(within.mean()), across=float(across.mean()), ranked=float(wins))


def read_hierarchy(path: Path, class_names: Sequence[str]) -> dict[str, str]:
    """The group of every class, from a JSON file {class: group}.

    Raises:
        ConfigError: no such file, not of this form, or it does not name exactly these classes.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"The class hierarchy {path} cannot be read ({error}). Give a JSON file {{class: group}}."
        ) from error
    if not isinstance(found, dict) or not all(isinstance(group, str) for group in found.values()):
        raise ConfigError(f"The class hierarchy {path} must be one JSON object {{class: group}} of texts.")
    return check_hierarchy(found, class_names, str(path))


def check_hierarchy(groups: Mapping[str, Any], class_names: Sequence[str], where: str) -> dict[str, str]:
    """`groups` in the order of the classes.

    Raises:
        ConfigError: a class without a group, a group for what is no class, or groups that compare nothing.
    """
    missing = [name for name in class_names if name not in groups]
    strange = sorted(set(groups) - set(class_names))
    if missing or strange:
        told = [f"it lacks {', '.join(missing[:3])}"] if missing else []
        told += [f"it names {', '.join(strange[:3])}, which the data does not have"] if strange else []
        raise ConfigError(
            f"The class hierarchy {where} does not fit the {len(class_names)} classes of the data: {'; '.join(told)}. "
            f"Give every class its group, by its name in the data (softlabel ls datasets)."
        )
    if not 1 < len({groups[name] for name in class_names}) < len(class_names):
        raise ConfigError(
            f"The class hierarchy {where} sets no class apart from others of its group and of other groups: it needs "
            f"two groups or more, and one of them with two classes."
        )
    return {name: str(groups[name]) for name in class_names}
