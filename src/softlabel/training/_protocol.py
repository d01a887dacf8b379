"""A protocol: everything about the training of a model that changes a number."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from softlabel.core import ConfigError, UnknownNameError, fingerprint
from softlabel.losses import Loss
from softlabel.training._optim import STEPPED, Optimizer, Schedule
from softlabel.views import (
    MIXING,
    CutMix,
    DSAClassic,
    DSAGift,
    FactorCrop,
    Flip,
    PatchShuffle,
    Policy,
    RandomResizedCrop,
    ShiftCrop,
)

POLICIES: dict[str, Callable[[int], Policy]] = {
    "none": lambda factor: (),
    "flip-crop": lambda factor: (Flip(), ShiftCrop(padding=4)),
    "shift": lambda factor: (ShiftCrop(padding=2),),
    "dsa": lambda factor: (DSAClassic(),),
    "gift": lambda factor: (FactorCrop(factor=1), DSAGift()),
    "gift-factor": lambda factor: (FactorCrop(factor=factor), DSAGift()),
    "crop-cutmix": lambda factor: (RandomResizedCrop(min_scale=0.08, max_scale=1.0), Flip(), CutMix(alpha=1.0)),
    "rded": lambda factor: (
        PatchShuffle(factor=factor),
        RandomResizedCrop(min_scale=1 / factor, max_scale=1.0),
        Flip(),
        CutMix(alpha=1.0),
    ),
}
"""Named augmentation policies, given the tiles per side of the training images.

