"""The study of bytes: label regimes and codecs, and what accuracy theirs buy."""

from softlabel.labels import LabelSpec

POOLS = (10, 30)
"""How many times fewer epochs of labels than of training a pool has: LPLD's 10-fold pruning, and its 30-fold."""


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


def for_gift(specs: tuple[str, ...]) -> tuple[str, ...]:
    """Those of which every logit can be told: what GIFT needs."""
    return tuple(spec for spec in specs if LabelSpec.parse(spec).space("logits") == "logits")
