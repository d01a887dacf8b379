"""Models by spec. No data set names in here: a model knows channels, size and classes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from softlabel.core import ConfigError, UnknownNameError, build_config, parse_spec
from softlabel.models._convnet import NORMS, ConvNet
from softlabel.models._resnet import LAYERS, ResNet


class Classifier(Protocol):
    """What softlabel needs of a model, besides being an `nn.Module`."""

    feature_size: int

    def features(self, images: Tensor) -> Tensor: ...
    def __call__(self, images: Tensor) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class ConvNetOptions:
    """Options of `convnet-D`."""

    width: int = 128
    norm: str = "batch"


@dataclass(frozen=True, kw_only=True)
class ResNetOptions:
    """Options of `resnet-D` and `resnet-D-imagenet`."""

    width: int = 64


MODELS: dict[str, str] = {
    "convnet-3": "3 blocks of 3x3 convolution, width=128, norm=batch|instance|group|none; any depth: convnet-D",
    "resnet-18": "ResNet-18 for 32/64 px (3x3 stem, no max-pooling), width=64",
    "resnet-50": "ResNet-50 for 32/64 px",
    "resnet-101": "ResNet-101 for 32/64 px",
    "resnet-18-imagenet": "ResNet-18 in the ImageNet form (7x7 stem, max-pooling)",
    "resnet-50-imagenet": "ResNet-50 in the ImageNet form",
    "resnet-101-imagenet": "ResNet-101 in the ImageNet form",
}


def check_model(spec: str) -> None:
    """Check a model spec without building it.

    Raises:
        UnknownNameError: no such model.
        ConfigError: no such option, or a value out of range.
    """
    _factory(spec)


def build_model(spec: str, *, image_shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """A freshly initialised model, on the CPU in float32.

    Args:
        spec: e.g. `convnet-3`, `convnet-3:width=64,norm=instance`, `resnet-18`, `resnet-18-imagenet`.
        image_shape: (channels, height, width) of its inputs.
        classes: size of its output.
        seed: of the initialisation; torch's global generator is left as it was.

    Raises:
        UnknownNameError, ConfigError: as `check_model`; ConfigError also when the image is too small.
    """
    factory = _factory(spec)
    with torch.random.fork_rng(devices=[]):
        # torch's layers initialise from the global generator and take no other; fork_rng puts it back.
        # Not torch.manual_seed: that would seed the generators of all GPUs too.
        torch.default_generator.manual_seed(seed)
        return factory(image_shape, classes)


def as_classifier(model: nn.Module) -> Classifier:
    """The model seen as what softlabel needs of it."""
    return cast(Classifier, model)


def _factory(spec: str) -> Callable[[tuple[int, int, int], int], nn.Module]:
    name, options = parse_spec(spec)
    if match := re.fullmatch(r"convnet-([1-9])", name):
        convnet = build_config(ConvNetOptions, options, f"the model {name!r}")
        depth = int(match[1])
        if convnet.norm not in NORMS:
            raise UnknownNameError("norm", convnet.norm, NORMS)
        _positive(name, convnet.width)
        return lambda shape, classes: ConvNet(
            depth=depth,
            width=convnet.width,
            norm=convnet.norm,
            channels=shape[0],
            height=shape[1],
            width_px=shape[2],
            classes=classes,
        )
    match = re.fullmatch(r"resnet-(\d+)(-imagenet)?", name)
    if match and int(match[1]) in LAYERS:
        resnet = build_config(ResNetOptions, options, f"the model {name!r}")
        _positive(name, resnet.width)
        small, layers = match[2] is None, int(match[1])
        return lambda shape, classes: ResNet(
            depth=layers, small=small, width=resnet.width, channels=shape[0], classes=classes
        )
    raise UnknownNameError("model", name, MODELS, "A ConvNet takes any depth from 1 to 9.")


def _positive(name: str, width: int) -> None:
    if width < 1:
        raise ConfigError(f"The option 'width' of the model {name!r} must be 1 or more. Got {width} instead.")
