"""Whether a generator can be trained on some data, and how long that and its images will take: told before work."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from softlabel.core import Dataset, fingerprint
from softlabel.generate._autoencoder import (
    AutoencoderConfig,
    Reconstruction,
    adopted_identity,
    autoencoder_place,
    build_autoencoder,
    load_autoencoder,
    pretrained_autoencoder,
    reconstruction_loss,
)
from softlabel.generate._coder import Autoencoder, config_of
from softlabel.generate._denoiser import build_denoiser
from softlabel.generate._generator import (
    Generator,
    GeneratorConfig,
    Sampling,
    check_batch,
    check_denoiser,
    check_generator,
    denoising_loss,
    generator_place,
)
from softlabel.generate._steps import Course, StepLoss, train_steps
from softlabel.store import Store, is_complete, read_artifact, require_same
from softlabel.training import Execution

BYTES_PER_WEIGHT = 4


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a generator will take.

    Attributes:
        coder_seconds, denoiser_seconds: of their trainings.
        coder_bytes, bytes: of the autoencoder's weights, and of both networks'.
        look_seconds, decode_seconds: of one image, per look of the denoiser and for turning latents into it.
    """

    coder_seconds: float
    denoiser_seconds: float
    coder_bytes: int
    bytes: int
    look_seconds: float
    decode_seconds: float

    def sampling_seconds(self, sampling: Sampling, images: int) -> float:
        """Of so many images; guidance looks twice."""
        looks = sampling.steps * (1 if sampling.guidance in (0, 1) else 2)
        return images * (looks * self.look_seconds + self.decode_seconds)


def check_generator_options(data: Dataset, coder: AutoencoderConfig, config: GeneratorConfig) -> None:
    """Refuse what cannot be trained, before anything is.

    Raises:
        ConfigError: images that cannot be halved so often, a denoiser that does not fit the latents, or a class
            without images, or fewer images than a batch.
    """
    coder.check(data.info)
    check_batch(coder.batch, data)
    check_denoiser(data, _latent_shape(data, coder), config)


def generator_places(
    data: Dataset, coder: AutoencoderConfig, config: GeneratorConfig, *, store: Store, execution: Execution,
    seed: int = 0, out: Path | None = None,
) -> tuple[Path, Path]:  # fmt: skip
    """Where an autoencoder and a generator on it stand, or will stand: `out`, or a place in the store.

    Raises:
        StoreError: `out` holds something else.
    """
    first, key = autoencoder_place(data, coder, store=store, execution=execution, seed=seed)
    return first, place_on(data, key, config, store=store, execution=execution, seed=seed, out=out)


def place_on(
    data: Dataset, autoencoder: str, config: GeneratorConfig, *, store: Store, execution: Execution, seed: int = 0,
    out: Path | None = None,
) -> Path:  # fmt: skip
    """Where a generator on the autoencoder of that fingerprint stands, or will stand; raises as `generator_places`."""
    place, key = generator_place(data, autoencoder, config, store=store, execution=execution, seed=seed)
    if out is not None and is_complete(out):
        require_same(out, "generator", read_artifact(out, "generator", verify=False).meta["fingerprint"], key)
    return out or place


@dataclass(frozen=True)
class GivenAutoencoder:
    """An autoencoder that need not be trained.

    Attributes:
        latent_shape: channels, height and width of its latents of some data.
        fingerprint: by which a generator on it names it.
        size: bytes of its weights.
    """

    latent_shape: tuple[int, int, int]
    fingerprint: str
    size: int


def given_autoencoder(data: Dataset, folder: Path, config: GeneratorConfig, execution: Execution) -> GivenAutoencoder:
    """What stands at `folder`: an autoencoder trained here, or one pretrained elsewhere.

    Raises:
        StoreError: no autoencoder, or a damaged one.
        ConfigError, TeacherMismatchError: as `adopt_autoencoder` and `check_generator`.
    """
    if is_complete(folder):
        made = load_autoencoder(folder)
        check_generator(data, made, config)
        return GivenAutoencoder(made.latent_shape, made.fingerprint, made.size)
    network = pretrained_autoencoder(folder, data)
    built = config_of(network)
    factor = 2 ** (len(built["block_out_channels"]) - 1)
    shape = int(built["latent_channels"]), data.info.height // factor, data.info.width // factor
    check_denoiser(data, shape, config)
    return GivenAutoencoder(shape, fingerprint(adopted_identity(network, data, execution)), _bytes(network))


