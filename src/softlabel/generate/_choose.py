"""From samples to a set: as they come, the best of many, or around prototypes of the real images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from softlabel.core import ConfigError, Dataset, Progress, UnknownNameError, stream_seed
from softlabel.generate._diffusion import clean_of, told_of
from softlabel.generate._generator import Generator, Sampling
from softlabel.generate._measures import confidences
from softlabel.training import Execution, Teacher

CHOICES = {
    "plain": "as they come",
    "best": "of several candidates per image, those that a teacher takes for their class",
    "prototypes": "begun at the centres of clusters of the class's real latents, each image with its cluster's weight",
}
PICKS = {
    "auto": "easy up to 10 images per class, hard above",
    "easy": "the candidates that the teacher is surest of",
    "hard": "those that it is least sure of, and still right",
}
EASY_UP_TO = 10
KMEANS_BATCH = 1024


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Which samples make a set.

    Attributes:
        how: see `CHOICES`.
        candidates: samples per image, of `best`.
        pick: see `PICKS`, of `best`.
        strength: share of the way from noise that prototypes are sent back, of `prototypes`.
        represent, diverse: how far every step moves the images towards the real latent of their class that they are
            least like, and away from the image of their class and batch that they are most like; 0 leaves them alone.
    """

    how: str = "plain"
    candidates: int = 4
    pick: str = "auto"
    strength: float = 0.7
    represent: float = 0.0
    diverse: float = 0.0

    def __post_init__(self) -> None:
        if self.how not in CHOICES:
            raise UnknownNameError("choice of samples", self.how, CHOICES)
        if self.pick not in PICKS:
            raise UnknownNameError("pick of candidates", self.pick, PICKS)
        if self.candidates < 1:
            raise ConfigError(f"Images are chosen among 1 candidate or more. Got candidates={self.candidates}.")
        if not 0 < self.strength <= 1:
            raise ConfigError(f"A strength lies above 0, and up to 1. Got strength={self.strength:g}.")
        for name in ("represent", "diverse"):
            if getattr(self, name) < 0:
                raise ConfigError(f"Images are moved by shares of 0 or more. Got {name}={getattr(self, name):g}.")
        for name, how in (("candidates", "best"), ("pick", "best"), ("strength", "prototypes")):
            if self.how != how and getattr(self, name) != getattr(Choice, name):
                raise ConfigError(f"The option {name} is for how={how}, and here how={self.how}. Change one of them.")

    @property
    def needs_teacher(self) -> bool:
        return self.how == "best"

    @property
    def samples(self) -> int:
        """How many are made for one image."""
        return self.candidates if self.how == "best" else 1


@dataclass(frozen=True)
class Chosen:
    """Images of a set, class after class.

    Attributes:
        images: uint8 [classes * ipc, C, H, W].
        weights: float32 [classes * ipc], of mean 1 within each class; None where all count alike.
        numbers: of the samples within their class, int64 [classes * ipc].
    """

    images: Tensor
    weights: Tensor | None
    numbers: Tensor


def choose_images(
    generator: Generator,
    data: Dataset,
    sampling: Sampling,
    choice: Choice,
    *,
    ipc: int,
    seed: int,
    execution: Execution,
    teachers: Sequence[Teacher] = (),
    progress: Progress,
) -> Chosen:
    """Make `ipc` images per class.

    "best" follows CaO2 (ICCV 2025): of `candidates` x ipc samples those that a teacher takes for their class, the
    surest first where images are few, the least sure where they are many; wrong ones only where right ones run out.
    "prototypes" follows D4M (CVPR 2024), and DDOQ (2501.07681) in keeping its cluster's share as an image's weight.
    The nudges carry the two aims of Minimax Diffusion (CVPR 2024), which it trains for, into the sampling: ours.
    """
    progress.start(f"images of {generator.info.name}", generator.info.classes)
    parts = []
    for label in range(generator.info.classes):
        own = (data.train.targets == label).nonzero().flatten()
        real = None
        if choice.how == "prototypes" or choice.represent:
            real = generator.autoencoder.encode(data.train.images[own], execution)
        parts.append(_of_class(label, real, generator, sampling, choice, ipc, seed, execution, teachers))
        progress.advance()
    progress.finish()
    weights = [part.weights for part in parts if part.weights is not None]
    return Chosen(
        images=torch.cat([part.images for part in parts]),
        weights=torch.cat(weights) if weights else None,
        numbers=torch.cat([part.numbers for part in parts]),
    )


