"""Offsets per image, and the head that goes with them: what follows the teachers best on views of given images."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from scipy import linalg
from torch import Tensor

from softlabel.core import SoftlabelWarning
from softlabel.labels._projector import Projector

RIDGES = (*(10 ** (third / 3) for third in range(-9, 7)), float("inf"))
"""To choose from: from a thousandth to a hundred, three to the decade; and the one that changes nothing."""
SAME = 1e-9
"""Features that differ within images by less than this share of their mean square do so by rounding."""


@dataclass(frozen=True, eq=False)
class Observed:
    """Sums over the views of images, as many of each: what a projector lacks, and what its head sees.

    Attributes:
        sums: total, float32 [N, classes], of teachers' logits less the projector's. Where a head is to be refitted,
            all in float64: total; features [N, D], of what it sees; and over all views gram [D, D] of these by
            themselves, cross [D, classes] of these by what is lacking, and square [] of the latter.
    """

    sums: dict[str, Tensor]

    @classmethod
    def nothing(cls, images: int, classes: int, features: int = 0) -> "Observed":
        """Before the first view; of no features where no head is to be refitted."""
        found = cls({"total": torch.zeros(images, classes)})
        if features:
            shapes = {
                "total": (images, classes),
                "features": (images, features),
                "gram": (features, features),
                "cross": (features, classes),
            }
            found.sums.update({name: torch.zeros(*shape, dtype=torch.float64) for name, shape in shapes.items()})
            found.sums["square"] = torch.zeros((), dtype=torch.float64)
        return found

    def add(self, index: Tensor, features: Tensor, lack: Tensor) -> None:
        """Count one view each of the images `index` [B]: features [B, D], and what is lacking [B, classes]."""
        lack = lack.to(self.sums["total"].dtype)
        self.sums["total"].index_add_(0, index, lack)
        if "gram" in self.sums:
            seen = features.double()
            self.sums["features"].index_add_(0, index, seen)
            self.sums["gram"].addmm_(seen.T, seen)
            self.sums["cross"].addmm_(seen.T, lack)
            self.sums["square"] += lack.square().sum()

    def lack(self, views: int) -> Tensor:
        """Per image the mean over its views of what is lacking, [N, classes]: the best offsets of this projector."""
        return (self.sums["total"] / views).float()


def refit_head(projector: Projector, seen: Observed, views: int) -> Tensor:
    """Set a projector's head to what, at its rank, best tells how the views of one image differ.

    Where they do not, it stays as it was, with a `SoftlabelWarning`.

    Args:
        seen: by this projector, of `views` views of each image; of a head that takes its logits' mean off, less theirs.

    Returns:
        What it lacks per image thereafter, [N, classes]: its offsets.
    """
    sums, device = seen.sums, projector.bias.device
    change, within = within_least_squares(sums, views)
    if within.trace() <= SAME * sums["gram"].trace():
        warnings.warn(
            "The views of each image are alike: the head stays as it was, and refit (--refit) changes nothing. Augment "
            "them (--views gift), or leave refit out.",
            SoftlabelWarning,
            stacklevel=3,
        )
        return seen.lack(views)
    update = projector.head_update.cpu().double().T + change
    if projector.centred:  # of what it takes off, no rank is to be spent on
        update = update - update.mean(dim=1, keepdim=True)
    means = (sums["features"] / views).float().to(device)
    with torch.no_grad():
        told = projector.logits(means)
        kept = of_rank(update, within, projector.head_rank)
        projector.begin_at(kept.T.float().to(device), projector.bias)
        projector.load_delta(projector.delta())  # the offsets are those of the head as it is stored
        return seen.lack(views) + (told - projector.logits(means)).cpu()


def within_least_squares(sums: Mapping[str, Tensor], views: int) -> tuple[Tensor, Tensor]:
    """The linear map from features to labels that best tells how the views of one image differ.

    Every image may have an offset of its own, so both are taken less their means over the views of one image, x~ and
    y~ (the within estimator of fixed effects). The map W has the least |x~ W - y~|^2 + ridge |W|^2; of `RIDGES`, times
    the mean eigenvalue of the sum of x~^T x~, it is the one of the least generalised cross-validation (Golub, Heath and
    Wahba 1979), |x~ W - y~|^2 / (1 - d/n)^2, for d the effective degrees of freedom and n the views less one per image.

    Args:
        sums: as `Observed` has them, with `total` for y.
        views: how many there are of each image, 2 or more.

    Returns:
        W [D, C], and the sum of x~^T x~ over all views [D, D].
    """
    features, labels = sums["features"], sums["total"]
    within = sums["gram"] - features.T @ features / views
    shared = sums["cross"] - features.T @ labels / views
    square = float(sums["square"] - labels.square().sum() / views)
    free = len(features) * (views - 1)
    values, vectors = eigenvectors(within)
    values, turned = values.clamp_min(0), vectors.T @ shared
    power, scale = turned.square().sum(dim=1), values.mean().clamp_min(1e-30)

    def error(ridge: float) -> float:
        shrunk = 1 / (values + ridge * scale)
        missed = square - 2 * float((power * shrunk).sum()) + float((power * values * shrunk**2).sum())
        return missed / (1 - float((values * shrunk).sum()) / free) ** 2

    ridge = min(RIDGES, key=error)
    return vectors @ (turned / (values + ridge * scale)[:, None]), within


def of_rank(weight: Tensor, gram: Tensor, rank: int) -> Tensor:
    """The map of at most `rank` closest to `weight` [D, C] in what it makes of features with the sum of x^T x `gram`.

    What `weight` makes of them, projected on the directions in which that varies most (reduced-rank regression).
    """
    along = eigenvectors(weight.T @ gram @ weight)[1][:, -rank:]
    projected: Tensor = weight @ along @ along.T
    return projected


def eigenvectors(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [D] of a float64 matrix on the CPU, ascending, and in columns their eigenvectors [D, D].

    By relatively robust representations (LAPACK's `evr`): of fewer views than features most eigenvalues are zero, and
    torch's divide and conquer may then not converge.
    """
    values, vectors = linalg.eigh(symmetric.numpy(), driver="evr")
    return torch.from_numpy(values), torch.from_numpy(vectors)
