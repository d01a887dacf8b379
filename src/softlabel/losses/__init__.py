"""Losses: pure, per example, keyword-only, over logits. One table, `LOSSES`."""

from softlabel.losses._functions import (
    CODE_GAMMA,
    ce,
    cosine,
    gift,
    gift_additive,
    kl,
    kl_apart,
    kl_scaled,
    mse,
    mse_ce,
    refine,
    smoothed_one_hot,
    soft_ce,
    soft_ce_ce,
)
from softlabel.losses._table import GIFT, LOSSES, Loss, LossEntry

__all__ = [
    "CODE_GAMMA",
    "GIFT",
    "LOSSES",
    "Loss",
    "LossEntry",
    "ce",
    "cosine",
    "gift",
    "gift_additive",
    "kl",
    "kl_apart",
    "kl_scaled",
    "mse",
    "mse_ce",
    "refine",
    "smoothed_one_hot",
    "soft_ce",
    "soft_ce_ce",
]
