"""Images made by a latent diffusion model of the real ones (arXiv 2409.03929 and the generative methods since)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from softlabel.core import (
    ConfigError,
    Dataset,
    Progress,
    TeacherMismatchError,
    build_config,
    format_spec,
    parse_spec,
)
from softlabel.distill._common import Images, check_ipc
from softlabel.generate import Choice, Generator, Sampling, check_sampling, choose_images, load_generator
from softlabel.store import read_artifact
from softlabel.training import Execution, Teacher

NAME = "latent-diffusion"


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
    check_choice(config, made.config.schedule, data, ipc)
    own, theirs = data.info, made.info
    if own.class_names != theirs.class_names or own.image_shape != theirs.image_shape:
        raise TeacherMismatchError(
            f"The generator at {config.generator} makes {len(theirs.class_names)} classes of {theirs.name} in "
            f"{list(theirs.image_shape)}, and {own.name} has {len(own.class_names)} in {list(own.image_shape)}. Train "
            f"one on this data (softlabel generator), or give the data options that it was trained with."
        )
    if made.train != data.train.digest and data.selection is not None:
        raise TeacherMismatchError(
            f"The generator at {config.generator} was trained on other images of {own.name} than those that are left "
            f"beside the selection split: it may have seen what is chosen by. Train one with the same --selection."
        )


def check_choice(config: LatentDiffusionConfig, schedule: str, data: Dataset, ipc: int) -> None:
    """Refuse sampling that does not go with a generator's schedule, and more prototypes than a class has images.

    Raises:
        UnknownNameError, ConfigError: as `check_sampling`.
        DistillError: too few images.
    """
    check_sampling(schedule, config.sampler, config.steps, config.guidance)
    if config.how == "prototypes":
        check_ipc(config, data, ipc)


def fingerprints_read(config: LatentDiffusionConfig) -> dict[str, str]:
    """The generator's fingerprint, in place of where it stands."""
    _require_path(config)
    return {"generator": str(read_artifact(Path(config.generator), "generator", verify=False).meta["fingerprint"])}


def needs_generator(spec: str) -> bool:
    """Whether a method's spec asks for a generator and names none."""
    # Somebody's own method is written package.module:function, which holds no options yet.
    return spec.partition(":")[0].strip() == NAME and not parse_spec(spec)[1].get("generator")


def with_generator(spec: str, generator: Path) -> str:
    """A method's spec with this generator, where it asks for one and names none."""
    if not needs_generator(spec):
        return spec
    if "," in str(generator):
        raise ConfigError(f"A spec cannot name a folder with a comma: {generator}. Choose another --store or --out.")
    name, options = parse_spec(spec)
    return format_spec(name, {**options, "generator": str(generator)})


def latent_config(spec: str) -> LatentDiffusionConfig:
    """The settings of a spec.

    Raises:
        ConfigError: another method, or an option that does not exist.
    """
    name, options = parse_spec(spec)
    if name != NAME:
        raise ConfigError(f"Images are generated by the method {NAME}. Got {spec!r}.")
    return build_config(LatentDiffusionConfig, options, f"the method {NAME!r}")


def plain_sampling(spec: str) -> tuple[Path, Sampling]:
    """The generator (empty where none is named) and the sampling of a spec for images as they come.

    Raises:
        ConfigError: as `latent_config`, or images that are chosen.
    """
    config = latent_config(spec)
    if config.how != "plain" or config.represent or config.diverse:
        raise ConfigError(f"Within a time images are taken as they come. Leave the choice out of {spec!r}.")
    return Path(config.generator), config.sampling


def _loaded(config: LatentDiffusionConfig) -> Generator:
    _require_path(config)
    return load_generator(Path(config.generator))


def _require_path(config: LatentDiffusionConfig) -> None:
    if not config.generator:
        raise ConfigError(
            "The method 'latent-diffusion' needs a generator: train one with softlabel generator, and say "
            "latent-diffusion:generator=FOLDER."
        )