`crop-cutmix` is that of SRe2L, LPLD and HALD. `gift` ignores mosaics, as the released code does everywhere but for RDED
on ImageNet-1K with ResNet-18, where it uses factor 2 (`gift-factor`). `flip-crop` and `shift` are for teachers (of
photographs, and of digits).
"""

BATCH_RULES: dict[str, Callable[[int, int], int]] = {
    "gift": lambda images, classes: next(
        batch for limit, batch in ((10, 10), (500, 50), (20_000, 100), (images, 200)) if images <= limit
    ),
    "rded": lambda images, classes: min(images, _rded_batch(images, classes)),
}
"""Batch size from (number of images, number of classes)."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """When the test split is looked at, besides the last epoch, which always is.

    Attributes:
        count: every epochs // count epochs, or
        every: every so many epochs, when count is 0;
        start: not before this share of the epochs.
    """

    count: int = 0
    every: int = 0
    start: float = 0.0

    def at(self, epoch: int, epochs: int) -> bool:
        """Whether to test after epoch `epoch` (from 0) of `epochs`."""
        if epoch == epochs - 1:
            return True
        every = max(1, epochs // self.count) if self.count else self.every
        return every > 0 and epoch >= self.start * epochs and (epoch + 1) % every == 0


@dataclass(frozen=True, kw_only=True)
class HardPhase:
    """Epochs in the middle of a training that look at the class alone (HALD, 2512.15647).

    Attributes:
        start, stop: as shares of the epochs: HALD's soft, hard and soft phases are a quarter, a half and a quarter.
        loss: one that looks at no teacher; HALD smooths the hard label by 0.8.
    """

    start: float = 0.25
    stop: float = 0.75
    loss: Loss = field(default_factory=lambda: Loss.parse("ce:smoothing=0.8"))

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop <= 1 or self.stop - self.start == 1:
            raise ConfigError(
                f"A hard phase lies within the training (0 to 1). Got {self.start} to {self.stop} instead."
            )
        if self.loss.needs_teacher:
            raise ConfigError(f"In a hard phase no teacher is asked, which the loss {self.loss.spec!r} does.")

    def epochs(self, total: int) -> range:
        """The epochs of the phase, of so many in all."""
        first, last = round(self.start * total), round(self.stop * total)
        return range(first, min(last, first + total - 1))  # of very few epochs one is soft


@dataclass(frozen=True, kw_only=True)
class Tempering:
    """Temperatures of the loss `kl` that move over a training (LPQLD, 2604.18135).

    The teacher's is first * factor ** (epoch // every), and no less than `least`. The student's begins at 1; with
    `calibrate` it is, after every epoch, the one of 0.01, 0.02, ..., 1 that makes the last batch's divergence smallest.
    """

    first: float = 20.0
    least: float = 2.0
    factor: float = 0.7
    every: int = 30
    calibrate: bool = True

    def __post_init__(self) -> None:
        if not (self.first >= self.least > 0 and 0 < self.factor <= 1 and self.every >= 1):
            raise ConfigError(f"Temperatures fall from first to least, above 0, by a factor of 1 or less. Got {self}.")

    def teacher(self, epoch: int) -> float:
        """The teacher's temperature in an epoch, from 0."""
        return max(self.least, self.first * self.factor ** (epoch // self.every))


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a student (or a teacher) is trained.

    Attributes:
        name: for people; not part of the fingerprint.
        source: where it comes from and what differs; not part of the fingerprint.
        epochs: passes over the training images.
        batch: a size, or the name of a rule in `BATCH_RULES`.
        views: a name in `POLICIES`, or a tuple of view operations.
        labels: label regime, a name in `REGIMES`.
        loss: see `softlabel.losses.LOSSES`.
        label_epochs: views and labels are made for so many epochs, and every epoch takes batches from these at random
            (LPLD's label pool); 0 makes them for each.
        hard_phase: epochs that look at the class alone; None for none.
        tempering: temperatures of the loss `kl` that move; None for those of the loss.
        renew_optimizer: make the optimizer anew where a schedule of steps lowers the rate, which forgets its momentum
            (the code of DC, DSA, DM and MTT, and of the ECCV 2024 challenge).
        extra_epoch: train epochs + 1 (no-distillation's `range(epochs + 1)`).
        weights: whether images that count differently do; an evaluator that is given images alone knows of none.
        norm_momentum: of the student's batch norms. RDED's code runs every batch through the student twice in train
            mode, which moves the running statistics twice: that is 1 - 0.9^2 = 0.19 instead of 0.1.
        checks: when test accuracy is measured for the curve and the best-on-test column.
    """

    name: str
    epochs: int
    batch: int | str
    optimizer: Optimizer
    source: str = ""
    views: str | Policy = "none"
    labels: str = "online"
    loss: Loss = field(default_factory=lambda: Loss("gift"))
    schedule: Schedule = field(default_factory=Schedule)
    label_epochs: int = 0
    hard_phase: HardPhase | None = None
    tempering: Tempering | None = None
    renew_optimizer: bool = False
    extra_epoch: bool = False
    weights: bool = True
    norm_momentum: float = 0.1
    checks: Checks = field(default_factory=Checks)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"A protocol needs 1 epoch or more. Got {self.epochs} instead.")
        if isinstance(self.views, str) and self.views not in POLICIES:
            raise UnknownNameError("view policy", self.views, POLICIES)
        if isinstance(self.batch, str) and self.batch not in BATCH_RULES:
            raise UnknownNameError("batch rule", self.batch, BATCH_RULES, "Or give a number.")
        if isinstance(self.batch, int) and self.batch < 1:
            raise ConfigError(f"A batch holds 1 image or more. Got {self.batch} instead.")
        if self.label_epochs < 0:
            raise ConfigError(f"Labels are made for 1 epoch or more, or for each (0). Got {self.label_epochs} instead.")
        if self.renew_optimizer and self.schedule.name not in STEPPED:
            raise ConfigError(
                f"An optimizer is made anew where the rate falls in steps ({', '.join(STEPPED)}), and the schedule "
                f"{self.schedule.name!r} has none."
            )
        if self.labels not in REGIMES:
            raise UnknownNameError(
                "label regime", self.labels, REGIMES, "Where a command takes a folder of labels, nothing is there."
            )

    @property
    def fingerprint(self) -> str:
        """Names what changes a number: all fields but `name` and `source`; a view policy by its operations."""
        skip: tuple[str, ...] = ("name", "source", "views")
        # A field that came with a later version is left out where it says nothing, so that older names still hold.
        enough = self.labelled_epochs == self.total_epochs - len(self.hard_epochs)  # labels for every soft epoch
        later = {"label_epochs": enough, "hard_phase": not self.hard_phase, "tempering": not self.tempering}
        later |= {"renew_optimizer": not self.renew_optimizer, "weights": self.weights}
        skip += tuple(name for name, says_nothing in later.items() if says_nothing)
        fields = {key: value for key, value in vars(self).items() if key not in skip}
        return fingerprint(fields, [self.policy(factor) for factor in (1, 2)])

    @property
    def total_epochs(self) -> int:
        return self.epochs + int(self.extra_epoch)

    @property
    def labelled_epochs(self) -> int:
        """For how many epochs soft labels are made."""
        soft = self.total_epochs - len(self.hard_epochs)
        return min(self.label_epochs, soft) or soft

    @property
    def hard_epochs(self) -> range:
        """The epochs that look at no teacher."""
        return self.hard_phase.epochs(self.total_epochs) if self.hard_phase is not None else range(0)

    def with_epochs(self, epochs: int) -> "Protocol":
        """The same with another number of epochs, which its name then says.

        A pool of labels, and the epochs between a teacher's temperatures, keep their share of the training.
        """
        name = f"{self.name.partition(' (')[0]} ({epochs} epoch{'s' if epochs > 1 else ''})"
        if epochs == self.epochs:
            return self
        share = epochs / self.epochs
        pool = max(1, round(self.label_epochs * share)) if self.label_epochs else 0
        return replace(
            self,
            name=name,
            epochs=epochs,
            label_epochs=pool,
            tempering=self.tempering and replace(self.tempering, every=max(1, round(self.tempering.every * share))),
        )

    def with_labels(self, labels: str | None, label_epochs: int = 0) -> "Protocol":
        """The same with another label regime, and labels for so many epochs; None and 0 leave these.

        Only stored labels are kept for fewer epochs than the training has: others are there for every view.
        """
        changed = self if labels is None else replace(self, labels=labels)
        if changed.labels != "replay":
            return replace(changed, label_epochs=0) if changed.label_epochs else changed
        return replace(changed, label_epochs=label_epochs) if label_epochs else changed

    def with_loss(self, loss: str) -> "Protocol":
        """The same with the loss of a spec; a loss that looks at no teacher has hard labels.

        Raises:
            UnknownNameError, ConfigError: as `Loss.parse`.
        """
        parsed = Loss.parse(loss)
        if not parsed.needs_teacher:
            return replace(self, loss=parsed, labels="hard", label_epochs=0, tempering=None)
        changed = replace(self, loss=parsed)
        changed.require_tempering()
        return changed

    def require_labels(self) -> None:
        """Raises ConfigError when the loss looks at a teacher and the labels are hard, or cannot be tempered."""
        self.require_tempering()
        if self.loss.needs_teacher and self.labels == "hard":
            raise ConfigError(
                f"The loss {self.loss.spec!r} needs soft labels. Choose --labels online or fixed and give a --teacher, "
                f"or take the loss ce."
            )

    def require_tempering(self) -> None:
        """Raises ConfigError when temperatures move that the loss does not have, or has set itself."""
        if self.tempering is not None and (self.loss.name != "kl" or self.loss.options):
            raise ConfigError(
                f"The protocol {self.name!r} moves the temperatures of the loss kl, which is to be taken as it is. Got "
                f"{self.loss.spec!r}: take kl, or another protocol."
            )

    def require_space(self, space: str) -> None:
        """Raises ConfigError when the loss needs what labels of that space (`core.LabelSource`) do not have."""
        if self.loss.needs_probabilities and space != "probabilities":
            raise ConfigError(
                f"The loss {self.loss.spec!r} counts what a label sums to, and these labels are logits, which have no "
                f"sum. Take soft_ce, or edited labels (softlabel ls edits)."
            )
        if self.loss.compares_logits and space == "top logits":
            raise ConfigError(
                f"The loss {self.loss.spec!r} compares every logit of the student with the teacher's, and of these "
                f"labels only the largest are kept. Take a loss over probabilities (kl, soft_ce), or a codec that "
                f"tells something of the others (topk with fill=smooth)."
            )
        if self.loss.needs_logits and space == "probabilities":
            raise ConfigError(
                f"The loss {self.loss.spec!r} needs the teacher's logits, and these labels are {space}, which have "
                f"lost them. Make labels from a teacher (softlabel label), or take soft_ce."
            )

    def policy(self, factor: int) -> Policy:
        """The view operations for training images of `factor` tiles per side."""
        return POLICIES[self.views](factor) if isinstance(self.views, str) else self.views

    @property
    def mixes(self) -> bool:
        """Whether a view may show several images."""
        return any(isinstance(op, MIXING) for op in self.policy(1))

    def batch_size(self, images: int, classes: int) -> int:
        """The batch size for a training set of that many images and classes."""
        return BATCH_RULES[self.batch](images, classes) if isinstance(self.batch, str) else min(self.batch, images)


REGIMES = {
    "hard": "the class index only; no teacher",
    "fixed": "one soft label per image, made once on the image as it is",
    "online": "the teacher looks at every view",
    "replay": "one soft label per view, stored (softlabel ls codecs says how)",
}


def _rded_batch(images: int, classes: int) -> int:
    # The released code lists IPC 1, 10 and 50 only and has batch 0 elsewhere; here an IPC between two listed ones
    # takes the batch of the smaller.
    column = 0 if images < 10 * classes else 1 if images < 50 * classes else 2
    if classes <= 10:
        return (10, 50, 100)[column]
    return 100 if classes == 200 else (20, 100, 200)[column]
