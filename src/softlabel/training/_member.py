"""A model in a stack, with all that is its own: labels, loss, optimizer, history."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softlabel.core import DatasetInfo, LabelSource, NonFiniteLossError, Split
from softlabel.losses import LOSSES, kl_apart
from softlabel.training._accuracy import hits_of, per_class_of
from softlabel.training._batches import Batch
from softlabel.training._execution import Execution
from softlabel.training._history import Checkpoint, History, resume, training_state
from softlabel.training._protocol import Protocol
from softlabel.training._stack import BatchLoss
from softlabel.views import Mix

STUDENT_TEMPERATURES = tuple(step / 100 for step in range(1, 101))
OnEpoch = Callable[[int, nn.Module, History], None]


@dataclass(frozen=True, kw_only=True)
class Trainee:
    """A model to be trained, with all that is its own in a stack.

    Attributes:
        model: trained in place.
        protocol: loss, optimizer, schedule, checks; its views, batch and epochs must be those of the whole stack.
        labels: soft labels; None, or hard ones, for a loss that looks at targets only. Trainees that share one source
            share its logits.
        checkpoint: where to resume from, and to save to.
        on_epoch: called after every epoch with the epoch (from 0), the model and the history.
    """

    model: nn.Module
    protocol: Protocol
    labels: LabelSource | None = None
    checkpoint: Checkpoint | None = None
    on_epoch: OnEpoch | None = None


def view_loss(
    function: Callable[..., Tensor],
    *,
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor,
    mix: Mix | None,
    teacher_saw_mix: bool,
    weight: Tensor | None = None,
) -> Tensor:
    """The batch mean of a per-example loss, times weights [B] where examples have some, on mixed views too.

    On a mixed view the hard label is mixed as CutMix and Mixup define it: by the share of each image. A teacher that
    looked at the view gives its label as it is; labels per image are mixed like the hard ones, and so are weights.
    """
    own = function(student=student, teacher=teacher, target=target)
    own = own if weight is None else weight * own
    if mix is None:
        return own.mean()
    other_teacher = teacher if teacher is None or teacher_saw_mix else teacher[mix.partner]
    other = function(student=student, teacher=other_teacher, target=target[mix.partner])
    other = other if weight is None else weight[mix.partner] * other
    return (mix.weight * own + (1 - mix.weight) * other).mean()


class Member:
    """A trainee at work."""

    def __init__(self, trainee: Trainee, labels: LabelSource | None, device: torch.device) -> None:
        self.model, self.protocol, self.checkpoint = trainee.model, trainee.protocol, trainee.checkpoint
        self.on_epoch = trainee.on_epoch
        self.error: NonFiniteLossError | None = None
        self.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        _set_norm_momentum(self.model, self.protocol.norm_momentum)
        self.optimizer = self.protocol.optimizer.build(self.model)
        self.history, self.start = resume(self.checkpoint, self.model, self.optimizer)
        self.function = self.protocol.loss.function()
        self.labels = labels if LOSSES[self.protocol.loss.name].needs_teacher else None
        self.losses: list[Tensor] = []
        self.last: tuple[Tensor, Tensor] | None = None

    def labels_in(self, epoch: int) -> LabelSource | None:
        """The labels that an epoch looks at."""
        return None if epoch in self.protocol.hard_epochs else self.labels

    def batch_loss(self, batch: Batch, teacher: Tensor | None, epoch: int) -> BatchLoss:
        function = self._function(epoch)
        calibrates = self.protocol.tempering is not None and self.protocol.tempering.calibrate
        saw_mix = self.labels is not None and self.labels.regime in ("online", "replay")

        def mean(logits: Tensor) -> Tensor:
            if calibrates and teacher is not None:
                self.last = logits.detach().clone(), teacher
            return view_loss(
                function,
                student=logits,
                teacher=teacher,
                target=batch.target,
                mix=batch.mix,
                teacher_saw_mix=saw_mix,
                weight=batch.weight,
            )

        return mean

    def _function(self, epoch: int) -> Callable[..., Tensor]:
        """The loss of an epoch."""
        protocol = self.protocol
        if protocol.hard_phase is not None and epoch in protocol.hard_epochs:
            return protocol.hard_phase.loss.function()
        if protocol.tempering is None:
            return self.function
        own, others = self.history.student_temperature, protocol.tempering.teacher(epoch)

        def tempered(*, student: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
            return kl_apart(student, teacher, student_temperature=own, teacher_temperature=others)

        return tempered

    def _calibrate(self, epoch: int) -> None:
        """The student's temperature for the next epoch, by the last batch of this one."""
        tempering, last = self.protocol.tempering, self.last
        self.last = None
        if tempering is not None and tempering.calibrate and last is not None:
            student, teacher = last
            others = tempering.teacher(epoch)
            found = [
                kl_apart(student, teacher, student_temperature=own, teacher_temperature=others).mean()
                for own in STUDENT_TEMPERATURES
            ]
            self.history.student_temperature = STUDENT_TEMPERATURES[int(torch.stack(found).argmin())]

    def step(self, epoch: int, within: float) -> None:
        schedule, epochs = self.protocol.schedule, self.protocol.epochs
        rate = self.protocol.optimizer.lr * schedule.factor(epoch, epochs, within)
        falls = epoch > 0 and not within and schedule.factor(epoch, epochs) < schedule.factor(epoch - 1, epochs)
        if self.protocol.renew_optimizer and falls:
            self.optimizer.state.clear()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

    def end_epoch(self, epoch: int, test: Split | None, info: DatasetInfo, execution: Execution) -> None:
        """Look at the losses of the epoch, and at the test split when the protocol says so."""
        steps, self.losses = self.losses, []
        try:
            self.history.train_loss.append(_finite_mean(steps, self.protocol, epoch))
        except NonFiniteLossError as error:
            self.error = error
            return
        self.history.steps += len(steps)
        self._calibrate(epoch)
        if test is not None and self.protocol.checks.at(epoch, self.protocol.total_epochs):
            began = time.perf_counter()
            hits = hits_of(self.model, test, info, execution)
            self.history.curve.append({"epoch": epoch + 1, "test_accuracy": int(hits.sum()) / len(test)})
            if epoch + 1 == self.protocol.total_epochs:
                self.history.per_class = per_class_of(hits, test, info.classes)
            self.history.test_seconds += time.perf_counter() - began
        if self.on_epoch is not None:
            self.on_epoch(epoch, self.model, self.history)

    def save(self, epoch: int) -> None:
        if self.checkpoint is not None and self.error is None:
            self.checkpoint.save(
                training_state(self.model, self.optimizer), {"epoch": epoch, "history": vars(self.history)}
            )

    def result(self) -> History | NonFiniteLossError:
        self.model.eval()
        if self.error is None and not all(bool(parameter.isfinite().all()) for parameter in self.model.parameters()):
            self.error = NonFiniteLossError(
                f"The weights became NaN or infinite in the last step (loss {self.protocol.loss.spec!r}, learning rate "
                f"{self.protocol.optimizer.lr:g}). Lower the learning rate, or try --precision fp32."
            )
        return self.history if self.error is None else self.error


def _set_norm_momentum(model: nn.Module, momentum: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = momentum


def _finite_mean(losses: list[Tensor], protocol: Protocol, epoch: int) -> float:
    # Looked at once per epoch: a look per step would make a GPU wait for the CPU every time.
    values = torch.stack(losses).cpu()
    if not bool(values.isfinite().all()):
        step = int((~values.isfinite()).nonzero()[0])
        raise NonFiniteLossError(
            f"The loss {protocol.loss.spec!r} became {values[step].item()} in epoch {epoch + 1}, step {step + 1} "
            f"(protocol {protocol.name!r}, {protocol.optimizer.name}, learning rate {protocol.optimizer.lr:g}). The "
            f"usual cause is a learning rate that is too high for this loss; lower it, or try --precision fp32."
        )
    return float(values.double().mean())
