"""The one training loop: students and teachers, alone or several on the same views, all go through `fit_stack`."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from softlabel.core import (
    ConfigError,
    DatasetInfo,
    LabelSource,
    NonFiniteLossError,
    Progress,
    Silent,
    Split,
    stream_seed,
)
from softlabel.losses import LOSSES
from softlabel.training._batches import Batch, Batches
from softlabel.training._compiling import of_any_size
from softlabel.training._execution import Execution
from softlabel.training._history import Checkpoint, History, resume, training_state
from softlabel.training._pixels import Normaliser
from softlabel.training._protocol import Protocol
from softlabel.training._stack import BatchLoss, Loop, Mixed, build_stack, resolve_stack
from softlabel.views import Mix

EVALUATION_BATCH = 512


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


def fit(
    model: nn.Module,
    split: Split,
    *,
    protocol: Protocol,
    info: DatasetInfo,
    seed: int,
    execution: Execution,
    labels: LabelSource | None = None,
    factor: int = 1,
    test: Split | None = None,
    checkpoint: Checkpoint | None = None,
    save_seconds: float = 30.0,
    on_epoch: OnEpoch | None = None,
    progress: Progress | None = None,
    what: str = "training",
) -> History:
    """Train one model in place under `protocol` and tell how it went: `fit_stack` with a stack of one.

    Raises:
        ConfigError: a loss that needs soft labels without them.
        NonFiniteLossError: the loss became NaN or infinite; names epoch and step.
    """
    trainee = Trainee(model=model, protocol=protocol, labels=labels, checkpoint=checkpoint, on_epoch=on_epoch)
    [result] = fit_stack(
        [trainee],
        split,
        info=info,
        seed=seed,
        execution=execution,
        factor=factor,
        test=test,
        save_seconds=save_seconds,
        progress=progress,
        what=what,
        stack="loop",
    )
    if isinstance(result, NonFiniteLossError):
        raise result
    return result


def fit_stack(
    trainees: Sequence[Trainee],
    split: Split,
    *,
    info: DatasetInfo,
    seed: int,
    execution: Execution,
    factor: int = 1,
    test: Split | None = None,
    stack: str = "auto",
    save_seconds: float = 30.0,
    progress: Progress | None = None,
    what: str = "training",
) -> list[History | NonFiniteLossError]:
    """Train several models in place on the same views, and tell how each went.

    Order, views and mixing come from streams of `seed` alone (`Batches`), so a model in a stack sees what it would see
    alone, and a resumed training continues with the numbers that the unbroken one would have drawn. A view is made
    once, and a label source that trainees share looks at it once. Time spent for all is shared equally.

    Args:
        split: training images uint8 [N, C, H, W] and targets.
        info: gives mean and std.
        factor: tiles per side of the training images, for the view policy.
        test: measured at the protocols' checks.
        stack: how the models are run: see `STACKS`.
        save_seconds: checkpoints are saved after an epoch when so much time has passed.

    Returns:
        per trainee its history, or the error that ended its training; the others go on.

    Raises:
        ConfigError: trainees that cannot share views, or a loss that needs soft labels without them.
    """
    first = _require_shared_views(trainees, split, info, factor)
    progress = progress or Silent()
    kind = resolve_stack(stack, execution)
    sources = {id(t.labels): t.labels.to(execution.torch_device) for t in trainees if t.labels is not None}
    members = [_Member(t, sources.get(id(t.labels)), execution.torch_device) for t in trainees]
    batches = Batches(split, first, info, factor, seed, execution.torch_device)
    epochs, saved = first.total_epochs, time.monotonic()
    start = min(member.start for member in members)
    progress.start(what, epochs)
    progress.advance(start, f"going on after epoch {start}" if start else "")
    active: list[_Member] = []
    for epoch in range(start, epochs):
        before, active = active, [member for member in members if member.error is None and member.start <= epoch]
        if not active:
            continue
        if active != before:
            models = build_stack(kind, [member.model for member in active], execution)
        _epoch(active, models, batches, execution, epoch)
        for member in active:
            member.end_epoch(epoch, test, info, execution)
        if epoch + 1 < epochs and time.monotonic() - saved >= save_seconds:
            for member in active:
                member.save(epoch + 1)
            saved = time.monotonic()
        progress.advance(note=_note(active))
    progress.finish()
    return [member.result() for member in members]


def measure_accuracy(model: nn.Module, split: Split, info: DatasetInfo, execution: Execution) -> float:
    """Share of `split` that `model`, put in evaluation mode, classifies correctly."""
    return int(_hits(model, split, info, execution).sum()) / len(split)


def _hits(model: nn.Module, split: Split, info: DatasetInfo, execution: Execution) -> Tensor:
    """Whether each image of `split` is classified correctly, bool [N]."""
    model.eval()
    normalise = Normaliser(info, execution.torch_device)
    found = []
    with torch.inference_mode(), execution.autocast(), execution.deterministic():
        for start in range(0, len(split), EVALUATION_BATCH):
            images = normalise(split.images[start : start + EVALUATION_BATCH])
            predicted = model(of_any_size(images, execution)).argmax(dim=-1).cpu()
            found.append(predicted == split.targets[start : start + EVALUATION_BATCH])
    return torch.cat(found)


def view_loss(
    function: Callable[..., Tensor],
    *,
    student: Tensor,
    teacher: Tensor | None,
    target: Tensor,
    mix: Mix | None,
    teacher_saw_mix: bool,
) -> Tensor:
    """The batch mean of a per-example loss, on mixed views too.

    On a mixed view the hard label is mixed as CutMix and Mixup define it: by the share of each image. A teacher that
    looked at the view gives its label as it is; labels per image are mixed like the hard ones.
    """
    own = function(student=student, teacher=teacher, target=target)
    if mix is None:
        return own.mean()
    other_teacher = teacher if teacher is None or teacher_saw_mix else teacher[mix.partner]
    other = function(student=student, teacher=other_teacher, target=target[mix.partner])
    return (mix.weight * own + (1 - mix.weight) * other).mean()


class _Member:
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

    def batch_loss(self, batch: Batch, teacher: Tensor | None) -> BatchLoss:
        saw_mix = self.labels is not None and self.labels.regime == "online"

        def mean(logits: Tensor) -> Tensor:
            return view_loss(
                self.function,
                student=logits,
                teacher=teacher,
                target=batch.target,
                mix=batch.mix,
                teacher_saw_mix=saw_mix,
            )

        return mean

    def step(self, epoch: int, within: float) -> None:
        rate = self.protocol.optimizer.lr * self.protocol.schedule.factor(epoch, self.protocol.epochs, within)
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
        if test is not None and self.protocol.checks.at(epoch, self.protocol.total_epochs):
            began = time.perf_counter()
            hits = _hits(self.model, test, info, execution)
            self.history.curve.append({"epoch": epoch + 1, "test_accuracy": int(hits.sum()) / len(test)})
            if epoch + 1 == self.protocol.total_epochs:
                self.history.per_class = _per_class(hits, test, info.classes)
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


def _epoch(
    members: Sequence[_Member], models: Loop | Mixed, batches: Batches, execution: Execution, epoch: int
) -> None:
    """One pass over the data; the loss of every step stays on the device."""
    began, seen = time.perf_counter(), 0
    for member in members:
        member.model.train()
    with execution.deterministic():
        for batch in batches.epoch(epoch):
            logits = _label(batch, members, execution)
            losses = [member.batch_loss(batch, logits.get(id(member.labels))) for member in members]
            draw = stream_seed(batches.seed, "forward", epoch, batch.rows.start)
            found = models.backward(batch.views, losses, draw)
            for member, loss in zip(members, found, strict=True):
                member.step(epoch, batch.within)
                member.losses.append(loss)
            seen += len(batch.index)
    whole = time.perf_counter() - began
    own = models.take_seconds() if isinstance(models, Loop) and batches.device.type == "cpu" else [0.0] * len(members)
    shared = (whole - sum(own)) / len(members)
    for member, seconds in zip(members, own, strict=True):
        member.history.images_seen += seen
        member.history.train_seconds += seconds + shared


def _label(batch: Batch, members: Iterable[_Member], execution: Execution) -> dict[int, Tensor | None]:
    """Teacher logits of a batch, once per label source, by the source's id."""
    sources = {id(member.labels): member.labels for member in members if member.labels is not None}
    with execution.autocast():
        return {key: source.logits(batch.views, batch.index, batch.rows) for key, source in sources.items()}


