"""The study of bytes: label regimes and codecs, and what accuracy theirs buy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from softlabel.evaluation import SetOptions
from softlabel.labels import LabelSpec
from softlabel.losses import Loss

POOLS = (10, 30)
"""How many times fewer epochs of labels than of training a pool has: LPLD's 10-fold pruning, and its 30-fold."""
JPEG = "jpeg-75"
"""Pillow's usual quality, which RDED's code keeps its images in."""


def regimes(classes: int, epochs: int) -> tuple[str, ...]:
    """Label specs from the dearest to the cheapest, for labels of so many classes and a training of so many epochs."""
    few, some = (max(1, round(epochs / pool)) for pool in POOLS)
    tops = [k for k in (2, 5, 20) if 2 * k <= classes]
    specs = [
        *("online", "replay", "replay+int8", "replay+int4"),
        *(f"replay+topk:k={k}" for k in reversed(tops)),
        *("replay+topk:k=2,fill=smooth+int8" for _ in tops[:1]),
        f"replay+lowrank:rank={max(1, classes // 4)}+int8",
        *("replay+distances" for _ in range(classes > 2)),
        "replay+vq:parts=2",
        *(f"replay:epochs={pool}" for pool in dict.fromkeys((few, some))),
        *(f"replay:epochs={pool}+int4" for pool in dict.fromkeys((few, some))),
        *(f"replay:epochs={few}+topk:k=2" for _ in tops[:1]),
        f"replay:epochs={few}+vq:parts=2",
        *("fixed", "fixed+int8"),
        *("fixed+topk:k=2" for _ in tops[:1]),
    ]
    return tuple(LabelSpec.parse(spec).spec for spec in specs)


def in_jpeg(options: SetOptions) -> SetOptions:
    """The same images, kept in fewer bytes than their pixels allow."""
    return replace(options, name=f"{options.name}, {JPEG}", storage=JPEG)


def kept_arms(
    specs: Sequence[str], losses: Sequence[str], whole: Sequence[str], lossy: Sequence[str]
) -> tuple[Mapping[str, Sequence[str]], ...]:
    """Which arms there are, as `Comparison.keep` has it.

    A loss is tried with the labels that it can use (GIFT needs every logit); labels that none can use are kept with
    all, for the comparison to refuse. On JPEG images one loss is tried, with the cheap labels alone: where labels weigh
    more than the images, how these are stored does not matter.
    """
    soft = [loss for loss in losses if Loss.parse(loss).needs_teacher]
    used = {loss: [spec for spec in specs if _fits(Loss.parse(loss), spec)] for loss in soft}
    nobody = [spec for spec in specs if not any(spec in some for some in used.values())]
    found = [{"set": whole, "loss": (loss,), "labels": ("hard", *used.get(loss, ()), *nobody)} for loss in losses]
    return (*found, {"set": lossy, "loss": soft[:1], "labels": small(specs)})


def small(specs: Sequence[str]) -> list[str]:
    """Label specs of so few bytes that those of the images count beside them: one label per image, and small pools."""
    return [spec for spec in specs if spec == "fixed" or (LabelSpec.parse(spec).epochs and spec.endswith("int4"))]


def _fits(loss: Loss, spec: str) -> bool:
    space = LabelSpec.parse(spec).space("logits")
    return space == "logits" or not (loss.compares_logits or (loss.needs_logits and space == "probabilities"))
