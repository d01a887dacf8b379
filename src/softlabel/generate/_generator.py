"""A generator: an autoencoder, and a class-conditional denoiser of its latents (Rombach et al. 2022).

"Data-Efficient Generation for Dataset Distillation" (arXiv 2409.03929) trains such a model on the real images and makes
the distilled ones with few sampling steps. Its sizes are not public: ours are options, small enough for CPU cores.
"""

from collections.abc import Callable, Sequence
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
    TeacherMismatchError,
    UnknownNameError,
    build_config,
    fingerprint,
    plain,
    stream,
    stream_seed,
)
from softlabel.generate._coder import Autoencoder, autoencoder_of, load_weights
from softlabel.generate._denoiser import Denoiser, build_denoiser, denoiser_config
from softlabel.generate._diffusion import (
    SCHEDULES,
    check_sampling,
    guided,
    noised,
    run_sampler,
    start_of,
)
from softlabel.generate._processes import Processes
from softlabel.generate._steps import Course, Draws, StepLoss, train_steps
from softlabel.store import FileCheckpoint, Store, is_complete, new_artifact, read_artifact, require_same
from softlabel.training import Execution, Optimizer

KIND = "generator"
REVISION = 2
"""Part of every generator's identity: raised when a release trains other weights from the same settings."""
_DENOISER, _AUTOENCODER = "denoiser.safetensors", "autoencoder.safetensors"


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig:
    """How a denoiser is built and trained.

    Attributes:
        denoiser: see `DENOISERS`.
        schedule: see `SCHEDULES`.
        drop: share of the training in which the class is left out, for guidance.
        epochs, batch, lr, decay: of AdamW, over the latents of the training images.
        average: weight of the past in the moving average of the weights that generates.
        flip: mirror half of the images.
    """

    denoiser: str = "dit"
    schedule: str = "cosine"
    drop: float = 0.1
    epochs: int = 30
    batch: int = 128
    lr: float = 1e-3
    decay: float = 0.01
    average: float = 0.999
    flip: bool = True

    def __post_init__(self) -> None:
        denoiser_config(self.denoiser)
        if self.schedule not in SCHEDULES:
            raise UnknownNameError("noise schedule", self.schedule, SCHEDULES)
        if not 0 <= self.drop < 1:
            raise ConfigError(f"The share of dropped classes must lie in 0..1, below 1. Got {self.drop} instead.")
        self.course()

    def course(self) -> Course:
        optimizer = Optimizer(name="adamw", lr=self.lr, weight_decay=self.decay, betas=(0.9, 0.99), decay_on="matrices")
        return Course(epochs=self.epochs, batch=self.batch, optimizer=optimizer, average=self.average)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How images are made.

    Attributes:
        sampler: see `SAMPLERS`.
        steps: looks at the denoiser per image.
        guidance: 1 takes the class as it is, more exaggerates it, 0 leaves it out.
        batch: images made together; it changes them by rounding alone, but where they are moved away from each other.
    """

    sampler: str = "dpm++"
    steps: int = 10
    guidance: float = 2.0
    batch: int = 128

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ConfigError(f"Images are made in batches of 1 or more. Got {self.batch} instead.")


@dataclass(frozen=True, eq=False)
class Generator:
    """A trained generator, frozen and in evaluation mode.

    Attributes:
        info: the data it was trained on; its classes are the conditions.
        size: bytes of its weights, both networks'.
        train: digest of the split that it was trained on.
    """

    autoencoder: Autoencoder
    denoiser: Denoiser
    config: GeneratorConfig
    info: DatasetInfo
    fingerprint: str
    size: int
    train: str = ""

    def to(self, device: torch.device) -> "Generator":
        """This generator on `device`; moves the networks themselves."""
        self.autoencoder.to(device)
        self.denoiser.to(device)
        return self

    def noise(self, classes: Sequence[int], numbers: Sequence[int], seed: int) -> Tensor:
        """The noise that images begin with, [N, C, h, w]: each is drawn by its class and its number in the class.

        So the first images of a class are the same however many are made, and whatever the batch.
        """
        shape = self.autoencoder.latent_shape
        drawn = [
            torch.randn(shape, generator=stream(seed, "generate", label, number))
            for label, number in zip(classes, numbers, strict=True)
        ]
        return torch.stack(drawn)

    def latents(
        self,
        classes: Tensor,
        noise: Tensor,
        sampling: Sampling,
        execution: Execution,
        begin: Tensor | None = None,
        strength: float = 1.0,
        nudge: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Latents [N, C, h, w] of some classes, float32 on the CPU.

        Args:
            classes: int64 [N].
            noise: [N, C, h, w].
            begin: latents to begin from, noised up to `strength` of the way.
            nudge: changes what the denoiser told, given the latents, the time and that.
        """
        check_sampling(self.config.schedule, sampling.sampler, sampling.steps, sampling.guidance)
        device, schedule, none = execution.torch_device, self.config.schedule, self.info.classes
        found = []
        with torch.inference_mode(), execution.autocast(), execution.deterministic():
            for part in torch.arange(len(classes)).split(sampling.batch):
                wanted, start = classes[part].to(device), noise[part].to(device)
                if begin is not None:
                    start = start_of(
                        schedule, sampling.sampler, sampling.steps, begin[part].to(device), start, strength
                    )

                def tell(latents: Tensor, when: Tensor, wanted: Tensor = wanted) -> Tensor:
                    told = guided(self.denoiser, latents, when, wanted, none, sampling.guidance)
                    return told if nudge is None else nudge(latents, when, told)

                made = run_sampler(schedule, sampling.sampler, sampling.steps, start, tell, strength)
                found.append(made.float().cpu())
        return torch.cat(found).clone()

    def images(self, classes: Tensor, numbers: Tensor, sampling: Sampling, execution: Execution, seed: int) -> Tensor:
        """uint8 images [N, C, H, W] of some classes, each told by its class and number: equal for equal arguments."""
        noise = self.noise(classes.tolist(), numbers.tolist(), seed)
        return self.autoencoder.decode(self.latents(classes, noise, sampling, execution), execution)


