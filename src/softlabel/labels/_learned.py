"""Labels learned through the training of students: truncated back-propagation through time, images fixed.

"A label is worth a thousand images" (NeurIPS 2024) compares such labels with those of experts, to see what of an
expert's knowledge is needed at all. Its code for learning them is not public; the method here is that of Bohdal et al.
2020 ("Flexible Dataset Distillation: Learn Labels Instead of Images") with a window that slides along a student's
training, as truncated back-propagation has it. No teacher is asked.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from softlabel.core import (
    ConfigError,
    Dataset,
    DistilledSet,
    NonFiniteLossError,
    Progress,
    Silent,
    stream,
    stream_seed,
)
from softlabel.labels._sources import FixedLabels
from softlabel.models import build_model
from softlabel.store import FileCheckpoint
from softlabel.training import Execution, Normaliser

SAVE_SECONDS = 30.0
Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Learning:
    """How labels are learned.

    Attributes:
        student: model spec of the students that are trained on the way; without batch norm, whose statistics a window
            would have to carry.
        steps: updates of the labels.
        horizon: steps that a student is trained before a new one takes its place.
        window: student steps that the labels' gradient reaches back.
        stride: student steps from one window's start to the next's.
        rate: of the students' plain gradient descent.
        label_rate: of Adam on the labels' logits.
        batch: images of the distilled set per student step, at most.
        real_batch: real images that judge the student after a window.
        smoothing: of the hard labels that learning starts from.
    """

    student: str = "convnet-3:width=32,norm=instance"
    steps: int = 300
    horizon: int = 100
    window: int = 10
    stride: int = 5
    rate: float = 0.05
    label_rate: float = 0.03
    batch: int = 100
    real_batch: int = 256
    smoothing: float = 0.1

    def __post_init__(self) -> None:
        for name in ("steps", "horizon", "window", "stride", "batch", "real_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"Learning labels needs {name} of 1 or more. Got {getattr(self, name)} instead.")
        if self.stride > self.window:
            raise ConfigError(f"A stride of {self.stride} steps leaves the window of {self.window} behind.")
        if self.window > self.horizon:
            raise ConfigError(f"A window of {self.window} steps does not fit into a training of {self.horizon}.")
        if not 0 < self.smoothing < 1 or not self.rate > 0 or not self.label_rate > 0:
            raise ConfigError(
                f"Learning labels needs rates above 0 and a smoothing between 0 and 1. Got {self.rate}, "
                f"{self.label_rate} and {self.smoothing}."
            )


def learn_labels(
    distilled: DistilledSet,
    data: Dataset,
    learning: Learning,
    *,
    seed: int = 0,
    execution: Execution,
    checkpoint: FileCheckpoint | None = None,
    progress: Progress | None = None,
) -> FixedLabels:
    """Learn one soft label per image of `distilled`: those that make students good at the train images of `data`.

    The students' steps are in float32 whatever the precision: the gradient of a gradient needs the digits.

    Args:
        seed: of initialisations and batches.
        checkpoint: keeps the state every half minute, and continues from it; to be cleared once the labels are kept.

    Returns:
        logits, no teachers; equal for equal arguments, interrupted or not.

    Raises:
        ConfigError: a student with batch norm.
        NonFiniteLossError: learning blew up.
    """
    progress = progress or Silent()
    device = execution.torch_device
    logits = starting_logits(distilled.targets, distilled.info.classes, learning.smoothing).to(device)
    logits.requires_grad_()
    adam = torch.optim.Adam([logits], lr=learning.label_rate)
    images = Normaliser(distilled.info, device)(distilled.images)
    student = _Student(learning, data, seed, device)
    start = _restore(checkpoint, logits, adam, student)
    progress.start(f"labels of {distilled.method}, IPC {distilled.ipc}, seed {seed}", learning.steps)
    progress.advance(start)
    saved = time.monotonic()
    with execution.deterministic():
        for step in range(start, learning.steps):
            loss = _update(step, logits, adam, student, images, data, learning, seed, device)
            if not bool(loss.isfinite()):
                raise NonFiniteLossError(
                    f"Learning labels gave a loss of {float(loss)} after {step} of {learning.steps} steps. The usual "
                    f"cause is a rate that is too high: {learning.rate:g} of the students, {learning.label_rate:g} of "
                    f"the labels."
                )
            progress.advance(note=f"loss {float(loss):.3f}")
            if checkpoint is not None and time.monotonic() - saved >= SAVE_SECONDS:
                _save(checkpoint, step + 1, logits, adam, student)
                saved = time.monotonic()
    progress.finish()
    return FixedLabels(logits.detach().cpu().clone())


def learning_step_seconds(data: Dataset, images: int, learning: Learning, execution: Execution) -> float:
    """How long an update of the labels of so many images takes: measured on two of them, of which the second counts."""
    count = min(images, learning.batch, len(data.train))
    some = DistilledSet(
        images=data.train.images[:count],
        targets=data.train.targets[:count],
        info=data.info,
        method="measured",
        ipc=1,
        seed=0,
    )
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        learn_labels(some, data, replace(learning, steps=1), execution=execution)
        seconds = time.perf_counter() - start
    return seconds


def starting_logits(targets: Tensor, classes: int, smoothing: float) -> Tensor:
    """Logits [N, C] whose softmax is the smoothed hard label, 1 - smoothing on the class."""
    other = smoothing / max(1, classes - 1)
    probabilities = torch.full((len(targets), classes), other)
    return probabilities.scatter(1, targets[:, None], 1 - smoothing).log()


def unrolled(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    images: list[Tensor],
    labels: list[Tensor],
    rate: float,
) -> list[Weights]:
    """The weights after each step of plain gradient descent, differentiable in the labels.

    Args:
        images, labels: of every step: views [B, ...] and probabilities [B, C].
    """
    current, path = dict(weights), []
    for views, soft in zip(images, labels, strict=True):
        loss = -(soft * F.log_softmax(functional_call(model, current, (views,)), dim=-1)).sum(dim=-1).mean()
        gradients = torch.autograd.grad(loss, list(current.values()), create_graph=True)
        current = {name: w - rate * g for (name, w), g in zip(current.items(), gradients, strict=True)}
        path.append(current)
    return path


class _Student:
    """The student at work: its weights and how many steps it was trained. A new one comes after `horizon`."""

    def __init__(self, learning: Learning, data: Dataset, seed: int, device: torch.device) -> None:
        self.learning, self.data, self.seed, self.device = learning, data, seed, device
        self.number, self.age = 0, 0
        self.model = self._build()
        if any(True for _ in self.model.buffers()):
            raise ConfigError(
                f"Labels are learned through students without batch norm, and {learning.student!r} has running "
                f"statistics. Take norm=instance, such as {Learning.student}."
            )
        self.weights = self._fresh()

    def advance(self, path: list[Weights]) -> None:
        """Go on from the weights a stride further, or with a new student."""
        self.age += self.learning.stride
        if self.age + self.learning.window > self.learning.horizon:
            self.number, self.age = self.number + 1, 0
            self.model = self._build()
            self.weights = self._fresh()
            return
        reached = path[min(self.learning.stride, len(path)) - 1]
        self.weights = {name: weight.detach().requires_grad_() for name, weight in reached.items()}

    def _build(self) -> nn.Module:
        info = self.data.info
        init = stream_seed(self.seed, "learned labels", "student", self.number)
        model = build_model(self.learning.student, image_shape=info.image_shape, classes=info.classes, seed=init)
        return model.to(self.device).train()

    def _fresh(self) -> Weights:
        return {name: weight.detach().clone().requires_grad_() for name, weight in self.model.named_parameters()}


def _update(
    step: int,
    logits: Tensor,
    adam: torch.optim.Adam,
    student: _Student,
    images: Tensor,
    data: Dataset,
    learning: Learning,
    seed: int,
    device: torch.device,
) -> Tensor:
    """One update of the labels; the loss on real images that led to it."""
    draws = stream(seed, "learned labels", step)
    soft = F.softmax(logits, dim=-1)
    picks = [torch.randperm(len(images), generator=draws)[: learning.batch] for _ in range(learning.window)]
    path = unrolled(
        student.model, student.weights, [images[pick] for pick in picks], [soft[pick] for pick in picks], learning.rate
    )
    real = torch.randint(len(data.train), (learning.real_batch,), generator=draws)
    views = Normaliser(data.info, device)(data.train.images[real])
    found = functional_call(student.model, path[-1], (views,))
    loss = F.cross_entropy(found, data.train.targets[real].to(device))
    adam.zero_grad()
    [logits.grad] = torch.autograd.grad(loss, [logits])
    adam.step()
    student.advance(path)
    return loss.detach()


def _save(checkpoint: FileCheckpoint, step: int, logits: Tensor, adam: torch.optim.Adam, student: _Student) -> None:
    state = adam.state[logits]
    tensors = {"logits": logits.detach(), **{f"adam.{name}": state[name] for name in ("step", "exp_avg", "exp_avg_sq")}}
    tensors |= {f"student.{name}": weight.detach() for name, weight in student.weights.items()}
    cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    checkpoint.save(cpu, {"step": step, "number": student.number, "age": student.age})


def _restore(checkpoint: FileCheckpoint | None, logits: Tensor, adam: torch.optim.Adam, student: _Student) -> int:
    """Put back what was saved; the step to go on with."""
    saved = checkpoint.load() if checkpoint is not None else None
    if saved is None:
        return 0
    tensors, facts = saved
    with torch.no_grad():
        logits.copy_(tensors["logits"])
    adam.state[logits] = {
        "step": tensors["adam.step"],
        **{name: tensors[f"adam.{name}"].to(logits.device) for name in ("exp_avg", "exp_avg_sq")},
    }
    student.number, student.age = int(facts["number"]), int(facts["age"])
    student.model = student._build()
    student.weights = {name: tensors[f"student.{name}"].to(logits.device).requires_grad_() for name in student.weights}
    return int(facts["step"])
