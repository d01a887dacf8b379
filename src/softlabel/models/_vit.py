"""A small Vision Transformer (Dosovitskiy et al. 2021) for images of 28 to 64 px."""

import math
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.init import normal_, zeros_
from torch.nn.parameter import Parameter

from softlabel.core import ConfigError


@dataclass(frozen=True, kw_only=True)
class VitOptions:
    """Options of `vit`.

    Width, heads and the MLP's ratio of 4 are those of DeiT-Tiny (Touvron et al. 2021). It has 12 blocks and patches of
    16 px, for 224 px images; the defaults here are half the blocks, and patches of 4 px: 64 tokens of a 32 px image.

    Attributes:
        patch: side of a patch in px; must divide the image's height and width.
        width: size of a token; must divide by `heads`.
        depth: number of blocks.
        heads: attention heads.
    """

    patch: int = 4
    width: int = 192
    depth: int = 6
    heads: int = 3

    def __post_init__(self) -> None:
        for option, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"The option {option!r} of the model 'vit' must be 1 or more. Got {value} instead.")
        if self.width % self.heads:
            raise ConfigError(
                f"The width of the model 'vit' is shared by its heads, and {self.width} does not divide by "
                f"{self.heads}. Choose a width that does, e.g. {self.heads * math.ceil(self.width / self.heads)}."
            )


class Vit(nn.Module):
    """Pre-norm blocks on patches with learned positions; no dropout.

    The feature is the mean of the tokens after the last norm. There is no class token: plain averaging is as good or
    better at this scale (Beyer et al. 2022, "Better plain ViT baselines for ImageNet-1k"). Weights start from a normal
    distribution of standard deviation 0.02, biases from 0.

    Raises:
        ConfigError: height or width does not divide by the patch.
    """

    def __init__(self, options: VitOptions, *, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        _check_patch(options.patch, height, width)
        tokens = (height // options.patch) * (width // options.patch)
        self.embed = nn.Conv2d(channels, options.width, kernel_size=options.patch, stride=options.patch)
        self.positions = Parameter(self.embed.weight.new_empty(1, tokens, options.width))
        self.blocks = nn.Sequential(*(_Block(options.width, options.heads) for _ in range(options.depth)))
        self.norm = nn.LayerNorm(options.width)
        self.feature_size = options.width
        self.head = nn.Linear(options.width, classes)
        normal_(self.positions, std=0.02)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
                normal_(module.weight, std=0.02)
                zeros_(module.bias)

    def features(self, images: Tensor) -> Tensor:
        """What the head sees: [B, feature_size]."""
        tokens = self.embed(images).flatten(2).transpose(1, 2) + self.positions
        return self.norm(self.blocks(tokens)).mean(dim=1)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of normalised images [B, C, H, W] of the size that the model was built for."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(nn.LayerNorm(width), _Attention(width, heads))
        self.think = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attend(tokens)
        return tokens + self.think(tokens)  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Self-attention of tokens [B, T, width].

    Written out, not by `F.scaled_dot_product_attention` or `nn.MultiheadAttention`, which calls it: its CPU kernel
    has no rule for `torch.func.vmap`, by which stacked students run, and its fused CUDA kernels sum gradients in no
    fixed order. T is a few hundred at most, so that the [B, heads, T, T] weights are affordable.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.projections = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"

    def forward(self, tokens: Tensor) -> Tensor:
        # [B, T, 3 * width] -> three times [B, heads, T, width / heads]
        split = self.projections(tokens).unflatten(-1, (3, self.heads, -1))
        query, key, value = split.transpose(1, 3).unbind(dim=2)
        weights = (query * self.scale @ key.transpose(-2, -1)).softmax(dim=-1)
        return self.merge((weights @ value).transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _check_patch(patch: int, height: int, width: int) -> None:
    if height % patch == 0 and width % patch == 0:
        return
    shared = math.gcd(height, width)
    fitting = ", ".join(str(side) for side in range(1, shared + 1) if shared % side == 0)
    raise ConfigError(
        f"The model 'vit' cuts images into patches of {patch}x{patch} px, and {height}x{width} px cannot be cut so. "
        f"Choose a patch that divides both sides ({fitting}), e.g. vit:patch={_nearest(patch, shared)}, or resize the "
        f"images with --image-size."
    )


def _nearest(patch: int, shared: int) -> int:
    """The divisor of `shared` nearest to `patch`."""
    return min((side for side in range(1, shared + 1) if shared % side == 0), key=lambda side: abs(side - patch))
