"""Policies: drawing a view, applying it, and reading a policy back from plain data."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Generator, Tensor

from softlabel.core import ConfigError, DataError, UnknownNameError, build_config
from softlabel.views._base import Policy, ViewOp
from softlabel.views._dsa import DSAClassic, DSAGift
from softlabel.views._geometry import (
    FactorCrop,
    Flip,
    PatchShuffle,
    RandomResizedCrop,
    Rotate,
    Scale,
    ShiftCrop,
)
from softlabel.views._mixing import CutMix, Mixup
from softlabel.views._params import ViewParams
from softlabel.views._pixels import Colour, Cutout

VIEW_OPS: dict[str, type[ViewOp]] = {
    "flip": Flip,
    "shift_crop": ShiftCrop,
    "random_resized_crop": RandomResizedCrop,
    "factor_crop": FactorCrop,
    "patch_shuffle": PatchShuffle,
    "colour": Colour,
    "scale": Scale,
    "rotate": Rotate,
    "cutout": Cutout,
    "dsa_classic": DSAClassic,
    "dsa_gift": DSAGift,
    "cutmix": CutMix,
    "mixup": Mixup,
}

MIXING = (CutMix, Mixup)


def sample(policy: Policy, batch: int, height: int, width: int, generator: Generator) -> ViewParams:
    """Draw every random number of one view of `batch` images of `height` x `width` pixels.

    The same policy, sizes and generator state give the same bits. The empty policy is the plain image.

    Raises:
        ConfigError: when an op does not fit the image size, when there is more than one mixing op or it is
            not the last op, or when the generator is not a CPU generator.
    """
    check_policy(policy, height, width)
    if batch < 1:
        raise ConfigError(f"A view needs at least one image. Got a batch of {batch}.")
    if generator.device.type != "cpu":
        raise ConfigError(
            f"Views are drawn on the CPU, so that they are the same on every device. Got a generator on "
            f"{generator.device}: make one with softlabel.core.stream."
        )
    ops = tuple((op.op, op.draw(batch, height, width, generator)) for op in policy)
    return ViewParams(ops, batch, height, width)


def apply(images: Tensor, params: ViewParams) -> Tensor:
    """The view of `images` that `params` describes; float [B, C, H, W], on their device and of their dtype.

    Deterministic; the input is never changed (and is returned as it is when nothing happens to it).
    `params` may be on the CPU or on the images' device.

    Raises:
        DataError: when the images are not float, or not of the batch and size that was drawn for.
        UnknownNameError: when `params` names an op that does not exist.
    """
    expected = (params.batch, params.height, params.width)
    if images.ndim != 4 or (images.shape[0], *images.shape[2:]) != expected:
        raise DataError(
            f"This view was drawn for images [{params.batch}, C, {params.height}, {params.width}]. "
            f"Got {list(images.shape)}. Draw views for the batch at hand."
        )
    if not images.is_floating_point():
        raise DataError(f"Views act on float images, normalised by mean and std. Got {images.dtype}.")
    with torch.autocast(images.device.type, enabled=False):
        for name, values in params.ops:
            images = _op_class(name).apply(images, values)
    return images


def check_policy(policy: Policy, height: int, width: int) -> None:
    """Raise ConfigError when `policy` cannot be used on images of `height` x `width` pixels.

    `sample` checks the same; this is for finding mistakes before work starts.
    """
    for op in policy:
        if not isinstance(op, ViewOp):
            raise ConfigError(f"A policy is a tuple of view ops, such as (Flip(), CutMix()). Got {op!r} in it.")
        op.check(height, width)
    mixing = [position for position, op in enumerate(policy) if isinstance(op, MIXING)]
    if len(mixing) > 1:
        names = " and ".join(policy[position].op for position in mixing)
        raise ConfigError(f"A policy can mix images once. It has {names}: keep one of them.")
    if mixing and mixing[0] != len(policy) - 1:
        raise ConfigError(
            f"{policy[mixing[0]].op} must come last in a policy, or its weight would not be the share of "
            f"the own image that is seen. Here {policy[mixing[0] + 1].op} follows it."
        )


def policy_from_plain(data: Sequence[Mapping[str, Any]]) -> Policy:
    """The policy that `softlabel.core.plain` made `data` from; `{"op": "flip", "p": 0.5}` is `Flip(p=0.5)`.

    Settings that are left out keep their defaults.

    Raises:
        ConfigError: for an entry without `op`, or with settings that do not exist or cannot be used.
        UnknownNameError: for an op that is not in VIEW_OPS.
    """
    return tuple(_op_from_plain(entry) for entry in data)


def _op_from_plain(entry: Mapping[str, Any]) -> ViewOp:
    if "op" not in entry:
        raise ConfigError(f"A view op needs its name under 'op', as in {{'op': 'flip'}}. Got {dict(entry)!r}.")
    settings = {key: value for key, value in entry.items() if key != "op"}
    return build_config(_op_class(entry["op"]), settings, f"the view {entry['op']}")


def _op_class(name: str) -> type[ViewOp]:
    if name not in VIEW_OPS:
        raise UnknownNameError("view op", str(name), VIEW_OPS)
    return VIEW_OPS[name]
