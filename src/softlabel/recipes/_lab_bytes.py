"""The study of bytes: label regimes and codecs, and what accuracy theirs buy."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from softlabel.core import ConfigError
from softlabel.evaluation import SetOptions
from softlabel.labels import LabelSpec
from softlabel.losses import Loss

POOLS = (10, 30)
"""How many times fewer epochs of labels than of training a pool has: LPLD's 10-fold pruning, and its 30-fold."""
JPEG = "jpeg-75"
"""Pillow's usual quality, which RDED's code keeps its images in."""


def regimes(classes: int, epochs: int) -> tuple[str, ...]:
    """Label specs from the dearest to the cheapest, for labels of so many classes and a training of so many epochs."""
    pools = [pool for pool in dict.fromkeys(max(1, round(epochs / pool)) for pool in POOLS) if pool < epochs]
    rank = max(1, classes // 4)
    tops = [k for k in (2, 5, 20) if 2 * k <= classes]
    specs = [
        *("online", "online+fp16", "replay", "replay+int8", "replay+int4"),
        *(f"replay+topk:k={k}" for k in reversed(tops)),
        *("replay+topk:k=2,fill=smooth" for _ in tops[:1]),
        f"replay+lowrank:rank={rank}{'+int8' if rank > 4 else ''}",
        *("replay+distances" for _ in range(classes > 2)),
        "replay+vq:parts=2",
        *(f"replay:epochs={pool}" for pool in pools),
        *(f"replay:epochs={pool}+int4" for pool in pools),
        *(f"replay:epochs={pool}+topk:k=2" for pool in pools[:1] if tops),
        *(f"replay:epochs={pool}+vq:parts=2" for pool in pools[:1]),
        *("fixed+fp16", "fixed+int8"),
        *("fixed+topk:k=2" for _ in tops[:1]),
    ]
    parsed = [LabelSpec.parse(spec) for spec in specs]
    return tuple(one.spec for one in parsed if one.codec is None or one.codec.saves(classes))


def in_jpeg(options: SetOptions) -> SetOptions:
    """The same images, kept in fewer bytes than their pixels allow."""
    return replace(options, name=f"{options.name}, {JPEG}", storage=JPEG)


def kept_arms(
    specs: Sequence[str], losses: Sequence[str], whole: Sequence[str], lossy: Sequence[str]
) -> tuple[Mapping[str, Sequence[str]], ...]:
    """Which arms there are, as `Comparison.keep` has it.

    A loss is tried with the labels that it can use (GIFT needs every logit); labels that none can use are kept with
    all, for the comparison to refuse. On JPEG images the cheap labels alone are tried, each with the first loss that
    can use them: where labels weigh more than the images, how these are stored does not matter.
    """
    soft = [loss for loss in losses if Loss.parse(loss).needs_teacher]
    nobody = [spec for spec in specs if not any(fits(loss, spec) for loss in soft)]
    found: list[Mapping[str, Sequence[str]]] = [
        {"set": whole, "loss": (loss,), "labels": ("hard", *nobody, *(spec for spec in specs if fits(loss, spec)))}
        for loss in losses
    ]
    for spec in small(specs, losses):
        first = next(loss for loss in soft if fits(loss, spec))
        found.append({"set": lossy, "loss": (first,), "labels": (spec,)})
    return tuple(found)


def small(specs: Sequence[str], losses: Sequence[str]) -> list[str]:
    """Label specs of so few bytes that those of the images count beside them: one label per image, and small pools."""
    soft = [loss for loss in losses if Loss.parse(loss).needs_teacher]
    cheap = [
        spec
        for spec in specs
        if spec in ("fixed", "fixed+fp16") or (LabelSpec.parse(spec).epochs and spec.endswith("int4"))
    ]
    return [spec for spec in cheap if any(fits(loss, spec) for loss in soft)]


def left_out(specs: Sequence[str], losses: Sequence[str]) -> list[str]:
    """Which labels a loss is not tried with, in words."""
    found = []
    for loss in (loss for loss in losses if Loss.parse(loss).needs_teacher):
        unfit = [spec for spec in specs if not fits(loss, spec)]
        if unfit:
            found.append(f"{loss} is not tried with {', '.join(unfit)}: these do not keep the logits that it compares.")
    return found


def fits(loss: str, spec: str) -> bool:
    """Whether a loss can use such labels."""
    parsed, space = Loss.parse(loss), LabelSpec.parse(spec).space("logits")
    return space == "logits" or not (parsed.compares_logits or (parsed.needs_logits and space == "probabilities"))


def check_pools(specs: Sequence[str], epochs: int) -> None:
    """Raise ConfigError for a pool of labels that no training of so many epochs is longer than."""
    for spec in specs:
        if LabelSpec.parse(spec).epochs >= epochs:
            raise ConfigError(
                f"The labels {spec!r} are a pool that is no shorter than the training of {epochs} epochs. Ask for "
                f"fewer, or leave epochs= out."
            )
