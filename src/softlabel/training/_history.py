"""What a training tells, and its state across interruptions."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Checkpoint(Protocol):
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
        per_class: test accuracy of every class after the last epoch; None for a class without test images.
        student_temperature: where the protocol calibrates it.
        steps, images_seen: optimizer steps, and views trained on.
        train_seconds, test_seconds: wall-clock time, summed over interruptions.
    """

    train_loss: list[float] = field(default_factory=list)
    curve: list[dict[str, float]] = field(default_factory=list)
    per_class: list[float | None] = field(default_factory=list)
    steps: int = 0
    images_seen: int = 0
    train_seconds: float = 0.0
    test_seconds: float = 0.0
    student_temperature: float = 1.0

    @property
    def final(self) -> float:
        """Test accuracy (fraction) after the last epoch: the headline."""
        return self.curve[-1]["test_accuracy"]

    @property
    def best_test(self) -> float:
        """The best test accuracy of all checks: what papers report, chosen on the test split."""
        return max(point["test_accuracy"] for point in self.curve)


def training_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Model and optimizer as named tensors."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for parameter, entries in optimizer.state_dict()["state"].items():
        for name, tensor in entries.items():
            if tensor is not None:
                tensors[f"optimizer.{parameter}.{name}"] = torch.as_tensor(tensor)
    return tensors


def resume(checkpoint: Checkpoint | None, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[History, int]:
    """Put back what `checkpoint` keeps; the history and the number of epochs done, empty and 0 at a fresh start."""
    found = checkpoint.load() if checkpoint is not None else None
    if found is None:
        return History(), 0
    tensors, facts = found
    restore_training(tensors, model, optimizer)
    return History(**facts["history"]), int(facts["epoch"])


def restore_training(tensors: dict[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put back what `training_state` gave."""
    model.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, parameter, entry = name.split(".", 2)
            state.setdefault(int(parameter), {})[entry] = tensor.clone()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
