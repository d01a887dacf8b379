"""HeLlO's projector: a public backbone with low-rank updates and a low-rank head that gives soft labels.

What is stored of it is its delta: the low-rank matrices and a bias. The backbone is public, named by id and hash, and a
head that begins at the text embeddings of the class names is made from these again.
"""

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import ConfigError, DatasetInfo
from softlabel.labels._words import prompts
from softlabel.models import Backbone, optional_package

PROMPT = "a photo of a {}."


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """How a projector is built.

    Attributes:
        backbone: see `softlabel.models.BACKBONES`.
        size: pixels per side that the backbone is given; 0 for its own.
        rank: of the updates of the backbone's layers; 0 leaves it as it is (a linear probe).
        head_rank: of the head's update, or of the whole head where it does not begin at texts.
        text: whether the head begins at the text embeddings of the class names; where the backbone has none, or with
            False, it begins at least squares.
        prompt: `{}` stands for the class name.
    """

    backbone: str = "efficientnet-lite0"
    size: int = 64
    rank: int = 8
    head_rank: int = 64
    text: bool = True
    prompt: str = PROMPT

    def __post_init__(self) -> None:
        if self.rank < 0 or self.head_rank < 1 or self.size < 0:
            raise ConfigError(
                f"A projector has a rank of 0 or more, a head_rank of 1 or more and a size of 0 or more. Got rank "
                f"{self.rank}, head_rank {self.head_rank} and size {self.size}."
            )
        if self.prompt.count("{}") != 1:
            raise ConfigError(f"The prompt needs {{}} once, where the class name goes. Got {self.prompt!r}.")


class Projector(nn.Module):
    """Logits of images that are normalised as a data set's, through a backbone.

    The head works on the backbone's features times its scale, where it has one (CLIP), or divided by their root mean
    square over the training images. Logits of a head that began at texts share a large offset, of which a softmax says
    nothing: their mean is taken off every row.

    Args:
        base: where the head begins, [classes, features]: unit text embeddings; None begins at zero.
    """

    scale: Tensor
    shift: Tensor
    feature_scale: Tensor

    def __init__(self, backbone: Backbone, info: DatasetInfo, config: ProjectorConfig, base: Tensor | None) -> None:
        super().__init__()
        self.network = backbone.network
        self.size = backbone.size
        self.centred = base is not None
        self.head = nn.Linear(backbone.feature_size, info.classes, bias=False)
        self.bias = nn.Parameter(torch.zeros(info.classes))
        with torch.no_grad():
            self.head.weight.copy_(torch.zeros_like(self.head.weight) if base is None else base)
        scale, shift = _affine(info, backbone)
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("feature_scale", torch.tensor(backbone.scale or 1.0))
        self._adapt(backbone, config)

    def _adapt(self, backbone: Backbone, config: ProjectorConfig) -> None:
        """Add low-rank updates to the head, and to the backbone's layers; nothing else is trained but the bias."""
        peft = optional_package("peft", "hf", "of a projector")
        layers = [f"network.{name}" for name in backbone.adapts] if config.rank else []
        exactly = "|".join(re.escape(name) for name in (*layers, "head"))  # a list would match ends of names too
        head_rank = min(config.head_rank, *self.head.weight.shape)
        settings = peft.LoraConfig(
            r=config.rank or 1,
            lora_alpha=config.rank or 1,
            target_modules=f"({exactly})",
            rank_pattern={"^head$": head_rank},
            alpha_pattern={"^head$": head_rank},
        )
        peft.inject_adapter_in_model(settings, self)
        self.bias.requires_grad_(True)

    def train(self, mode: bool = True) -> "Projector":
        """Training changes no statistics of the backbone's norms and drops nothing: it stays in evaluation mode."""
        return super().train(False)

    def features(self, images: Tensor) -> Tensor:
        """What the head sees: float32 [B, features]."""
        images = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        images = images * self.scale + self.shift
        if images.shape[-1] != self.size or images.shape[-2] != self.size:
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", align_corners=False)
        found: Tensor = self.network(images)
        return found.float() * self.feature_scale

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of normalised images [B, C, H, W]."""
        return self.logits(self.features(images))

    def logits(self, features: Tensor) -> Tensor:
        """Logits [B, classes] of what the head sees, [B, features]."""
        with torch.autocast(features.device.type, enabled=False):  # texts share an offset that bfloat16 would drown in
            logits: Tensor = self.head(features) + self.bias
        return logits - logits.mean(dim=1, keepdim=True) if self.centred else logits

    def delta(self) -> dict[str, Tensor]:
        """What is stored, in float16: low-rank matrices, the bias, and the scale of the features."""
        kept = {name: tensor for name, tensor in self.named_parameters() if "lora_" in name or name == "bias"}
        return {name: t.detach().cpu().half() for name, t in kept.items()} | {"feature_scale": self.feature_scale.cpu()}

    def load_delta(self, delta: dict[str, Tensor]) -> None:
        """Take what `delta` gave.

        Raises:
            ConfigError: it is of a projector of another shape.
        """
        own = set(self.delta())
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items() if name in own}
        if {name: tensor.shape for name, tensor in delta.items()} != shapes:
            raise ConfigError(
                "The stored updates do not fit the projector: they were made for another backbone, rank or number of "
                "classes. Make the labeler again."
            )
        self.load_state_dict({name: tensor.float() for name, tensor in delta.items()}, strict=False)

    def merge(self) -> None:
        """Add the low-rank updates to the layers that they update, for good: the same function in fewer passes."""
        for module in self.network.modules():
            if hasattr(module, "merge") and hasattr(module, "lora_A"):
                module.merge()  # type: ignore[operator]

    @property
    def head_update(self) -> Tensor:
        """What is added to the weight that the head begins at, [classes, features], of low rank."""
        down, up = self._head_parts()
        return (up @ down).detach()

    @property
    def head_rank(self) -> int:
        """The most that the rank of the head's update can be."""
        return len(self._head_parts()[0])

    def _head_parts(self) -> tuple[Tensor, Tensor]:
        """The factors of the head's update: [rank, features] and [classes, rank]."""
        return self.head.lora_A["default"].weight, self.head.lora_B["default"].weight  # type: ignore[index, union-attr]

    def begin_at(self, weight: Tensor, bias: Tensor) -> None:
        """Set the head's update to the best approximation of `weight` [classes, features] that its rank allows.

        A head that begins at zero has its low-rank update as its whole weight.
        """
        down, up = self._head_parts()
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        root = s[: len(down)].sqrt()
        with torch.no_grad():
            down.copy_(root[:, None] * v[: len(down)])
            up.copy_(u[:, : len(down)] * root)
            self.bias.copy_(bias)


def text_head(backbone: Backbone, info: DatasetInfo, prompt: str) -> Tensor:
    """Unit text embeddings of the class names, [classes, features].

    Raises:
        ConfigError: a backbone without texts, or class names that are no words.
    """
    if backbone.texts is None:
        raise ConfigError(f"The backbone {backbone.spec!r} has no texts. Take text=false, or a clip: backbone.")
    return backbone.texts(prompts(info.class_names, prompt))


def _affine(info: DatasetInfo, backbone: Backbone) -> tuple[Tensor, Tensor]:
    """What turns images normalised for the data into images normalised for the backbone: scale and shift [3, 1, 1]."""

    def three(values: tuple[float, ...]) -> Tensor:
        return torch.tensor(values).expand(3).view(3, 1, 1)

    mean, std, own_mean, own_std = map(three, (info.mean, info.std, backbone.mean, backbone.std))
    return std / own_std, (mean - own_mean) / own_std
