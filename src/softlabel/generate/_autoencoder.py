"""A small autoencoder of the data, in whose latent space images are generated (Rombach et al. 2022).

The networks are diffusers': `AutoencoderKL`, whose latents are drawn close to a normal distribution by a weak penalty,
or `VQModel`, whose latents are taken from a learned book of codes. Theirs are trained with a perceptual and an
adversarial loss too, which need networks of their own: ours by squared error alone, enough for small pictures.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from softlabel.core import (
    ConfigError,
    Dataset,
    DatasetInfo,
    Progress,
    Silent,
    UnknownNameError,
    fingerprint,
    plain,
    stream,
    stream_seed,
    tensor_fingerprint,
)
from softlabel.generate._coder import BATCH, Autoencoder, autoencoder_of, check_sides, config_of, psnr, signed
from softlabel.generate._measures import agreement, confidences
from softlabel.generate._processes import Processes
from softlabel.generate._steps import Course, Draws, StepLoss, train_steps
from softlabel.models import channels_last, optional_package
from softlabel.store import FileCheckpoint, Store, is_complete, new_artifact, read_artifact, require_same
from softlabel.training import Execution, Optimizer, Teacher

KIND = "autoencoder"
KINDS = {
    "kl": "latents drawn close to a normal distribution (diffusers' AutoencoderKL)",
    "vq": "latents taken from a learned book of codes (diffusers' VQModel)",
}
REVISION = 2
"""Part of every autoencoder's identity: raised when a release trains other weights from the same settings."""
STATISTICS_IMAGES = 5000
_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """How an autoencoder is built and trained.

    Attributes:
        kind: see `KINDS`.
        factor: pixels per latent and side, a power of two.
        channels: of the latents.
        width: channels at full resolution; twice as many below.
        layers: residual blocks per resolution.
        codes: in the book of `vq`.
        penalty: weight, for `kl`, of the divergence from a normal distribution per latent beside the squared error per
            pixel of images in -1..1. What `vq` pays for codes that are far away counts as much as the error.
        epochs, batch, lr: of AdamW, over the training images.
        flip: mirror half of the images.
    """

    kind: str = "kl"
    factor: int = 4
    channels: int = 4
    width: int = 32
    layers: int = 1
    codes: int = 512
    penalty: float = 1e-4
    epochs: int = 4
    batch: int = 128
    lr: float = 1e-3
    flip: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UnknownNameError("autoencoder", self.kind, KINDS)
        if self.factor < 2 or self.factor & (self.factor - 1):
            raise ConfigError(f"An autoencoder's factor is a power of two from 2 on. Got {self.factor} instead.")
        for name in ("channels", "layers", "codes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"An autoencoder needs {name} of 1 or more. Got {getattr(self, name)} instead.")
        if self.width < 8 or self.width % 8:
            raise ConfigError(f"An autoencoder's width is a multiple of 8. Got {self.width} instead.")
        self.course()

    def course(self) -> Course:
        optimizer = Optimizer(name="adamw", lr=self.lr, weight_decay=0.0, betas=(0.9, 0.99))
        return Course(epochs=self.epochs, batch=self.batch, optimizer=optimizer)

    def check(self, info: DatasetInfo) -> None:
        """Raise ConfigError when images of that size cannot be halved so often."""
        check_sides(info, self.factor)


def train_autoencoder(
    data: Dataset,
    config: AutoencoderConfig,
    *,
    store: Store,
    execution: Execution,
    seed: int = 0,
    processes: Processes | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train an autoencoder on the train split and keep it; an equal one is found, an interrupted one goes on.

    Args:
        out: the artifact's folder; its place in the store by default.

    Raises:
        ConfigError: images of a size that it cannot halve.
        MissingExtraError: diffusers is not installed.
        StoreError: `out` holds another autoencoder.
    """
    config.check(data.info)
    processes, progress = processes or Processes(), progress or Silent()
    identity = _identity(data, config, seed, execution)
    key = fingerprint(identity)
    path = out or autoencoder_place(data, config, store=store, execution=execution, seed=seed)[0]
    if is_complete(path):
        require_same(path, "autoencoder", read_artifact(path, KIND, verify=False).meta["fingerprint"], key)
        return path
    network = build_autoencoder(config, data.info, stream_seed(seed, "autoencoder", "init"))
    if config.kind == "vq":
        _begin_codes(network, data, seed)
    checkpoint = FileCheckpoint(store.student(key))
    trained = train_steps(
        Reconstruction(network, config),
        reconstruction_loss(data, config),
        len(data.train),
        config.course(),
        seed=stream_seed(seed, "autoencoder"),
        execution=execution,
        processes=processes,
        checkpoint=checkpoint,
        progress=progress,
        what=f"autoencoder of {data.info.name}",
    )
    if processes.first:
        facts = {**identity, "fingerprint": key, "losses": trained.losses, "train_seconds": trained.seconds}
        _keep(network, data, facts, path, execution)
        checkpoint.clear()
    processes.wait()
    return path


def autoencoder_place(
    data: Dataset, config: AutoencoderConfig, *, store: Store, execution: Execution, seed: int = 0
) -> tuple[Path, str]:
    """Where `train_autoencoder` with these arguments keeps, or will keep, its autoencoder, and its fingerprint."""
    key = fingerprint(_identity(data, config, seed, execution))
    return store.teacher(f"{data.info.name}-autoencoder", key), key


def adopt_autoencoder(
    folder: Path,
    data: Dataset,
    *,
    store: Store,
    execution: Execution,
    out: Path | None = None,
) -> Path:
    """Keep a pretrained `AutoencoderKL` or `VQModel`, in a folder as diffusers writes it, with the data's statistics.

    Raises:
        ConfigError: no such model there, one for images of another number of channels, or images that it cannot halve.
        MissingExtraError: diffusers is not installed.
    """
    network = pretrained_autoencoder(folder, data)
    identity = adopted_identity(network, data, execution)
    key = fingerprint(identity)
    path = out or store.teacher(f"{data.info.name}-autoencoder", key)
    if is_complete(path):
        require_same(path, "autoencoder", read_artifact(path, KIND, verify=False).meta["fingerprint"], key)
        return path
    _keep(network, data, {**identity, "fingerprint": key, "source": folder.name}, path, execution)
    return path


def adopted_identity(network: nn.Module, data: Dataset, execution: Execution) -> dict[str, Any]:
    """What tells one pretrained autoencoder with the statistics of some data from another."""
    return {
        "weights": tensor_fingerprint(*network.state_dict().values()),
        "network": plain(dict(config_of(network))),
        "revision": REVISION,
        "data": data.info.digest,
        "train": data.train.digest,
        "execution": execution.identity,
    }


def pretrained_autoencoder(folder: Path, data: Dataset) -> nn.Module:
    """The network at `folder` that `adopt_autoencoder` takes; it raises the same."""
    network = _pretrained(folder)
    config = config_of(network)
    if config["in_channels"] != data.info.channels:
        raise ConfigError(
            f"The autoencoder at {folder} takes images of {config['in_channels']} channels, and {data.info.name} has "
            f"{data.info.channels}. Convert them with --channels {config['in_channels']}."
        )
    check_sides(data.info, 2 ** (len(config["block_out_channels"]) - 1))
    return network


def load_autoencoder(path: Path) -> Autoencoder:
    """The autoencoder at `path`.

    Raises:
        StoreError: none there, or a corrupt file, or weights of another architecture.
    """
    artifact = read_artifact(path, KIND)
    return autoencoder_of(artifact.meta, artifact.tensors(_WEIGHTS), path)


def build_autoencoder(config: AutoencoderConfig, info: DatasetInfo, seed: int) -> nn.Module:
    """A fresh network.

    Raises:
        MissingExtraError: diffusers is not installed.
    """
    diffusers = optional_package("diffusers", "generate", "of an autoencoder")
    levels = config.factor.bit_length()
    common: dict[str, Any] = {
        "in_channels": info.channels,
        "out_channels": info.channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": (config.width, *(2 * config.width,) * (levels - 1)),
        "layers_per_block": config.layers,
        "latent_channels": config.channels,
        "norm_num_groups": 8,
        "sample_size": info.height,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.kind == "kl":
            return channels_last(diffusers.AutoencoderKL(**common))
        return channels_last(diffusers.VQModel(**common, num_vq_embeddings=config.codes))


@torch.no_grad()
def _begin_codes(network: Any, data: Dataset, seed: int) -> None:
    """Codes of a fresh network's own latents: diffusers' begin so close to 0 that a few of them serve all."""
    drawn = stream(seed, "autoencoder", "codes")
    some = torch.randperm(len(data.train), generator=drawn)[:BATCH]
    latents = network.encode(signed(data.train.images[some])).latents.permute(0, 2, 3, 1).flatten(0, 2)
    codes = network.quantize.embedding.weight
    codes.copy_(latents[torch.randint(len(latents), (len(codes),), generator=drawn)])


class Reconstruction(nn.Module):
    """Both halves as one: the mean loss of pixels in -1..1, given the noise of the latents."""

    def __init__(self, network: nn.Module, config: AutoencoderConfig) -> None:
        super().__init__()
        self.network: Any = network
        self.config = config

    def forward(self, pixels: Tensor, noise: Tensor) -> Tensor:
        if self.config.kind == "kl":
            posterior = self.network.encode(pixels).latent_dist
            made = self.network.decode(posterior.mean + posterior.std * noise).sample
            # The divergence from a standard normal distribution, per latent.
            spread = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).float().mean()
            penalty = self.config.penalty * spread
        else:
            made, commitment = self.network(pixels, return_dict=False)[:2]
            penalty = commitment.float().mean()
        loss: Tensor = (made.float() - pixels).square().mean() + penalty
        return loss


def reconstruction_loss(data: Dataset, config: AutoencoderConfig) -> StepLoss:
    """The loss of `Reconstruction` on rows of the train split."""
    shape = config.channels, data.info.height // config.factor, data.info.width // config.factor

    def loss(network: nn.Module, rows: Tensor, draws: Draws) -> Tensor:
        pixels = signed(data.train.images[rows].to(draws.device))
        mirrored = (draws.uniform() < 0.5) & config.flip
        pixels = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(3), pixels)
        value: Tensor = network(pixels, draws.normal(*shape))
        return value

    return loss


def _keep(
    network: nn.Module,
    data: Dataset,
    facts: dict[str, Any],
    path: Path,
    execution: Execution,
) -> None:
    """Write the artifact, with the statistics of the latents and how well images are given back."""
    network.to(execution.torch_device).eval().requires_grad_(False)
    channels = config_of(network)["latent_channels"]
    plainly = Autoencoder(network, data.info, torch.zeros(channels), torch.ones(channels))
    some = torch.randperm(len(data.train), generator=stream(0, "latent statistics"))[:STATISTICS_IMAGES]
    latents = plainly.encode(data.train.images[some], execution).double()
    shift, scale = latents.mean(dim=(0, 2, 3)).float(), latents.std(dim=(0, 2, 3)).clamp_min(1e-6).float()
    made = Autoencoder(network, data.info, shift, scale)
    again = made.decode(made.encode(data.test.images, execution), execution)
    meta = {
        **facts,
        "info": plain(data.info),
        "network": config_of(network),
        "shift": shift.tolist(),
        "scale": scale.tolist(),
        "psnr": psnr(data.test.images, again),
    }
    with new_artifact(path, KIND, meta) as writer:
        writer.write_tensors(_WEIGHTS, {name: tensor.cpu() for name, tensor in network.state_dict().items()})


def survives(
    autoencoder: Autoencoder, teachers: Sequence[Teacher], data: Dataset, execution: Execution
) -> tuple[float, float]:
    """How much of an image survives: the accuracy of teachers on the test images, and on what comes back of them."""
    again = autoencoder.decode(autoencoder.encode(data.test.images, execution), execution)
    seen = (confidences(teachers, images, data.info, execution) for images in (data.test.images, again))
    before, after = (agreement(one, data.test.targets) for one in seen)
    return before, after


def _identity(data: Dataset, config: AutoencoderConfig, seed: int, execution: Execution) -> dict[str, Any]:
    return {
        "config": plain(config),
        "revision": REVISION,
        "data": data.info.digest,
        "train": data.train.digest,
        "seed": seed,
        "execution": execution.identity,
    }


def _pretrained(folder: Path) -> nn.Module:
    diffusers = optional_package("diffusers", "generate", "of an autoencoder")
    try:
        name = json.loads((folder / "config.json").read_text())["_class_name"]
        if name not in ("AutoencoderKL", "VQModel"):
            raise ValueError(f"it holds a {name}")
        with torch.random.fork_rng(devices=[]):
            network, told = getattr(diffusers, name).from_pretrained(
                folder, local_files_only=True, output_loading_info=True
            )
            odd = [*told["missing_keys"], *told["unexpected_keys"]]
            if odd:
                raise ValueError(f"its weights do not fit, e.g. {odd[0]}")
            return channels_last(network)
    except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(
            f"There is no autoencoder at {folder} that diffusers can read ({error}). Give the folder of an "
            f"AutoencoderKL or VQModel with its config.json and weights, or of one that softlabel trained."
        ) from error
