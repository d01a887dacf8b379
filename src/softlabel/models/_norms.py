"""Normalisation layers, and the memory layout that convolutions are quick in on CPUs."""

from typing import Any

import torch
from torch import Tensor, nn

NORMS = ("batch", "instance", "group", "none")


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` over contiguous memory: over channels-last memory torch's CPU kernels are far slower."""

    def forward(self, x: Tensor) -> Tensor:
        normed = super().forward(x.contiguous())
        # Asked by strides: vmap does not answer for a memory format.
        last = x.dim() == 4 and x.shape[1] > 1 and x.stride(1) == 1
        return normed.contiguous(memory_format=torch.channels_last) if last else normed


def norm_layer(norm: str, channels: int) -> nn.Module:
    """`batch`, `instance` (GroupNorm, one channel per group, affine, as in DC/MTT), `group` (32 or fewer), `none`."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "instance":
        return GroupNorm(channels, channels)
    if norm == "group":
        return GroupNorm(next(g for g in (32, 16, 8, 4, 2, 1) if channels % g == 0), channels)
    return nn.Identity()


def channels_last(network: nn.Module) -> nn.Module:
    """Lay out the weights of a network for channels-last memory, in place, with `GroupNorm` for torch's."""
    for module in list(network.modules()):
        for name, norm in module.named_children():
            if type(norm) is nn.GroupNorm:
                own = GroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps, affine=norm.affine)
                own.weight, own.bias = norm.weight, norm.bias
                module.add_module(name, own)
    laid_out: Any = network
    laid_out.to(memory_format=torch.channels_last)
    return network
