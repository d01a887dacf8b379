"""The one training loop: students and teachers both go through `fit`."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from typing import Protocol as Interface

import torch
from torch import Tensor, nn

from softlabel.core import DatasetInfo, LabelSource, NonFiniteLossError, Progress, Silent, Split, stream
from softlabel.losses import LOSSES
from softlabel.training._execution import Execution
from softlabel.training._pixels import Normaliser
from softlabel.training._protocol import Protocol
from softlabel.views import Mix, apply, sample

EVALUATION_BATCH = 512


class Checkpoint(Interface):
    """Keeps the latest state of a training across interruptions (`softlabel.store.FileCheckpoint`)."""

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None: ...
    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None: ...
    def clear(self) -> None: ...


@dataclass
class History:
    """What a training tells: grows epoch by epoch.

    Attributes:
        train_loss: mean loss of every epoch.
        curve: {"epoch", "test_accuracy"} at every check; epochs count from 1.
        steps, images_seen: optimizer steps, and views trained on.
        train_seconds, test_seconds: wall-clock time, summed over interruptions.
    """

    train_loss: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    images_seen: int = 0
    train_seconds: float = 0.0
    test_seconds: float = 0.0

    @property
    def final(self) -> float:
        """Test accuracy (fraction) after the last epoch: the headline."""
        return self.curve[-1]["test_accuracy"]

    @property
    def best_test(self) -> float:
        """The best test accuracy of all checks: what papers report, chosen on the test split."""
        return max(point["test_accuracy"] for point in self.curve)


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
    on_epoch: Callable[[int, nn.Module, History], None] | None = None,
    progress: Progress | None = None,
    what: str = "training",
) -> History:
    """Train `model` in place under `protocol` and tell how it went.

    Order, views and mixing come from the streams ("order", epoch) and ("views", epoch) of `seed`, so two calls with
    one seed see the same batches whatever their loss, labels or optimizer, and a resumed training continues with the
    numbers that the unbroken one would have drawn.

    Args:
        split: training images uint8 [N, C, H, W] and targets.
        info: gives mean and std.
        labels: soft labels; None, or hard ones, for a loss that looks at targets only.
        factor: tiles per side of the training images, for the view policy.
        test: measured at the protocol's checks.
        checkpoint: where to resume from, and to save to after an epoch when `save_seconds` have passed.
        on_epoch: called after every epoch with the epoch (from 0), the model and the history.

    Raises:
        ConfigError: a loss that needs soft labels without them.
        NonFiniteLossError: the loss became NaN or infinite; names epoch and step.
    """
    protocol.with_labels(labels.regime if labels is not None else "hard").require_labels()
    progress = progress or Silent()
    device = execution.torch_device
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _set_norm_momentum(model, protocol.norm_momentum)
    optimizer = protocol.optimizer.build(model)
    history, start = _resume(checkpoint, model, optimizer)
    batches = _Batches(split, protocol, info, factor, seed, device)
    labels = labels.to(device) if labels is not None else None
    epochs, saved = protocol.total_epochs, time.monotonic()
    progress.start(what, epochs)
    progress.advance(start, f"going on after epoch {start}" if start else "")
    for epoch in range(start, epochs):
        began = time.perf_counter()
        model.train()
        with execution.deterministic():
            losses = _epoch(model, optimizer, batches, labels, protocol, execution, epoch)
        history.train_loss.append(_finite_mean(losses, protocol, epoch))
        history.steps += len(losses)
        history.images_seen += len(split)
        history.train_seconds += time.perf_counter() - began
        note = f"loss {history.train_loss[-1]:.4g}"
        if test is not None and protocol.checks.at(epoch, epochs):
            began = time.perf_counter()
            accuracy = measure_accuracy(model, test, info, execution)
            history.curve.append({"epoch": epoch + 1, "test_accuracy": accuracy})
            history.test_seconds += time.perf_counter() - began
            note += f", test {100 * accuracy:.1f} %"
        if on_epoch is not None:
            on_epoch(epoch, model, history)
        if checkpoint is not None and epoch + 1 < epochs and time.monotonic() - saved >= save_seconds:
            checkpoint.save(_state(model, optimizer), {"epoch": epoch + 1, "history": vars(history)})
            saved = time.monotonic()
        progress.advance(note=note)
    progress.finish()
    model.eval()
    if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
        raise NonFiniteLossError(
            f"The weights became NaN or infinite in the last step (loss {protocol.loss.spec!r}, learning rate "
            f"{protocol.optimizer.lr:g}). Lower the learning rate, or try --precision fp32."
        )
    return history


def measure_accuracy(model: nn.Module, split: Split, info: DatasetInfo, execution: Execution) -> float:
    """Share of `split` that `model`, put in evaluation mode, classifies correctly."""
    model.eval()
    device = execution.torch_device
    normalise = Normaliser(info, device)
    correct = 0
    with torch.inference_mode(), execution.autocast(), execution.deterministic():
        for start in range(0, len(split), EVALUATION_BATCH):
            images = normalise(split.images[start : start + EVALUATION_BATCH])
            predicted = model(images).argmax(dim=-1).cpu()
            correct += int((predicted == split.targets[start : start + EVALUATION_BATCH]).sum())
    return correct / len(split)


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


class _Batches:
    """Views of the training images, batch by batch, all drawn from named streams."""

    def __init__(
        self, split: Split, protocol: Protocol, info: DatasetInfo, factor: int, seed: int, device: torch.device
    ) -> None:
        self.size = protocol.batch_size(len(split), info.classes)
        self.policy = protocol.policy(factor)
        self.seed, self.device = seed, device
        self.normalise = Normaliser(info, device)
        self.images, self.targets = split.images, split.targets
        if len(split) <= 100_000 and device.type != "cpu":
            self.images = split.images.to(device)
        self.height, self.width = split.images.shape[-2:]

    def epoch(self, epoch: int) -> list[Tensor]:
        """The batches of an epoch, as indices. A single image left over joins the last batch: batch norm needs two."""
        order = torch.randperm(len(self.targets), generator=stream(self.seed, "order", epoch))
        batches = list(order.split(self.size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
        return batches

    def view(self, index: Tensor, draws: torch.Generator) -> tuple[Tensor, Mix | None]:
        images = self.normalise(self.images.index_select(0, index.to(self.images.device)))
        params = sample(self.policy, len(index), self.height, self.width, draws).to(self.device)
        views = apply(images, params)
        return views.contiguous(memory_format=torch.channels_last), params.mix


def _epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: _Batches,
    labels: LabelSource | None,
    protocol: Protocol,
    execution: Execution,
    epoch: int,
) -> list[Tensor]:
    """One pass over the data; the loss of every step, still on the device."""
    function = protocol.loss.function()
    wants_teacher = LOSSES[protocol.loss.name].needs_teacher
    draws = stream(batches.seed, "views", epoch)
    losses = []
    indices = batches.epoch(epoch)
    for step, index in enumerate(indices):
        _set_rate(optimizer, protocol, epoch, step / len(indices))
        views, mix = batches.view(index, draws)
        target = batches.targets[index].to(batches.device)
        teacher = None
        if labels is not None and wants_teacher:
            with execution.autocast():
                teacher = labels.logits(views, index.to(batches.device))
        with execution.autocast():
            student = model(views)
        loss = view_loss(
            function,
            student=student.float(),
            teacher=teacher,
            target=target,
            mix=mix,
            teacher_saw_mix=labels is not None and labels.regime == "online",
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


def _set_rate(optimizer: torch.optim.Optimizer, protocol: Protocol, epoch: int, within: float) -> None:
    rate = protocol.optimizer.lr * protocol.schedule.factor(epoch, protocol.epochs, within)
    for group in optimizer.param_groups:
        group["lr"] = rate


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


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for parameter, entries in optimizer.state_dict()["state"].items():
        for name, tensor in entries.items():
            if tensor is not None:
                tensors[f"optimizer.{parameter}.{name}"] = torch.as_tensor(tensor)
    return tensors


def _resume(checkpoint: Checkpoint | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[History, int]:
    found = checkpoint.load() if checkpoint is not None else None
    if found is None:
        return History(), 0
    tensors, facts = found
    model.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, parameter, entry = name.split(".", 2)
            state.setdefault(int(parameter), {})[entry] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return History(**facts["history"]), int(facts["epoch"])
