"""Denoisers: networks that tell the noise in latents, for a time and a class."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from softlabel.core import ConfigError, UnknownNameError, build_config, parse_spec
from softlabel.models import optional_package

DENOISERS = {
    "unet": "diffusers' UNet2DModel with class embeddings: convolutions, attention at the lower resolution",
    "dit": "diffusers' DiTTransformer2DModel: a transformer over patches of latents (Peebles & Xie 2023)",
}


@dataclass(frozen=True, kw_only=True)
class UnetConfig:
    """Sizes of `unet`: `width` channels at full resolution and twice as many below, `layers` blocks at each."""

    width: int = 64
    layers: int = 1
    levels: int = 2

    def check(self, shape: tuple[int, int, int]) -> None:
        if self.width < 8 or self.width % 8 or self.layers < 1 or self.levels < 1:
            raise ConfigError(
                f"The denoiser 'unet' takes a width that is a multiple of 8, and layers and levels of 1 or more. Got "
                f"{self.width}, {self.layers} and {self.levels}."
            )
        halved = 2 ** (self.levels - 1)
        if shape[1] % halved or shape[2] % halved:
            raise ConfigError(
                f"The denoiser 'unet' with {self.levels} levels halves its latents, and {shape[1]}x{shape[2]} of them "
                f"cannot be. Choose fewer levels, or dit."
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        diffusers = optional_package("diffusers", "generate", "of a denoiser")
        below = self.levels - 1
        network: nn.Module = diffusers.UNet2DModel(
            sample_size=shape[1:],
            in_channels=shape[0],
            out_channels=shape[0],
            down_block_types=("DownBlock2D",) * (below > 0) + ("AttnDownBlock2D",) * max(1, below),
            up_block_types=("AttnUpBlock2D",) * max(1, below) + ("UpBlock2D",) * (below > 0),
            block_out_channels=(self.width, *(2 * self.width,) * below),
            layers_per_block=self.layers,
            attention_head_dim=32 if self.width % 32 == 0 else 8,
            norm_num_groups=8,
            num_class_embeds=classes + 1,
        )
        return network


@dataclass(frozen=True, kw_only=True)
class DitConfig:
    """Sizes of `dit`: `depth` blocks of `width` with `heads` of attention over patches of `patch` latents a side."""

    width: int = 192
    depth: int = 6
    heads: int = 3
    patch: int = 1

    def check(self, shape: tuple[int, int, int]) -> None:
        if min(self.width, self.depth, self.heads, self.patch) < 1 or self.width % self.heads:
            raise ConfigError(
                f"The denoiser 'dit' takes sizes of 1 or more, and a width that its heads share evenly. Got width "
                f"{self.width}, depth {self.depth}, heads {self.heads} and patch {self.patch}."
            )
        if shape[1] != shape[2] or shape[1] % self.patch:
            raise ConfigError(
                f"The denoiser 'dit' takes square latents in whole patches of {self.patch}. These are "
                f"{shape[1]}x{shape[2]}: convert the images with --image-size, choose another patch, or unet."
            )

    def build(self, shape: tuple[int, int, int], classes: int) -> nn.Module:
        diffusers = optional_package("diffusers", "generate", "of a denoiser")
        network: nn.Module = diffusers.DiTTransformer2DModel(
            num_attention_heads=self.heads,
            attention_head_dim=self.width // self.heads,
            in_channels=shape[0],
            num_layers=self.depth,
            sample_size=shape[1],
            patch_size=self.patch,
            num_embeds_ada_norm=classes,  # it has a row more, for no class
        )
        return network


_CONFIGS: dict[str, Callable[..., UnetConfig | DitConfig]] = {"unet": UnetConfig, "dit": DitConfig}


class Denoiser(nn.Module):
    """A network of `DENOISERS`, with one way to call all."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def train(self, mode: bool = True) -> "Denoiser":
        """It stays in evaluation mode: classes are dropped by the training, from its own stream."""
        return super().train(False)

    def forward(self, latents: Tensor, times: Tensor, classes: Tensor) -> Tensor:
        """What there is to tell of latents [B, C, h, w] at times [B] in 0..1000, float32.

        Args:
            classes: int64 [B]; the number of classes itself stands for none.
        """
        network: Any = self.network
        return network(latents, times, class_labels=classes).sample.float()  # type: ignore[no-any-return]


def denoiser_config(spec: str) -> UnetConfig | DitConfig:
    """The settings of a spec such as `dit:width=192,depth=6`.

    Raises:
        UnknownNameError: no such denoiser.
        ConfigError: no such option.
    """
    name, options = parse_spec(spec)
    if name not in _CONFIGS:
        raise UnknownNameError("denoiser", name, DENOISERS)
    kind: Any = _CONFIGS[name]
    return build_config(kind, options, f"the denoiser {name!r}")  # type: ignore[no-any-return]


def build_denoiser(spec: str, shape: tuple[int, int, int], classes: int, seed: int) -> Denoiser:
    """A fresh denoiser for latents of that shape (channels, height, width).

    Raises:
        UnknownNameError, ConfigError: a spec that does not exist, or does not fit the latents.
        MissingExtraError: diffusers is not installed.
    """
    config = denoiser_config(spec)
    config.check(shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Denoiser(config.build(shape, classes)).eval()
