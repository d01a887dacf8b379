"""What was drawn for one batch of views, as data that can be stored and replayed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from softlabel.core import StoreError
from softlabel.views._base import Values

SHAPE = "shape"


@dataclass(frozen=True, eq=False)
class Mix:
    """Which images of a batch were mixed, and how much.

    Attributes:
        partner: int64 [B], the index in the batch of the other image.
        weight: float32 [B], the share of the own image; the partner has 1 - weight.
    """

    partner: Tensor
    weight: Tensor


@dataclass(frozen=True, eq=False)
class ViewParams:
    """Everything that makes one view of a batch; `apply` needs nothing else but the images.

    Attributes:
        ops: (name in VIEW_OPS, its numbers), in the order of application. Every tensor has the batch as its
            first axis.
        batch, height, width: of the images that the numbers were drawn for.
    """

    ops: tuple[tuple[str, Values], ...]
    batch: int
    height: int
    width: int

    @property
    def mix(self) -> Mix | None:
        """Partners and weights when the policy has a mixing op (even if it spared this batch), else None."""
        for _, values in self.ops:
            if "partner" in values:
                return Mix(values["partner"], values["weight"])
        return None

    def to(self, device: torch.device | str) -> "ViewParams":
        """The same numbers on `device`."""
        moved = tuple(
            (name, {key: tensor.to(device, non_blocking=True) for key, tensor in values.items()})
            for name, values in self.ops
        )
        return ViewParams(moved, self.batch, self.height, self.width)


def to_tensors(params: ViewParams) -> dict[str, Tensor]:
    """`params` as named tensors, such as `0.flip.flags`, for a file; `shape` holds batch, height, width."""
    tensors = {
        f"{index}.{name}.{key}": tensor
        for index, (name, values) in enumerate(params.ops)
        for key, tensor in values.items()
    }
    return {SHAPE: torch.tensor([params.batch, params.height, params.width]), **tensors}


def from_tensors(tensors: dict[str, Tensor]) -> ViewParams:
    """The inverse of `to_tensors`, bit for bit; the order of the dict does not matter.

    Raises:
        StoreError: when these are not the tensors of a view.
    """
    if SHAPE not in tensors or tensors[SHAPE].shape != (3,):
        raise StoreError(
            f"A stored view must have a tensor {SHAPE!r} of batch, height and width. Found: "
            f"{', '.join(sorted(tensors)) or 'nothing'}. Write views with softlabel.views.to_tensors."
        )
    ops: dict[int, tuple[str, Values]] = {}
    for key in sorted(tensors.keys() - {SHAPE}):
        index, _, rest = key.partition(".")
        name, dot, value = rest.partition(".")
        if not (index.isdecimal() and dot and ops.setdefault(int(index), (name, {}))[0] == name):
            raise StoreError(f"A stored view has tensors named POSITION.OP.VALUE, one op per position. Found {key!r}.")
        ops[int(index)][1][value] = tensors[key]
    if sorted(ops) != list(range(len(ops))):
        raise StoreError(f"A stored view must have the ops 0 to {len(ops) - 1}. Found {sorted(ops)}: some are missing.")
    batch, height, width = tensors[SHAPE].tolist()
    return ViewParams(tuple(ops[index] for index in range(len(ops))), batch, height, width)
