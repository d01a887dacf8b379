"""HeLlO's image-level update (arXiv 2408.08201): small patches changed so that the labeler sees in them what it sees in
the originals."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import ConfigError, Dataset, DistilledSet, DistillError, Progress, Silent, plain
from softlabel.distill._rded import mosaic
from softlabel.training import Execution, Normaliser
from softlabel.views import crop_resize

Features = Callable[[Tensor], Tensor]
"""What a labeler sees: [B, D] of normalised images [B, C, H, W]."""


@dataclass(frozen=True, kw_only=True)
class ImageUpdate:
    """How patches are updated. The paper tells neither steps nor rate: these are ours.

    Attributes:
        steps: of Adam.
        lr: its rate, for pixels in 0..1.
        batch: patches at once.
    """

    steps: int = 100
    lr: float = 0.01
    batch: int = 256

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1 or not self.lr > 0:
            raise ConfigError(
                f"Updating images takes steps and a batch of 1 or more and a rate above 0. Got {self.steps}, "
                f"{self.batch} and {self.lr}."
            )


def update_images(
    distilled: DistilledSet,
    data: Dataset,
    features: Features,
    update: ImageUpdate,
    *,
    execution: Execution,
    progress: Progress | None = None,
) -> DistilledSet:
    """Change the stored patches q so that `features` of q, enlarged, come closer to those of the original crop p.

    Per patch, the mean over features of (features(p) - features(up(q)))^2 is lowered by Adam on the pixels of q, where
    p is the crop as large as the image, and up enlarges bilinearly. A patch whose rounded pixels are no closer than
    before stays as it was. All in float32; nothing is drawn.

    Args:
        distilled: made by RDED with a factor of 2 or more from the train split of `data`.
        features: of a labeler, e.g. `Projector.features`.

    Returns:
        the set with other pixels; its provenance tells the mean distances before and after.

    Raises:
        DistillError: the set does not consist of smaller patches, or not of this data.
    """
    progress = progress or Silent()
    patches, originals = _patches(distilled, data)
    device, height, width = execution.torch_device, distilled.info.height, distilled.info.width
    normalise = Normaliser(distilled.info, device)
    progress.start(f"patches of {distilled.method}, IPC {distilled.ipc}", len(patches))
    found, before, after = [], 0.0, 0.0
    with execution.deterministic():
        for small, large in zip(patches.split(update.batch), originals.split(update.batch), strict=True):
            with torch.no_grad():
                seen = features(normalise(large))
            moved, was, now = _moved(small.to(device), (height, width), seen, features, normalise, update)
            found.append(moved.cpu())
            before, after = before + was, after + now
            progress.advance(len(small), note=f"distance {after / sum(map(len, found)):.3g}")
    progress.finish()
    told = {**plain(update), "before": before / len(patches), "after": after / len(patches)}
    return replace(
        distilled,
        images=_assembled(torch.cat(found), distilled),
        provenance={**distilled.provenance, "update": told},
    )


def _moved(
    small: Tensor,
    size: tuple[int, int],
    seen: Tensor,
    features: Features,
    normalise: Normaliser,
    update: ImageUpdate,
) -> tuple[Tensor, float, float]:
    """Patches of a batch after the update, uint8, and the sums of their distances before and after."""

    def distance(pixels: Tensor) -> Tensor:
        large = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
        return (features(normalise(large)) - seen).square().mean(dim=1)

    pixels = (small.float() / 255).requires_grad_()
    adam = torch.optim.Adam([pixels], lr=update.lr)
    for _ in range(update.steps):
        adam.zero_grad(set_to_none=True)
        distance(255 * pixels).sum().backward()
        adam.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    with torch.no_grad():
        rounded = (255 * pixels).round()
        was, now = distance(small.float()), distance(rounded)
        better = now < was
        chosen = torch.where(better.view(-1, 1, 1, 1), rounded, small.float()).to(torch.uint8)
    return chosen, float(was.sum()), float(torch.where(better, now, was).sum())


def _patches(distilled: DistilledSet, data: Dataset) -> tuple[Tensor, Tensor]:
    """The stored patches of all classes by rank, uint8 [M, C, h, w], and the same crops as large as the images."""
    factor, told = distilled.factor, distilled.provenance
    if factor < 2 or "boxes_by_rank" not in told:
        raise DistillError(
            f"An update of images needs patches that were made smaller: a set by rded with a factor of 2 or more. This "
            f"one was made by {distilled.method}."
        )
    height, width = distilled.info.height, distilled.info.width
    index = torch.tensor(told["train_indices_by_rank"]).flatten()
    boxes = torch.tensor(told["boxes_by_rank"]).view(-1, 4)
    if int(index.max()) >= len(data.train):
        raise _other_data(distilled, data)
    images = data.train.images[index].float()
    small, large = (
        crop_resize(images, boxes, (height // by, width // by), antialias=True).round().clamp(0, 255).to(torch.uint8)
        for by in (factor, 1)
    )
    again = _assembled(small, distilled)
    if again.shape != distilled.images.shape or int((again.int() - distilled.images.int()).abs().max()) > 1:
        raise _other_data(distilled, data)  # one level apart: another device may round so
    return small, large


def _assembled(patches: Tensor, distilled: DistilledSet) -> Tensor:
    """The mosaics of patches [M, C, h, w], which are ranked class by class."""
    ipc, factor, info = distilled.ipc, distilled.factor, distilled.info
    return torch.cat([mosaic(part, ipc, factor, info.height, info.width) for part in patches.split(ipc * factor**2)])


def _other_data(distilled: DistilledSet, data: Dataset) -> DistillError:
    return DistillError(
        f"The images of this set ({distilled.method}, IPC {distilled.ipc}) are no patches of the train split of "
        f"{data.info.name} as it is loaded here, or were stored with losses. Give the data that it was made of, with "
        f"the same options, and keep it as png or webp."
    )
