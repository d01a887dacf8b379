"""What the labels of a comparison's teachers say of real images: how sure they are, and which classes they mix up."""

from collections.abc import Sequence
from typing import Any

from softlabel.core import Dataset
from softlabel.distill import distill
from softlabel.evaluation._comparison import Comparison, SetPaths, Teachers
from softlabel.labels import FixedLabels, entropy, fixed_labels, jensen_shannon
from softlabel.store import load_distilled
from softlabel.training import Execution, Teacher

IMAGES = 1000
"""Train images that are looked at, the same number of each class."""
MOST_CLASSES = 64
"""With more, the map of classes is left out: nobody could read it, and it would fill the study's manifest."""


def label_facts(
    comparison: Comparison, data: Dataset, teachers: Teachers, execution: Execution
) -> list[dict[str, Any]]:
    """One entry per teacher of the comparison, but for labelers of one set, on random train images as they are.

    `entropy` is the mean of -sum p log p in nats, `confidence` the mean of the largest entry, `agreement` the share of
    images whose largest entry is their class, all of the softmax of the teachers' mean logits. `classes` is the mean
    label of each class's images, row by row; left out where there are many classes.

    Nothing for a comparison that looks at no teacher, or at one alone and asks for no map of classes.
    """
    named = ((name, teachers.get(name, ())) for name in comparison.teachers)
    # Labelers of one set say nothing that holds for other images.
    groups = {name: group for name, group in named if group and not any(teacher.of_set for teacher in group)}
    asked = any(plot.get("kind") == "classes" for plot in comparison.plots)
    if not comparison.soft_losses or not groups or (len(groups) == 1 and not asked):
        return []
    classes = data.info.classes
    per_class = max(1, min(IMAGES // classes, *data.train.counts(classes)))
    images = distill("random", data, ipc=per_class, execution=execution)
    found = []
    for name, group in groups.items():
        probabilities = fixed_labels(group, images, execution).table.softmax(dim=-1)
        top = probabilities.max(dim=-1)
        fact: dict[str, Any] = {
            "name": name,
            "entropy": float(entropy(probabilities).mean()),
            "confidence": float(top.values.mean()),
            "agreement": float((top.indices == images.targets).float().mean()),
        }
        if classes <= MOST_CLASSES:  # a distilled set has its images class after class
            rows = probabilities.view(classes, per_class, classes).mean(dim=1)
            fact["classes"] = [[round(value, 6) for value in row] for row in rows.tolist()]
        found.append(fact)
    return found


def label_distance(
    learned: Sequence[FixedLabels], teachers: Sequence[Teacher], family: SetPaths, execution: Execution
) -> float:
    """Mean Jensen-Shannon distance, in 0..1, of learned labels from those of teachers on the same images.

    Args:
        learned: per seed of `family`.
    """
    total = 0.0
    for own, (_, path) in zip(learned, family.by_seed, strict=True):
        given = fixed_labels(teachers, load_distilled(path), execution)
        total += float(jensen_shannon(own.table.softmax(dim=-1), given.table.softmax(dim=-1)).mean())
    return total / len(learned)
