"""Views: augmented versions of a batch, described by plain numbers.

    policy = (Flip(), ShiftCrop(padding=4), CutMix())
    params = sample(policy, len(images), 32, 32, stream(0, "views", epoch))
    views = apply(images, params)

A policy is a tuple of op settings. `sample` draws all random numbers, `apply` is deterministic, so a view
can be stored, replayed bit for bit, and shared by every student. Labels are not touched here: `params.mix`
says which images were mixed.

All views act on float images that are ALREADY normalised by mean and std. Flips, tile shuffles, crops and
bilinear resizes take weighted means of pixels whose weights sum to 1, so they commute with an affine
normalisation: after it they give what they would give before it. CutMix and Mixup commute for the same
reason. Two things do not:

- Padding (ShiftCrop, Scale, Rotate, Cutout) is zero, and zero here is the mean colour. torchvision's
  RandomCrop(size, padding) pads before the normalisation, so its padding is black.
- Colour works on the normalised values, as the released codes of DSA and GIFT do.

RDED's students see (PatchShuffle(factor=f), RandomResizedCrop(min_scale=1 / f), Flip(), CutMix()), GIFT's
see (FactorCrop(factor=f), DSAGift()), those of "A label is worth a thousand images" see (DSAClassic(),).
"""

from softlabel.views._base import Policy, ViewOp
from softlabel.views._dsa import DSAClassic, DSAGift
from softlabel.views._geometry import (
    FactorCrop,
    Flip,
    PatchShuffle,
    RandomResizedCrop,
    Rotate,
    Scale,
    ShiftCrop,
)
from softlabel.views._mixing import CutMix, Mixup
from softlabel.views._params import Mix, ViewParams, from_tensors, to_tensors
from softlabel.views._pixels import Colour, Cutout
from softlabel.views._policy import MIXING, VIEW_OPS, apply, check_policy, policy_from_plain, sample
from softlabel.views._resample import crop_resize, random_resized_boxes, tile_edges

__all__ = [
    "MIXING",
    "VIEW_OPS",
    "Colour",
    "CutMix",
    "Cutout",
    "DSAClassic",
    "DSAGift",
    "FactorCrop",
    "Flip",
    "Mix",
    "Mixup",
    "PatchShuffle",
    "Policy",
    "RandomResizedCrop",
    "Rotate",
    "Scale",
    "ShiftCrop",
    "ViewOp",
    "ViewParams",
    "apply",
    "check_policy",
    "crop_resize",
    "from_tensors",
    "policy_from_plain",
    "random_resized_boxes",
    "sample",
    "tile_edges",
    "to_tensors",
]
