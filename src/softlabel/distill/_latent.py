"""Images made by a latent diffusion model of the real ones (arXiv 2409.03929 and the generative methods since)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from softlabel.core import ConfigError, Dataset, Progress, TeacherMismatchError
from softlabel.distill._common import Images
from softlabel.generate import Choice, Generator, Sampling, check_sampling, choose_images, load_generator
from softlabel.store import read_artifact
from softlabel.training import Execution, Teacher


@dataclass(frozen=True, kw_only=True)
class LatentDiffusionConfig(Choice):
    """How a generator makes a set.

    Attributes:
        generator: folder of a generator (softlabel generator).
        sampler, steps, guidance, batch: see `softlabel.generate.Sampling`.
    """

    generator: str = ""
    sampler: str = Sampling.sampler
    steps: int = Sampling.steps
    guidance: float = Sampling.guidance
    batch: int = Sampling.batch

    @property
    def sampling(self) -> Sampling:
        return Sampling(sampler=self.sampler, steps=self.steps, guidance=self.guidance, batch=self.batch)


def latent_diffusion(
    config: LatentDiffusionConfig,
    data: Dataset,
    teachers: Sequence[Teacher],
    *,
    ipc: int,
    generator: torch.Generator,
    execution: Execution,
    progress: Progress,
) -> Images:
    """Make `ipc` images per class with the generator, and choose them as `softlabel.generate.choose_images` has it.

    The first images of a class are the same for every `ipc` where they come as they are: sets of one seed are nested.

    Raises:
        ConfigError: a choice that needs a teacher, without one.
    """
    if config.needs_teacher and not teachers:
        raise ConfigError("The choice how=best asks a teacher. Give one (softlabel teach), or take how=plain.")
    made = _loaded(config).to(execution.torch_device)
    seed = int(torch.randint(2**62, (), generator=generator))
    found = choose_images(
        made,
        data,
        config.sampling,
        config,
        ipc=ipc,
        seed=seed,
        execution=execution,
        teachers=teachers,
        progress=progress,
    )
    return Images(
        images=found.images,
        targets=torch.arange(data.info.classes).repeat_interleave(ipc),
        provenance={
            "generator": made.fingerprint,
            "samples": found.numbers.tolist(),
        },
        weights=found.weights,
    )


def check_latent_diffusion(config: LatentDiffusionConfig, data: Dataset, ipc: int) -> None:
    """Refuse what cannot be made: no generator, or one of other data (TeacherMismatchError), or odd sampling."""
    made = _loaded(config)
    check_sampling(made.config.schedule, config.sampler, config.steps, config.guidance)
    own, theirs = data.info, made.info
    if own.class_names != theirs.class_names or own.image_shape != theirs.image_shape:
        raise TeacherMismatchError(
            f"The generator at {config.generator} makes {len(theirs.class_names)} classes of {theirs.name} in "
            f"{list(theirs.image_shape)}, and {own.name} has {len(own.class_names)} in {list(own.image_shape)}. Train "
            f"one on this data (softlabel generator), or give the data options that it was trained with."
        )


def fingerprints_read(config: LatentDiffusionConfig) -> dict[str, str]:
    """The generator's fingerprint, in place of where it stands."""
    _require_path(config)
    return {"generator": str(read_artifact(Path(config.generator), "generator", verify=False).meta["fingerprint"])}


def _loaded(config: LatentDiffusionConfig) -> Generator:
    _require_path(config)
    return load_generator(Path(config.generator))


def _require_path(config: LatentDiffusionConfig) -> None:
    if not config.generator:
        raise ConfigError(
            "The method 'latent-diffusion' needs a generator: train one with softlabel generator, and say "
            "latent-diffusion:generator=FOLDER."
        )
