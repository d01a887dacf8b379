"""What every op has in common: its shape, the checks of its settings, and how its numbers reach a device."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Generator, Tensor

from softlabel.core import ConfigError

Values = dict[str, Tensor]


class ViewOp(ABC):
    """One step of a policy: a frozen dataclass of settings that can draw numbers, and apply them.

    `op` is the name in `VIEW_OPS`. It is a field, so that two ops with the same settings still have
    different fingerprints. `per_batch`: all images of a batch have an operation in common, which is drawn.
    """

    op: str
    per_batch: ClassVar[bool] = False

    def check(self, height: int, width: int) -> None:  # noqa: B027  most ops fit every image
        """Raise ConfigError when images of `height` x `width` pixels do not fit these settings."""

    @abstractmethod
    def draw(self, batch: int, height: int, width: int, generator: Generator) -> Values:
        """All random numbers for `batch` images: CPU tensors with `batch` as their first axis."""

    @staticmethod
    @abstractmethod
    def apply(images: Tensor, values: Values) -> Tensor:
        """The images [B, C, H, W] changed as `values` says; the settings are not needed any more."""


Policy = tuple[ViewOp, ...]


def check_number(op: str, name: str, value: float, low: float, high: float = math.inf) -> None:
    """Raise ConfigError unless `value` is a number in low..high."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not (good and low <= value <= high):
        limit = f"of at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
        raise ConfigError(f"The view {op} needs {name} to be a number {limit}. Got {value!r}.")


def check_positive(op: str, name: str, value: float) -> None:
    """Raise ConfigError unless `value` is a number above 0."""
    check_number(op, name, value, 0.0)
    if value == 0:
        raise ConfigError(f"The view {op} needs {name} to be above 0. Got {value!r}.")


def check_integer(op: str, name: str, value: int, low: int) -> None:
    """Raise ConfigError unless `value` is a whole number of at least `low`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise ConfigError(f"The view {op} needs {name} to be a whole number of at least {low}. Got {value!r}.")


def check_factor(op: str, factor: int, height: int, width: int) -> None:
    """Raise ConfigError when an image is too small to be cut into factor x factor tiles."""
    if factor > min(height, width):
        raise ConfigError(
            f"The view {op} cannot cut images of {height}x{width} pixels into {factor}x{factor} tiles. "
            f"Use a factor of at most {min(height, width)}."
        )


def uniform(batch: int, low: float, high: float, generator: Generator) -> Tensor:
    """float32 [batch], uniform in low..high."""
    return torch.rand(batch, generator=generator) * (high - low) + low


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One number per image as [B, 1, 1, 1] on the images' device; floats take the images' dtype."""
    dtype = images.dtype if values.is_floating_point() else values.dtype
    return values.to(images.device, dtype, non_blocking=True).view(-1, 1, 1, 1)


def known_to_be(condition: Tensor) -> bool:
    """Whether all of `condition` holds, as far as can be told without waiting for a GPU.

    Used to skip work that would change nothing, so answering False is always safe.
    """
    return condition.device.type == "cpu" and bool(condition.all())


def inside_boxes(boxes: Tensor, images: Tensor) -> Tensor:
    """bool [B, 1, H, W]: which pixels lie in each image's box; int64 [B, 4] of top, left, height, width."""
    top, left, height, width = boxes.to(images.device, non_blocking=True)[:, :, None].unbind(1)
    row = torch.arange(images.shape[2], device=images.device)
    column = torch.arange(images.shape[3], device=images.device)
    in_rows = (row >= top) & (row < top + height)
    in_columns = (column >= left) & (column < left + width)
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]