def _of_class(
    label: int,
    real: Tensor | None,
    generator: Generator,
    sampling: Sampling,
    choice: Choice,
    ipc: int,
    seed: int,
    execution: Execution,
    teachers: Sequence[Teacher],
) -> Chosen:
    count = ipc * choice.samples
    classes, numbers = torch.full((count,), label), torch.arange(count)
    noise = generator.noise(classes.tolist(), numbers.tolist(), seed)
    begin, weights, strength = None, None, 1.0
    if choice.how == "prototypes" and real is not None:
        begin, weights = prototypes(real, ipc, stream_seed(seed, "prototypes", label))
        strength = choice.strength
    nudge = _nudge(generator, choice, real) if choice.represent or choice.diverse else None
    latents = generator.latents(classes, noise, sampling, execution, begin, strength, nudge)
    images = generator.autoencoder.decode(latents, execution)
    if choice.how == "best":
        sure = confidences(teachers, images, generator.info, execution)
        numbers = best_of(sure, label, ipc, choice.pick)
        images = images[numbers]
    return Chosen(images, weights, numbers)


def best_of(probabilities: Tensor, label: int, ipc: int, pick: str) -> Tensor:
    """Positions [ipc] of candidates with probabilities [M, classes]: right ones first, by how sure the teacher is."""
    own = probabilities[:, label]
    right = probabilities.argmax(dim=1) == label
    easy = pick == "easy" or (pick == "auto" and ipc <= EASY_UP_TO)
    # Wrong ones come after all right ones, the surest of them first.
    rank = torch.where(right, -own if easy else own, 2 - own)
    return rank.argsort(stable=True)[:ipc]


def prototypes(latents: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Centres [count, C, h, w] of clusters of latents [N, C, h, w], and their shares times `count`, of mean 1.

    Raises:
        ConfigError: fewer latents than clusters.
    """
    if len(latents) < count:
        raise ConfigError(f"{count} prototypes need as many real images of each class, and one has {len(latents)}.")
    from sklearn.cluster import MiniBatchKMeans  # slow to import

    flat = latents.flatten(1).numpy().astype(np.float64)
    found = MiniBatchKMeans(count, random_state=seed % 2**32, n_init=3, batch_size=KMEANS_BATCH).fit(flat)
    centres = torch.from_numpy(found.cluster_centers_).float().view(count, *latents.shape[1:])
    shares = torch.bincount(torch.from_numpy(found.labels_).long(), minlength=count).float() / len(latents)
    return centres, shares * count


def _nudge(generator: Generator, choice: Choice, real: Tensor | None) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    schedule = generator.config.schedule

    def nudge(latents: Tensor, time: Tensor, told: Tensor) -> Tensor:
        clean = clean_of(schedule, latents, time, told)
        moved = min_max(clean, None if real is None else real.to(clean.device), choice.represent, choice.diverse)
        return told_of(schedule, latents, time, moved)

    return nudge


def min_max(clean: Tensor, real: Tensor | None, represent: float, diverse: float) -> Tensor:
    """Latents [B, C, h, w] moved along the slopes of Minimax Diffusion's two aims, by shares of their own length.

    Each goes up the slope of its cosine to the real latent that it is least like (times `represent`), and down that of
    its cosine to the other one of the batch that it is most like (times `diverse`).
    """
    flat = clean.flatten(1)
    length = flat.norm(dim=1, keepdim=True).clamp_min(1e-6)
    unit = flat / length
    move = torch.zeros_like(flat)
    if represent and real is not None:
        others = torch.nn.functional.normalize(real.flatten(1), dim=1)
        least = others[(unit @ others.T).argmin(dim=1)]
        move += represent * _slope(unit, least)
    if diverse and len(flat) > 1:
        alike = unit @ unit.T
        alike.fill_diagonal_(-torch.inf)
        most = unit[alike.argmax(dim=1)]
        move -= diverse * _slope(unit, most)
    moved: Tensor = (flat + length * move).view_as(clean)
    return moved


def _slope(unit: Tensor, other: Tensor) -> Tensor:
    """The slope of the cosine of vectors to others, times their length."""
    slope: Tensor = other - (unit * other).sum(dim=1, keepdim=True) * unit
    return slope