def train_generator(
    data: Dataset,
    autoencoder: Autoencoder,
    config: GeneratorConfig,
    *,
    store: Store,
    execution: Execution,
    seed: int = 0,
    processes: Processes | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train a denoiser on the latents of the train split and keep it with the autoencoder; equal ones are found.

    Args:
        out: the artifact's folder; its place in the store by default.

    Raises:
        ConfigError: a denoiser that does not fit the latents, or a class without images.
        TeacherMismatchError: an autoencoder of other images.
        MissingExtraError: diffusers is not installed.
        StoreError: `out` holds another generator.
    """
    processes, progress = processes or Processes(), progress or Silent()
    check_generator(data, autoencoder, config)
    identity = _identity(data, autoencoder.fingerprint, config, execution, seed)
    place, key = generator_place(data, autoencoder.fingerprint, config, store=store, execution=execution, seed=seed)
    path = out or place
    if is_complete(path):
        require_same(path, "generator", read_artifact(path, KIND, verify=False).meta["fingerprint"], key)
        return path
    latents = _encoded(data, autoencoder.to(execution.torch_device), config, execution, progress)
    denoiser = build_denoiser(
        config.denoiser, autoencoder.latent_shape, data.info.classes, stream_seed(seed, "denoiser", "init")
    )
    checkpoint = FileCheckpoint(store.student(key))
    trained = train_steps(
        denoiser,
        denoising_loss(latents, data.train.targets, data.info.classes, config),
        len(data.train),
        config.course(),
        seed=stream_seed(seed, "denoiser"),
        execution=execution,
        processes=processes,
        checkpoint=checkpoint,
        tokens=latents.shape[-2] * latents.shape[-1],
        progress=progress,
        what=f"denoiser of {data.info.name}",
    )
    if processes.first:
        own = {name: tensor.cpu() for name, tensor in trained.network.state_dict().items()}
        coder = {name: tensor.cpu() for name, tensor in autoencoder.network.state_dict().items()}
        meta = {
            **identity,
            "fingerprint": key,
            "info": plain(data.info),
            "coder": autoencoder.meta,
            "losses": trained.losses,
            "train_seconds": trained.seconds,
        }
        with new_artifact(path, KIND, meta) as writer:
            writer.write_tensors(_DENOISER, own)
            writer.write_tensors(_AUTOENCODER, coder)
        checkpoint.clear()
    processes.wait()
    return path


def generator_place(
    data: Dataset, autoencoder: str, config: GeneratorConfig, *, store: Store, execution: Execution, seed: int = 0
) -> tuple[Path, str]:
    """Where `train_generator` keeps, or will keep, a generator on the autoencoder of that fingerprint, and its own."""
    key = fingerprint(_identity(data, autoencoder, config, execution, seed))
    return store.teacher(f"{data.info.name}-generator", key), key


def load_generator(path: Path) -> Generator:
    """The generator at `path`.

    Raises:
        StoreError: none there, a corrupt file, or weights of another architecture.
    """
    artifact = read_artifact(path, KIND)
    meta = artifact.meta
    config = build_config(GeneratorConfig, meta["config"], "the generator")
    info = DatasetInfo.from_json(meta["info"])
    coder = autoencoder_of(meta["coder"], artifact.tensors(_AUTOENCODER), path)
    denoiser = build_denoiser(config.denoiser, coder.latent_shape, info.classes, 0)
    load_weights(denoiser, artifact.tensors(_DENOISER), path)
    size = artifact.bytes_of(_DENOISER) + artifact.bytes_of(_AUTOENCODER)
    return Generator(coder, denoiser.requires_grad_(False), config, info, meta["fingerprint"], size, meta["train"])


def check_generator(data: Dataset, autoencoder: Autoencoder, config: GeneratorConfig) -> None:
    """Refuse what cannot be trained.

    Raises:
        ConfigError, TeacherMismatchError: see `train_generator`.
    """
    check_denoiser(data, autoencoder.latent_shape, config)
    if autoencoder.info.digest != data.info.digest:
        raise TeacherMismatchError(
            f"The autoencoder was trained, or its latents were measured, on other images than these of "
            f"{data.info.name}: {autoencoder.info.name} in {list(autoencoder.info.image_shape)}, here "
            f"{list(data.info.image_shape)}. Train one for them (softlabel generator), or give the data options that "
            f"it was trained with."
        )


def check_denoiser(data: Dataset, latents: tuple[int, int, int], config: GeneratorConfig) -> None:
    """Raise ConfigError for latents [C, h, w] that the denoiser cannot take, or too few images, or none of a class."""
    denoiser_config(config.denoiser).check(latents)
    check_batch(config.batch, data)
    empty = [name for name, n in zip(data.info.class_names, data.train.counts(data.info.classes), strict=True) if not n]
    if empty:
        raise ConfigError(
            f"The class {empty[0]!r} of {data.info.name} has no training images: nothing tells what to generate for it."
        )


def check_batch(batch: int, data: Dataset) -> None:
    """Raise ConfigError for a batch of more than all images."""
    if batch > len(data.train):
        raise ConfigError(
            f"A batch of {batch} is larger than the {len(data.train)} images of {data.info.name}. Choose a smaller one."
        )


def _identity(
    data: Dataset, autoencoder: str, config: GeneratorConfig, execution: Execution, seed: int
) -> dict[str, Any]:
    return {
        "config": plain(config),
        "revision": REVISION,
        "autoencoder": autoencoder,
        "data": data.info.digest,
        "train": data.train.digest,
        "classes": list(data.info.class_names),
        "seed": seed,
        "execution": execution.identity,
    }


def _encoded(
    data: Dataset, autoencoder: Autoencoder, config: GeneratorConfig, execution: Execution, progress: Progress
) -> Tensor:
    """Latents of the train split, [N, C, h, w], or with their mirror images [2, N, C, h, w]; in 16 bits."""
    progress.start(f"latents of {data.info.name}", 1 + config.flip)
    found = []
    for mirrored in (False, True)[: 1 + config.flip]:
        images = data.train.images.flip(3) if mirrored else data.train.images
        found.append(autoencoder.encode(images, execution).to(torch.float16))
        progress.advance()
    progress.finish()
    return torch.stack(found)


def denoising_loss(latents: Tensor, targets: Tensor, none: int, config: GeneratorConfig) -> StepLoss:
    """The squared error of what the denoiser tells of noised latents [1 or 2, N, C, h, w] (`_encoded`), by rows."""

    def loss(network: nn.Module, rows: Tensor, draws: Draws) -> Tensor:
        device = draws.device
        side = (draws.uniform() * len(latents)).long().cpu()
        clean = latents[side, rows].to(device, torch.float32)
        shown = noised(config.schedule, clean, draws.normal(*clean.shape[1:]), draws.uniform())
        classes = targets[rows].to(device)
        classes = torch.where(draws.uniform() < config.drop, none, classes)
        told = network(shown.latents, shown.times, classes)
        value: Tensor = (told - shown.target).square().mean()
        return value

    return loss
