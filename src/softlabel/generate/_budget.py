"""As many images as a time allows: the rule of the generative track of the ECCV 2024 dataset-distillation challenge."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from softlabel.core import ConfigError, Progress, human_seconds
from softlabel.generate._generator import Generator, Sampling
from softlabel.training import Execution


def generate_within(
    generator: Generator,
    sampling: Sampling,
    seconds: float,
    *,
    seed: int,
    execution: Execution,
    progress: Progress,
    clock: Callable[[], float] = time.monotonic,
) -> Tensor:
    """uint8 images [classes * ipc, C, H, W], class after class, of as many per class as were made in so many seconds.

    Batches go around the classes, so that all have the same number (what the last round left incomplete is dropped). A
    batch that would end too late, by the longest one so far, is not begun. The images are those that
    `Generator.images` gives for the same seed: the time decides how many there are, and nothing else.

    Raises:
        ConfigError: not one batch, or not one image of every class, fits into the time. Two batches that are not
            counted are made to tell.
    """
    if seconds <= 0:
        raise ConfigError(f"A time budget takes seconds above 0. Got {seconds:g}.")
    classes = generator.info.classes

    def batch(first: int) -> Tensor:
        places = torch.arange(first, first + sampling.batch)
        return generator.images(places % classes, places // classes, sampling, execution, seed)

    batch(0)  # the first of a process takes longer than all others
    began = clock()
    batch(0)
    longest = clock() - began
    if longest > seconds:
        raise ConfigError(
            f"A budget of {seconds:g} s is too short for one batch of {sampling.batch} images, which took "
            f"{human_seconds(longest)}. Allow more time, or take fewer steps or a smaller batch."
        )
    began = clock()
    found: list[Tensor] = []
    progress.start(f"images of {generator.info.name}", round(seconds))
    told = 0
    while (spent := clock() - began) + longest <= seconds:
        found.append(batch(len(found) * sampling.batch))
        longest = max(longest, clock() - began - spent)
        now = min(round(seconds), round(clock() - began))
        progress.advance(now - told, note=f"{len(found) * sampling.batch:,} images")
        told = now
    progress.advance(round(seconds) - told)
    progress.finish()
    images = torch.cat(found) if found else torch.empty(0)
    ipc = len(images) // classes
    if ipc < 1:
        raise ConfigError(
            f"A budget of {seconds:g} s gave {len(images)} images, and there are {classes} classes. Allow "
            f"more time, or take fewer steps."
        )
    by_class = images[: ipc * classes].view(ipc, classes, *images.shape[1:])
    return by_class.transpose(0, 1).flatten(0, 1).contiguous()
