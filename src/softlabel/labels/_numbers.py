"""How the numbers of a stored label are kept: floats of 32 or 16 bits, or integers of 8 or 4 with a scale per row."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Rows = dict[str, Tensor]
"""What is stored of some labels: tensors with the rows as their first axis."""

Layout = dict[str, tuple[torch.dtype, int]]
"""Type and width of every stored tensor, [rows, width]."""


@dataclass(frozen=True)
class Numbers:
    """One way to keep a float matrix [R, m] row by row.

    Attributes:
        pack, unpack: the way there and back, and back to float32; `unpack` is told the width m.
        layout: what is stored, for a width m.
    """

    summary: str
    pack: "Pack"
    unpack: "Unpack"
    layout: Callable[[int], Layout]


Pack = Callable[[Tensor], Rows]
Unpack = Callable[[Rows, int], Tensor]


def _float(dtype: torch.dtype) -> tuple[Pack, Unpack, Callable[[int], Layout]]:
    limit = torch.finfo(dtype).max

    def pack(values: Tensor) -> Rows:
        return {"values": values.clamp(-limit, limit).to(dtype)}

    def unpack(rows: Rows, width: int) -> Tensor:
        return rows["values"].float()

    return pack, unpack, lambda width: {"values": (dtype, width)}


_HALF = torch.finfo(torch.float16).max


def _affine(values: Tensor, levels: int) -> tuple[Tensor, Tensor]:
    """Whole numbers 0..levels [R, m], and lowest value and step per row as stored, float16 [R, 2].

    A number comes back as lowest + step * whole: within half a step of itself, and what float16 makes of the lowest
    value and the step.
    """
    values = values.clamp(-_HALF, _HALF)
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)
    stored = torch.cat([low, (high - low) / levels], dim=1).half()
    low, step = stored.float().split(1, dim=1)
    whole = ((values - low) / step.where(step > 0, torch.ones_like(step))).round().clamp(0, levels)
    return whole, stored


def _scaled(whole: Tensor, stored: Tensor) -> Tensor:
    low, step = stored.float().split(1, dim=1)
    values: Tensor = low + step * whole.float()
    return values


def _pack_int8(values: Tensor) -> Rows:
    whole, stored = _affine(values, 255)
    return {"values": whole.to(torch.uint8), "scale": stored}


def _unpack_int8(rows: Rows, width: int) -> Tensor:
    return _scaled(rows["values"], rows["scale"])


def _pack_int4(values: Tensor) -> Rows:
    whole, stored = _affine(values, 15)
    halves = torch.nn.functional.pad(whole.to(torch.uint8), (0, whole.shape[1] % 2))
    return {"values": halves[:, 0::2] | (halves[:, 1::2] << 4), "scale": stored}


def _unpack_int4(rows: Rows, width: int) -> Tensor:
    both: Tensor = torch.stack([rows["values"] & 15, rows["values"] >> 4], dim=2).flatten(1)
    return _scaled(both[:, :width], rows["scale"])


_SCALE: Layout = {"scale": (torch.float16, 2)}

NUMBERS: dict[str, Numbers] = {
    "fp32": Numbers("32-bit floats: nothing is lost", *_float(torch.float32)),
    "fp16": Numbers("16-bit floats", *_float(torch.float16)),
    "bf16": Numbers("bfloat16: the range of 32 bits, two to three digits", *_float(torch.bfloat16)),
    "int8": Numbers(
        "a byte each, and the row's lowest value and step", _pack_int8, _unpack_int8,
        lambda width: {"values": (torch.uint8, width), **_SCALE},
    ),
    "int4": Numbers(
        "half a byte each, and the row's lowest value and step", _pack_int4, _unpack_int4,
        lambda width: {"values": (torch.uint8, -(-width // 2)), **_SCALE},
    ),
}  # fmt: skip
