"""ConvNet-D, the network of the dataset-distillation literature."""

from torch import Tensor, nn

from softlabel.core import ConfigError
from softlabel.models._norms import norm_layer


class ConvNet(nn.Module):
    """`depth` blocks of 3x3 convolution, norm, ReLU and 2x2 average pooling, then one linear layer.

    Args:
        depth: number of blocks; each halves height and width (rounding down).
        width: channels of every block.
        norm: see `norm_layer`.

    Unlike the DC code there is no extra padding for 28 px grey images: 28 -> 14 -> 7 -> 3.
    """

    def __init__(
        self, *, depth: int, width: int, norm: str, channels: int, height: int, width_px: int, classes: int
    ) -> None:
        super().__init__()
        if min(height, width_px) >> depth < 1:
            raise ConfigError(
                f"convnet-{depth} halves the image {depth} times, and {height}x{width_px} px is too small for that. "
                f"Choose a smaller depth."
            )
        blocks: list[nn.Module] = []
        for index in range(depth):
            blocks += [
                nn.Conv2d(channels if index == 0 else width, width, kernel_size=3, padding=1),
                norm_layer(norm, width),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(2),
            ]
        self.body = nn.Sequential(*blocks)
        self.feature_size = width * (height >> depth) * (width_px >> depth)
        self.head = nn.Linear(self.feature_size, classes)

    def features(self, images: Tensor) -> Tensor:
        """What the linear head sees: [B, feature_size]."""
        return self.body(images).flatten(1)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of normalised images [B, C, H, W]."""
        return self.head(self.features(images))  # type: ignore[no-any-return]
