"""From stored pixels to what a network sees."""

import torch
from torch import Tensor

from softlabel.core import DatasetInfo


class Normaliser:
    """uint8 [B, C, H, W] on any device -> float32 (x / 255 - mean) / std on `device`, channels last."""

    def __init__(self, info: DatasetInfo, device: torch.device) -> None:
        mean = torch.tensor(info.mean, device=device).view(1, -1, 1, 1)
        std = torch.tensor(info.std, device=device).view(1, -1, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = -mean / std
        self._device = device

    def __call__(self, images: Tensor) -> Tensor:
        floats = images.to(self._device, dtype=torch.float32)
        return torch.addcmul(self._shift, floats, self._scale).contiguous(memory_format=torch.channels_last)
