"""A trained autoencoder: images to latents and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabel.core import ConfigError, DatasetInfo, StoreError, plain
from softlabel.models import channels_last, optional_package
from softlabel.training import Execution

BATCH = 256


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A trained autoencoder, frozen and in evaluation mode.

    Attributes:
        network: diffusers' model.
        info: the data it was trained on.
        shift, scale: mean and standard deviation of the data's latents, per channel [C]: measured, not assumed.
        psnr: of the test images' reconstructions, in dB.
    """

    network: nn.Module
    info: DatasetInfo
    shift: Tensor
    scale: Tensor
    fingerprint: str = ""
    psnr: float = 0.0

    @property
    def factor(self) -> int:
        """Pixels per latent and side."""
        return int(2 ** (len(config_of(self.network)["block_out_channels"]) - 1))

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image's latents."""
        return len(self.shift), self.info.height // self.factor, self.info.width // self.factor

    @property
    def meta(self) -> dict[str, Any]:
        """What is kept of it beside the weights (`autoencoder_of`)."""
        return {
            "network": config_of(self.network),
            "info": plain(self.info),
            "shift": self.shift.tolist(),
            "scale": self.scale.tolist(),
            "fingerprint": self.fingerprint,
            "psnr": self.psnr,
        }

    @property
    def size(self) -> int:
        """Bytes of the weights, in float32."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.network.state_dict().values())

    def to(self, device: torch.device) -> "Autoencoder":
        """This autoencoder on `device`; moves the network itself."""
        self.network.to(device)
        return self

    def encode(self, images: Tensor, execution: Execution) -> Tensor:
        """Latents [B, C, h, w], float32, of mean 0 and deviation 1 over the data, of uint8 images [B, ...]."""
        network: Any = self.network
        device = execution.torch_device
        found = []
        with torch.inference_mode(), execution.autocast(), execution.deterministic():
            for part in images.split(BATCH):
                found.append(_latents(network, signed(part.to(device))).float().cpu())
        latents = torch.cat(found).clone()
        return (latents - self.shift.view(1, -1, 1, 1)) / self.scale.view(1, -1, 1, 1)

    def decode(self, latents: Tensor, execution: Execution) -> Tensor:
        """uint8 images of latents as `encode` gives them."""
        network: Any = self.network
        device = execution.torch_device
        raw = latents.cpu() * self.scale.view(1, -1, 1, 1) + self.shift.view(1, -1, 1, 1)
        found = []
        with torch.inference_mode(), execution.autocast(), execution.deterministic():
            for part in raw.split(BATCH):
                pixels = network.decode(part.to(device)).sample.float()
                found.append(((pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu())
        return torch.cat(found)


def autoencoder_of(meta: Mapping[str, Any], weights: dict[str, Tensor], path: Path) -> Autoencoder:
    """An autoencoder from what is kept of it, at `path`."""
    diffusers = optional_package("diffusers", "generate", "of an autoencoder")
    config = dict(meta["network"])
    with torch.random.fork_rng(devices=[]):  # what it draws is replaced at once
        network = getattr(diffusers, config.pop("_class_name")).from_config(config)
    load_weights(network, weights, path)
    channels_last(network)
    return Autoencoder(
        network=network.eval().requires_grad_(False),
        info=DatasetInfo.from_json(meta["info"]),
        shift=torch.tensor(meta["shift"]),
        scale=torch.tensor(meta["scale"]),
        fingerprint=meta["fingerprint"],
        psnr=meta["psnr"],
    )


def load_weights(network: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Take weights that were kept at `path`.

    Raises:
        StoreError: they are those of another architecture.
    """
    own = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if {name: tensor.shape for name, tensor in weights.items()} != own:
        raise StoreError(f"The weights at {path} are of another architecture than its manifest says. Train it again.")
    network.load_state_dict(weights)


def psnr(images: Tensor, others: Tensor) -> float:
    """Peak signal-to-noise ratio of uint8 images, in dB: 10 log10(255^2 / mean squared error), over all of them."""
    parts = zip(images.split(BATCH), others.split(BATCH), strict=True)
    error = sum(float((a.double() - b.double()).square().sum()) for a, b in parts) / images.numel()
    return float("inf") if error == 0 else float(10 * torch.log10(torch.tensor(255.0**2 / error, dtype=torch.float64)))


def check_sides(info: DatasetInfo, factor: int) -> None:
    """Raise ConfigError when images cannot be halved down to a whole number of latents."""
    if info.height % factor or info.width % factor:
        height, width = (-(-side // factor) * factor for side in (info.height, info.width))
        raise ConfigError(
            f"An autoencoder of factor {factor} halves images down to a whole number of latents, and those of "
            f"{info.name} have {info.height}x{info.width} px. Convert them, e.g. with --image-size {height}x{width}, "
            f"or choose a smaller factor."
        )


def signed(images: Tensor) -> Tensor:
    """Pixels in -1..1."""
    return images.float() / 127.5 - 1


def _latents(network: Any, pixels: Tensor) -> Tensor:
    encoded = network.encode(pixels)
    latents: Tensor = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
    return latents


def config_of(network: nn.Module) -> dict[str, Any]:
    """What diffusers needs to build the network again, as plain data."""
    config: Any = network.config
    return {name: plain(value) for name, value in dict(config).items() if name != "_name_or_path"} | {
        "_class_name": type(network).__name__
    }
