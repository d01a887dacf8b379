"""Stratified carving, and the mean and standard deviation of pixels."""

import torch
from torch import Tensor

from softlabel.core import DataError, Split, stream


def stratified(
    targets: Tensor, fraction: float, class_names: tuple[str, ...], *, seed: int, purpose: str
) -> tuple[Tensor, Tensor]:
    """Choose `fraction` of each class, rounded, and at least one image.

    Args:
        targets: int64 [N].
        fraction: in (0, 1).
        class_names: for messages.
        seed, purpose: name the random stream; each class draws from its own.

    Returns:
        (kept, taken): int64 positions in rising order, together 0..N-1.

    Raises:
        DataError: a class has too few images to give one and keep one.
    """
    taken = torch.zeros(len(targets), dtype=torch.bool)
    # One sort finds the members of all classes; a scan per class takes seconds with 200 classes.
    by_class = torch.argsort(targets, stable=True)
    counts = torch.bincount(targets, minlength=len(class_names)).tolist()
    for index, (name, members) in enumerate(zip(class_names, torch.split(by_class, counts), strict=True)):
        wanted = max(1, int(fraction * len(members) + 0.5))
        if wanted >= len(members):
            raise DataError(
                f"The class {name!r} has {len(members)} images, too few to carve {fraction:.0%} out of it "
                f"for the {purpose} split and keep the rest for training. Add images, or give the data its own split."
            )
        order = torch.randperm(len(members), generator=stream(seed, "data", purpose, index))
        taken[members[order[:wanted]]] = True
    return (~taken).nonzero().flatten(), taken.nonzero().flatten()


def carve(
    split: Split, fraction: float, class_names: tuple[str, ...], *, seed: int, purpose: str
) -> tuple[Split, Split]:
    """Divide a split into (what stays, what is carved out), stratified; both are copies. See `stratified`."""
    kept, taken = stratified(split.targets, fraction, class_names, seed=seed, purpose=purpose)
    return _select(split, kept), _select(split, taken)


def _select(split: Split, index: Tensor) -> Split:
    # Three times as fast as indexing for images.
    return Split(split.images.index_select(0, index), split.targets.index_select(0, index))


def moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of uint8 images [N, C, H, W], for pixels in [0, 1].

    Exact: pixels are counted by value, block by block, and the sums are taken in float64. A channel that
    never changes gets the deviation 1, so that dividing by it stays possible.
    """
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for block in torch.split(images, 1024):
        for channel in range(images.shape[1]):
            counts[channel] += torch.bincount(block[:, channel].reshape(-1), minlength=256)
    share = counts.double() / counts.sum(1, keepdim=True)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    variance = (share * (values - mean[:, None]) ** 2).sum(1)
    deviation = torch.where(variance > 0, variance.sqrt(), torch.ones_like(variance))
    return tuple(mean.tolist()), tuple(deviation.tolist())
