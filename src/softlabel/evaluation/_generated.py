"""Generators as part of a story, and families of sets of as many generated images as a time allows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from softlabel.core import ConfigError, Dataset, DistilledSet, Progress, Silent, fingerprint, plain
from softlabel.distill import check_choice, latent_config, plain_sampling, with_generator
from softlabel.evaluation._comparison import SetPaths
from softlabel.generate import (
    AutoencoderConfig,
    Generator,
    GeneratorConfig,
    Sampling,
    check_generator_options,
    check_sampling,
    generate_within,
    load_autoencoder,
    load_generator,
    train_autoencoder,
    train_generator,
)
from softlabel.store import Store, check_storage, is_complete, load_distilled, require_same, save_distilled
from softlabel.training import Execution


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions:
    """A generator to be trained (or found) for the story."""

    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    denoiser: GeneratorConfig = field(default_factory=GeneratorConfig)
    seed: int = 0

    def check(self, data: Dataset, methods: Sequence[tuple[str, int]] = ()) -> None:
        """Refuse data that no such generator can be trained on, and sets that it cannot make.

        Args:
            methods: specs of sets that it is to make, and their images per class.

        Raises:
            ConfigError, DistillError.
        """
        check_generator_options(data, self.autoencoder, self.denoiser)
        for method, ipc in methods:
            check_choice(latent_config(method), self.denoiser.schedule, data, ipc)


@dataclass(frozen=True, kw_only=True)
class TimedSet:
    """A family of sets of as many generated images as a time allows, made anew for every seed.

    Attributes:
        method: of plain images, as in `latent-diffusion:steps=6`; its generator is the story's where it names none.
        seconds: for the sampling of one set.
    """

    name: str
    method: str
    seconds: float
    storage: str = "png"

    def __post_init__(self) -> None:
        plain_sampling(self.method)
        check_storage(self.storage)
        if not 0 < self.seconds < math.inf:
            raise ConfigError(f"A time budget takes seconds above 0, and an end. Got {self.seconds:g}.")


def keep_generator(
    options: GeneratorOptions,
    data: Dataset,
    store: Store,
    execution: Execution,
    progress: Progress | None = None,
) -> Path:
    """The artifact of the generator; an equal one is found, an interrupted training goes on."""
    coder = train_autoencoder(
        data, options.autoencoder, store=store, execution=execution, seed=options.seed, progress=progress,
    )  # fmt: skip
    return train_generator(
        data, load_autoencoder(coder), options.denoiser, store=store, execution=execution, seed=options.seed,
        progress=progress,
    )  # fmt: skip


def timed_path(options: TimedSet, generator: Path, seed: int, store: Store, execution: Execution) -> Path:
    """Where `keep_timed` keeps, or will keep, the set of one seed."""
    return _timed(options, generator, seed, store, execution)[0]


def keep_timed(
    options: TimedSet,
    generator: Path | None,
    seed: int,
    store: Store,
    execution: Execution,
    *,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """The artifact of one timed set; one made under equal settings is found, though another time might give another.

    Args:
        generator: for a method that names none.
        out: the artifact's folder; its place in the store by default.

    Raises:
        ConfigError: a time that is too short for a batch, or a sampler that does not fit the generator.
        StoreError: `out` holds another set.
    """
    place, key, made, sampling = _timed(options, generator, seed, store, execution)
    place = out or place
    if is_complete(place):
        require_same(place, "distilled set", load_distilled(place).provenance.get("key", ""), key)
        return place
    images = generate_within(
        made.to(execution.torch_device), sampling, options.seconds, seed=seed, execution=execution,
        progress=progress or Silent(),
    )  # fmt: skip
    ipc = len(images) // made.info.classes
    distilled = DistilledSet(
        images=images,
        targets=torch.arange(made.info.classes).repeat_interleave(ipc),
        info=made.info,
        method="latent-diffusion",
        ipc=ipc,
        seed=seed,
        provenance={
            "generator": made.fingerprint,
            "sampling": plain(sampling),
            "seconds": options.seconds,
            "key": key,
        },
    )
    save_distilled(distilled, place, options.storage)
    return place


def _timed(
    options: TimedSet, generator: Path | None, seed: int, store: Store, execution: Execution
) -> tuple[Path, str, Generator, Sampling]:
    """Place and key of one timed set, and what makes it."""
    path, sampling = plain_sampling(options.method if generator is None else with_generator(options.method, generator))
    made = load_generator(path)
    check_sampling(made.config.schedule, sampling.sampler, sampling.steps, sampling.guidance)
    key = fingerprint(
        "generated", made.fingerprint, plain(sampling), options.seconds, seed, options.storage, execution.identity
    )
    return store.distilled(f"{made.info.name}-generated-{options.seconds:g}s-s{seed}", key), key, made, sampling


def timed_family(
    options: TimedSet,
    generator: Path | None,
    seeds: Sequence[int],
    store: Store,
    execution: Execution,
    progress: Progress | None = None,
) -> SetPaths:
    """The sets of a timed family, one per seed."""
    made = ((seed, keep_timed(options, generator, seed, store, execution, progress=progress)) for seed in seeds)
    return SetPaths(options.name, tuple(made))
