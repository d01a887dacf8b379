"""ResNet in two forms: for 32/64 px images, and the ImageNet form.

The small form ("modified" in RDED's and GIFT's code) has a 3x3 stride-1 stem and no max-pooling; the ImageNet form
has the 7x7 stride-2 stem and max-pooling of He et al. 2016, with the stride on the 3x3 convolution of a bottleneck
(as torchvision does).
"""

from torch import Tensor, nn

LAYERS = {18: ("basic", (2, 2, 2, 2)), 50: ("bottleneck", (3, 4, 6, 3)), 101: ("bottleneck", (3, 4, 23, 3))}


class _Block(nn.Module):
    def __init__(self, kind: str, inputs: int, planes: int, stride: int) -> None:
        super().__init__()
        outputs = planes if kind == "basic" else 4 * planes
        self.body = _basic(inputs, planes, stride) if kind == "basic" else _bottleneck(inputs, planes, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.activation = nn.ReLU(inplace=True)

    def forward(self, images: Tensor) -> Tensor:
        return self.activation(self.body(images) + self.shortcut(images))  # type: ignore[no-any-return]


class ResNet(nn.Module):
    """ResNet-18, -50 or -101 with batch norm and global average pooling, so that any image size works.

    Args:
        depth: 18, 50 or 101.
        small: the 32/64 px form; otherwise the ImageNet form.
        width: channels of the first stage (64 in the papers).
    """

    def __init__(self, *, depth: int, small: bool, width: int, channels: int, classes: int) -> None:
        super().__init__()
        kind, layers = LAYERS[depth]
        if small:
            stem: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False)]
        else:
            stem = [nn.Conv2d(channels, width, 7, 2, 3, bias=False)]
        stem += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        if not small:
            stem.append(nn.MaxPool2d(3, 2, 1))
        stages: list[nn.Module] = []
        inputs = width
        for index, count in enumerate(layers):
            planes = width << index
            for block in range(count):
                stages.append(_Block(kind, inputs, planes, stride=2 if block == 0 and index > 0 else 1))
                inputs = planes if kind == "basic" else 4 * planes
        self.body = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1))
        self.feature_size = inputs
        self.head = nn.Linear(inputs, classes)
        _initialise(self)

    def features(self, images: Tensor) -> Tensor:
        """What the linear head sees: [B, feature_size]."""
        return self.body(images).flatten(1)  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of normalised images [B, C, H, W]."""
        return self.head(self.features(images))  # type: ignore[no-any-return]


def _basic(inputs: int, planes: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, planes, 3, stride, 1, bias=False),
        nn.BatchNorm2d(planes),
        nn.ReLU(inplace=True),
        nn.Conv2d(planes, planes, 3, 1, 1, bias=False),
        nn.BatchNorm2d(planes),
    )


def _bottleneck(inputs: int, planes: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, planes, 1, bias=False),
        nn.BatchNorm2d(planes),
        nn.ReLU(inplace=True),
        nn.Conv2d(planes, planes, 3, stride, 1, bias=False),
        nn.BatchNorm2d(planes),
        nn.ReLU(inplace=True),
        nn.Conv2d(planes, 4 * planes, 1, bias=False),
        nn.BatchNorm2d(4 * planes),
    )


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