def forecast_generator(
    data: Dataset, coder: AutoencoderConfig, config: GeneratorConfig, execution: Execution
) -> Forecast:
    """Measured on a few steps of fresh networks."""
    shape, classes, train = _latent_shape(data, coder), data.info.classes, data.train
    network = build_autoencoder(coder, data.info, 0)
    coder_step = _step_seconds(
        Reconstruction(network, coder), reconstruction_loss(data, coder), len(train), coder.course(), execution
    )
    denoiser = build_denoiser(config.denoiser, shape, classes, 0)
    denoiser_seconds = _denoiser_seconds(denoiser, shape, data, config, execution)
    batch = Sampling().batch
    made = Autoencoder(network.eval(), data.info, torch.zeros(shape[0]), torch.ones(shape[0]))
    noise, when, wanted = torch.randn(batch, *shape), torch.full((batch,), 0.5), torch.zeros(batch, dtype=torch.int64)
    device = execution.torch_device
    told = (noise.to(device), when.to(device), wanted.to(device))

    def look() -> None:
        with torch.inference_mode(), execution.autocast():
            denoiser(*told)

    return Forecast(
        coder_seconds=coder.epochs * (len(train) // coder.batch) * coder_step,
        denoiser_seconds=denoiser_seconds,
        coder_bytes=_bytes(network),
        bytes=_bytes(network) + _bytes(denoiser),
        look_seconds=_seconds(look) / batch,
        decode_seconds=_seconds(lambda: made.decode(noise, execution)) / batch,
    )


def forecast_denoiser(
    data: Dataset, shape: tuple[int, int, int], config: GeneratorConfig, execution: Execution
) -> tuple[float, int]:
    """Seconds of training and bytes of weights of a denoiser of latents [C, h, w] alone."""
    denoiser = build_denoiser(config.denoiser, shape, data.info.classes, 0)
    return _denoiser_seconds(denoiser, shape, data, config, execution), _bytes(denoiser)


def _denoiser_seconds(
    denoiser: nn.Module, shape: tuple[int, int, int], data: Dataset, config: GeneratorConfig, execution: Execution
) -> float:
    latents = torch.zeros(1, len(data.train), *shape, dtype=torch.float16)
    loss = denoising_loss(latents, data.train.targets, data.info.classes, config)
    step = _step_seconds(denoiser, loss, len(data.train), config.course(), execution, shape[1] * shape[2])
    return config.epochs * (len(data.train) // config.batch) * step


def _bytes(network: nn.Module) -> int:
    weights: int = sum(tensor.numel() for tensor in network.state_dict().values())
    return weights * BYTES_PER_WEIGHT


def image_seconds(generator: Generator, sampling: Sampling, execution: Execution) -> float:
    """What one of a batch of images takes, measured."""
    made, classes = generator.to(execution.torch_device), torch.arange(sampling.batch) % generator.info.classes
    return _seconds(lambda: made.images(classes, classes, sampling, execution, 0)) / sampling.batch


def _latent_shape(data: Dataset, coder: AutoencoderConfig) -> tuple[int, int, int]:
    return coder.channels, data.info.height // coder.factor, data.info.width // coder.factor


def _step_seconds(
    network: nn.Module, loss: StepLoss, images: int, course: Course, execution: Execution, tokens: int = 0
) -> float:
    """Of one step: the second of two short trainings counts."""
    steps = min(2, images // course.batch)
    short, examples = replace(course, epochs=1), steps * course.batch
    done = [train_steps(network, loss, examples, short, seed=0, execution=execution, tokens=tokens) for _ in range(2)]
    network.eval()
    return done[-1].seconds / steps


def _seconds(work: Callable[[], Tensor | None]) -> float:
    """Of the second time that `work` is done, to its end on a GPU too."""
    for _ in range(2):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent = time.perf_counter() - began
    return spent
