"""The named protocols: how the papers train students, restated, with every quirk a field that can be changed."""

from dataclasses import replace

from softlabel.core import UnknownNameError
from softlabel.losses import Loss
from softlabel.training import Checks, HardPhase, Optimizer, Protocol, Schedule, Tempering

GIFT = Protocol(
    name="gift",
    source=(
        "GIFT's released code (ICLR 2025). Batch 10/50/100/200 by the size of the set; AdamW on all parameters; times "
        "0.2 at 2/3 and 5/6. Epochs: 300 for ImageNet-1K, 1000 elsewhere. Its best-of-4 tests is our best-on-test "
        "column; normalisation is the data's own."
    ),
    epochs=1000,
    batch="gift",
    views="gift",
    labels="online",
    loss=Loss("gift"),
    optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=1e-4),
    schedule=Schedule(name="multistep", gamma=0.2),
    checks=Checks(count=4),
)

RDED = Protocol(
    name="rded",
    source=(
        "RDED's released code (CVPR 2024). KL at T=20 without T^2; CutMix on every batch; weight decay on matrices "
        "only; the cosine that ends at half the rate; batch norms that see every batch twice. Normalisation is the "
        "data's own, where the code uses ImageNet's for every data set; an IPC that the code does not list takes the "
        "batch of the next smaller listed one."
    ),
    epochs=300,
    batch="rded",
    views="rded",
    labels="online",
    loss=Loss("kl"),
    optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=1e-2, decay_on="matrices"),
    schedule=Schedule(name="half_cosine"),
    norm_momentum=0.19,
    checks=Checks(every=10, start=0.8),
)

NO_DISTILLATION = Protocol(
    name="no-distillation",
    source=(
        "A label is worth a thousand images (NeurIPS 2024), its SGD form: one fixed soft label per image, plain soft "
        "cross-entropy, one-of-six DSA, epochs + 1. Its papers' students have instance norm: ask for it with "
        "convnet-3:norm=instance."
    ),
    epochs=3000,
    batch=256,
    views="dsa",
    labels="fixed",
    loss=Loss("soft_ce"),
    optimizer=Optimizer(name="sgd", lr=1e-2, momentum=0.9, weight_decay=5e-4),
    schedule=Schedule(name="step", gamma=0.3),
    extra_epoch=True,
    checks=Checks(every=200),
)

LPLD = Protocol(
    name="lpld",
    source=(
        "LPLD (NeurIPS 2024), its ImageNet-1K form: KL at T=20 without T^2, RandomResizedCrop from 8 %, CutMix on "
        "every batch, and the labels of 30 epochs for 300 (its 10-fold pruning; replay:epochs=N takes others): whole "
        "batches, drawn at random for every epoch. Its images, recovered class by class, are not part of a protocol."
    ),
    epochs=300,
    batch=128,
    views="crop-cutmix",
    labels="replay",
    label_epochs=30,
    loss=Loss("kl"),
    optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=1e-2),
    schedule=Schedule(name="cosine"),
    checks=Checks(every=50),
)

HARD = Protocol(
    name="hard",
    source=(
        "The hard-label evaluation of DC, DSA, DM and MTT: SGD, one-of-six DSA, the rate times 0.1 halfway. "
        "The optimizer is not re-made at that point, so momentum is kept."
    ),
    epochs=1000,
    batch=256,
    views="dsa",
    labels="hard",
    loss=Loss("ce"),
    optimizer=Optimizer(name="sgd", lr=1e-2, momentum=0.9, weight_decay=5e-4),
    schedule=Schedule(name="halfway", gamma=0.1),
    extra_epoch=True,
    checks=Checks(every=200),
)

PROTOCOLS: dict[str, Protocol] = {
    "lpld": LPLD,
    "lpqld": replace(
        LPLD,
        name="lpqld",
        source=(
            "LPQLD (2604.18135), its ImageNet-1K form: LPLD's pool, the teacher's temperature falling from 20 to 2 by "
            "0.7 every 30 epochs, the student's calibrated after every epoch. Its top-k labels are a codec: "
            "--labels replay+topk:k=100."
        ),
        tempering=Tempering(),
    ),
    "hald": Protocol(
        name="hald",
        source=(
            "HALD (2512.15647): 75 soft, 150 hard and 75 soft epochs of 300, batch 16, CutMix on every batch, a hard "
            "label smoothed by 0.8 in the hard phase, KL at T=20 in the others, one cosine that ends at half the rate. "
            "Adds no bytes to any stored labels."
        ),
        epochs=300,
        batch=16,
        views="crop-cutmix",
        labels="replay",
        hard_phase=HardPhase(),
        loss=Loss("kl"),
        optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=1e-2),
        schedule=Schedule(name="half_cosine"),
        checks=Checks(every=50),
    ),
    "gift": GIFT,
    "rded": RDED,
    "no-distillation": NO_DISTILLATION,
    "no-distillation-adamw": replace(
        NO_DISTILLATION,
        name="no-distillation-adamw",
        source="The same with AdamW and a cosine to 0, as its code trains ResNets.",
        optimizer=Optimizer(name="adamw", lr=1e-3, weight_decay=1e-2),
        schedule=Schedule(name="cosine"),
    ),
    "hard": HARD,
    "challenge-2024": replace(
        HARD,
        name="challenge-2024",
        source=(
            "The evaluator of the ECCV 2024 dataset-distillation challenge, as its code has it: 10 images per class "
            "with hard labels, SGD, one-of-six DSA, 1000 epochs + 1, three runs. Its students are convnet-3 with "
            "norm=instance at any image size. Images are given as uint8 and normalised by the data, where it takes "
            "tensors that are normalised already."
        ),
        renew_optimizer=True,
        weights=False,
    ),
    "challenge-2024-generative": replace(
        HARD,
        name="challenge-2024-generative",
        source=(
            "The generative track of the ECCV 2024 challenge, as the second-placed entry's code has it: all that a "
            "generator makes in ten minutes, made anew for each of three runs, hard labels, 100 epochs + 1; the rest "
            "as challenge-2024. We make the same number of every class, where labels are drawn at random there."
        ),
        epochs=100,
        renew_optimizer=True,
        weights=False,
    ),
}


def find_protocol(name: str, epochs: int | None = None) -> Protocol:
    """A named protocol, with another number of epochs when given.

    Raises:
        UnknownNameError: no such protocol.
        ConfigError: epochs below 1.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name] if epochs is None else PROTOCOLS[name].with_epochs(epochs)