def _per_class(hits: Tensor, split: Split, classes: int) -> list[float | None]:
    right = torch.bincount(split.targets, weights=hits.double(), minlength=classes).tolist()
    return [float(own) / count if count else None for own, count in zip(right, split.counts(classes), strict=True)]


def _require_shared_views(trainees: Sequence[Trainee], split: Split, info: DatasetInfo, factor: int) -> Protocol:
    """The first protocol, when all trainees see the same views under it."""
    if not trainees:
        raise ConfigError("A stack needs at least one model.")

    def views(protocol: Protocol) -> tuple[object, ...]:
        return (protocol.policy(factor), protocol.batch_size(len(split), info.classes), protocol.total_epochs)

    first = trainees[0].protocol
    for trainee in trainees:
        regime = trainee.labels.regime if trainee.labels is not None else "hard"
        trainee.protocol.with_labels(regime).require_labels()
        trainee.protocol.require_space(trainee.labels.space if trainee.labels is not None else "logits")
        if views(trainee.protocol) != views(first):
            raise ConfigError(
                f"Models of one stack see the same views. The protocols {first.name!r} and {trainee.protocol.name!r} "
                f"differ in views, batch size or epochs: train them apart."
            )
    return first


def _note(members: Sequence[_Member]) -> str:
    going = [member for member in members if member.error is None]
    if not going:
        return "stopped: loss not finite"
    if len(going) == 1:
        note = f"loss {going[0].history.train_loss[-1]:.4g}"
        curve = going[0].history.curve
        fresh = bool(curve) and curve[-1]["epoch"] == len(going[0].history.train_loss)
        return note + (f", test {100 * curve[-1]['test_accuracy']:.1f} %" if fresh else "")
    shown = [100 * member.history.curve[-1]["test_accuracy"] for member in going if member.history.curve]
    return f"test {min(shown):.1f} to {max(shown):.1f} %" if shown else f"{len(going)} students"


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
