"""The loop that trains autoencoders and denoisers: with an average of the weights, in one process or several.

Classifiers are trained by `softlabel.training.fit`; what is trained here has no classes to predict, no views, and a
loss that draws noise. Order and noise come from named streams, so an interrupted training goes on as the unbroken one.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim.swa_utils import AveragedModel

from softlabel.core import ConfigError, NonFiniteLossError, Progress, Silent, stream
from softlabel.generate._processes import Processes
from softlabel.training import Checkpoint, Execution, Optimizer, restore_training, training_state

FEW_TOKENS = 256
LOOK_EVERY = 50
"""Steps between looks at the loss: a look makes a GPU wait for the CPU."""


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step: drawn for the whole batch, of which this process has a part.

    Attributes:
        size: examples in the whole batch.
        part: those of this process.
    """

    generator: torch.Generator
    size: int
    part: slice
    device: torch.device

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers [B, *shape], float32."""
        return torch.randn(self.size, *shape, generator=self.generator)[self.part].to(self.device)

    def uniform(self) -> Tensor:
        """Numbers in [0, 1), float32 [B]."""
        return torch.rand(self.size, generator=self.generator)[self.part].to(self.device)


StepLoss = Callable[[nn.Module, Tensor, Draws], Tensor]
"""The mean loss of a network on the examples at some rows, int64 [B]."""


@dataclass(frozen=True, kw_only=True)
class Course:
    """How a network is trained.

    Attributes:
        epochs: over the examples; the last, incomplete batch of each is left out.
        warmup: share of the steps over which the rate rises; it stays level, and falls to 0 over the last `cooldown`.
        average: weight of the past in the moving average of the weights (EMA); 0 for the last weights.
    """

    epochs: int = 10
    batch: int = 128
    optimizer: Optimizer = field(default_factory=Optimizer)
    warmup: float = 0.05
    cooldown: float = 0.3
    average: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch < 1:
            raise ConfigError(f"Training takes epochs and a batch of 1 or more. Got {self.epochs} and {self.batch}.")
        if not 0 <= self.average < 1:
            raise ConfigError(f"The average's weight of the past must lie in 0..1, below 1. Got {self.average}.")

    def rate(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied by in step `step` (from 0) of `steps`."""
        rise, fall = self.warmup * steps, self.cooldown * steps
        return min(1.0, (step + 1) / rise if rise else 1.0, (steps - step) / fall if fall else 1.0)


@dataclass
class Trained:
    """What a training gave: the averaged weights (or the last), and the mean loss of every epoch."""

    network: nn.Module
    losses: list[float]
    seconds: float


class _Pair(nn.Module):
    """A network and its average, as one thing to be kept."""

    def __init__(self, network: nn.Module, average: float) -> None:
        super().__init__()
        self.network = network
        self.averaged = AveragedModel(network, multi_avg_fn=_mean(average)) if average else None

    @property
    def best(self) -> nn.Module:
        return self.network if self.averaged is None else self.averaged.module


def _mean(weight: float) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """A moving average whose memory grows with the steps: the first weights, which know nothing, are soon forgotten."""

    @torch.no_grad()
    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], count: Tensor | int) -> None:
        past = min(weight, (1 + float(count)) / (10 + float(count)))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new.to(old.dtype), 1 - past) if old.is_floating_point() else old.copy_(new)

    return update


def train_steps(
    network: nn.Module,
    loss: StepLoss,
    examples: int,
    course: Course,
    *,
    seed: int,
    execution: Execution,
    processes: Processes | None = None,
    checkpoint: Checkpoint | None = None,
    save_seconds: float = 10.0,
    tokens: int = 0,
    progress: Progress | None = None,
    what: str = "training",
) -> Trained:
    """Train `network` in place by steps of `loss`.

    Args:
        examples: how many there are; rows run from 0.
        processes: those that share the batches; this one alone by default.
        checkpoint: where to go on from, and to save to after an epoch when `save_seconds` have passed.
        tokens: that the network's attention is over at most; 0 where it is not known.

    Raises:
        ConfigError: a batch that is larger than the examples, or that the processes cannot share evenly.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    progress, processes = progress or Silent(), processes or Processes()
    if course.batch > examples:
        raise ConfigError(f"A batch of {course.batch} is larger than the {examples} images. Choose a smaller batch.")
    part, per_epoch = processes.part(course.batch), examples // course.batch
    steps = course.epochs * per_epoch
    device = execution.torch_device
    pair = _Pair(network.to(device), course.average)
    optimizer = course.optimizer.build(network)
    losses, start, before = _restore(checkpoint, pair, optimizer)
    shared = processes.wrap(network)
    progress.start(what, course.epochs)
    progress.advance(start, f"going on after epoch {start}" if start else "")
    began = saved = time.monotonic()
    for epoch in range(start, course.epochs):
        order = torch.randperm(examples, generator=stream(seed, "order", epoch))
        seen: list[Tensor] = []
        for position in range(per_epoch):
            step = epoch * per_epoch + position
            rows = order[position * course.batch : (position + 1) * course.batch][part]
            draws = Draws(stream(seed, "noise", step), course.batch, part, device)
            optimizer.zero_grad(set_to_none=True)
            with execution.deterministic():  # what it asks for is read when gradients are computed, too
                with execution.autocast(), _attention(device, tokens):
                    value = loss(shared, rows, draws)
                value.backward()
            for group in optimizer.param_groups:
                group["lr"] = course.optimizer.lr * course.rate(step, steps)
            optimizer.step()
            if pair.averaged is not None:
                pair.averaged.update_parameters(network)
            seen.append(value.detach())
            if position % LOOK_EVERY == LOOK_EVERY - 1:
                _require_finite(seen[-LOOK_EVERY:], course, what)
        _require_finite(seen, course, what)
        losses.append(processes.mean(float(torch.stack(seen).double().mean())))
        progress.advance(note=f"loss {losses[-1]:.4g}")
        last = epoch + 1 == course.epochs
        if checkpoint is not None and processes.first and (last or time.monotonic() - saved >= save_seconds):
            facts = {"epoch": epoch + 1, "losses": losses, "seconds": before + time.monotonic() - began}
            checkpoint.save(training_state(pair, optimizer), facts)
            saved = time.monotonic()
    progress.finish()
    return Trained(pair.best.eval(), losses, before + time.monotonic() - began)


@contextmanager
def _attention(device: torch.device, tokens: int) -> Iterator[None]:
    """Attention in plain matrix products for few tokens on a CPU: the gradient of torch's fused kernel, which is made
    for many, is slow there."""
    if device.type == "cpu" and 0 < tokens <= FEW_TOKENS:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield


def _restore(
    checkpoint: Checkpoint | None, pair: _Pair, optimizer: torch.optim.Optimizer
) -> tuple[list[float], int, float]:
    found = checkpoint.load() if checkpoint is not None else None
    if found is None:
        return [], 0, 0.0
    tensors, facts = found
    restore_training(tensors, pair, optimizer)
    return list(facts["losses"]), int(facts["epoch"]), float(facts["seconds"])


def _require_finite(losses: list[Tensor], course: Course, what: str) -> None:
    if not bool(torch.stack(losses).isfinite().all()):
        raise NonFiniteLossError(
            f"The loss became NaN or infinite ({what}, {course.optimizer.name}, learning rate "
            f"{course.optimizer.lr:g}). Lower the learning rate, or try --precision fp32."
        )
