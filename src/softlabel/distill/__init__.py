"""Distillation methods: from real images to a tiny set. One table, `METHODS`."""

from softlabel.distill._common import Images
from softlabel.distill._coresets import HerdingConfig, KCentreConfig, RandomConfig, farthest_first, herd
from softlabel.distill._latent import check_choice, latent_config, needs_generator, plain_sampling, with_generator
from softlabel.distill._methods import (
    METHODS,
    OWN_LOSSES,
    Method,
    check_images,
    check_method,
    check_trajectory,
    check_work,
    distill,
    find_method,
    own_loss,
    tiles,
)
from softlabel.distill._rded import RdedConfig, mosaic
from softlabel.distill._update import ImageUpdate, update_images

__all__ = [
    "METHODS",
    "OWN_LOSSES",
    "HerdingConfig",
    "ImageUpdate",
    "Images",
    "KCentreConfig",
    "Method",
    "RandomConfig",
    "RdedConfig",
    "check_choice",
    "check_images",
    "check_method",
    "check_trajectory",
    "check_work",
    "distill",
    "farthest_first",
    "find_method",
    "herd",
    "latent_config",
    "mosaic",
    "needs_generator",
    "own_loss",
    "plain_sampling",
    "tiles",
    "update_images",
    "with_generator",
]
