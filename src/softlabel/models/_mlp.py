"""The multilayer perceptron of the dataset-distillation literature."""

from dataclasses import dataclass

from torch import Tensor, nn

from softlabel.core import ConfigError


@dataclass(frozen=True, kw_only=True)
class MlpOptions:
    """Options of `mlp`.

    The defaults are the MLP of DC (Zhao et al. 2021, "Dataset Condensation with Gradient Matching"): three linear
    layers, the last of them the head, with 128 hidden units and ReLU.

    Attributes:
        depth: linear layers, the head included; 1 is a linear classifier.
        width: hidden units of every layer but the head.
    """

    depth: int = 3
    width: int = 128

    def __post_init__(self) -> None:
        for option, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"The option {option!r} of the model 'mlp' must be 1 or more. Got {value} instead.")


class Mlp(nn.Module):
    """Linear layers with ReLU between them, on the image's values in a row. Any image size; torch's initialisation."""

    def __init__(self, options: MlpOptions, *, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        layers: list[nn.Module] = [nn.Flatten()]
        self.feature_size = channels * height * width
        for _ in range(options.depth - 1):
            layers += [nn.Linear(self.feature_size, options.width), nn.ReLU(inplace=True)]
            self.feature_size = options.width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(self.feature_size, classes)

    def features(self, images: Tensor) -> Tensor:
        """What the last layer sees: [B, feature_size]."""
        return self.body(images)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of normalised images [B, C, H, W]."""
        return self.head(self.features(images))  # type: ignore[no-any-return]
