"""Models by spec. No data set names in here: a model knows channels, size and classes."""

import re
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from softlabel.core import ConfigError, UnknownNameError, build_config, parse_spec
from softlabel.models._bridge import Bridge, Factory
from softlabel.models._convnet import ConvNet
from softlabel.models._hf import HF
from softlabel.models._mlp import Mlp, MlpOptions
from softlabel.models._norms import NORMS
from softlabel.models._resnet import LAYERS, ResNet
from softlabel.models._timm import TIMM, TORCHVISION
from softlabel.models._vit import Vit, VitOptions


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
    "mlp": "linear layers with ReLU between them, depth=3, width=128",
    "vit": "Vision Transformer for 28 to 64 px, patch=4, width=192, depth=6, heads=3",
    "hf:NAME": "image classifier of transformers with fresh weights, by name on the hub (NAME@REVISION) or folder; "
    "everything after the colon is the name; needs softlabel[hf]",
    "timm:NAME": "model of timm with fresh weights; needs softlabel[timm]",
    "torchvision:NAME": "model of torchvision with fresh weights, colour images only; needs softlabel[torchvision]",
}

BRIDGES = {"hf": HF, "timm": TIMM, "torchvision": TORCHVISION}


def check_model(spec: str) -> None:
    """Check a model spec without building it and without the network.

    Of `hf:NAME` nothing is checked but its form while its configuration is not cached on this machine.

    Raises:
        UnknownNameError: no such model.
        ConfigError: no such option, or a value out of range.
        MissingExtraError: the package that has the model is not installed.
    """
    _factory(spec)


def model_facts(spec: str) -> dict[str, str]:
    """What, beside its spec, a model depends on, for the identity of what is made with it.

    Nothing for softlabel's own models. The package's version for those of other packages, and for `hf:` the digest of
    the configuration, which is asked of the hub where it is neither local nor cached.

    Raises:
        ConfigError, MissingExtraError: as `build_model`.
    """
    bridge, name = _bridge(spec)
    return {} if bridge is None else bridge.facts(name)


def build_model(spec: str, *, image_shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """A freshly initialised model, on the CPU in float32.

    Args:
        spec: e.g. `convnet-3`, `convnet-3:width=64,norm=instance`, `vit:patch=8`, `hf:microsoft/resnet-18`.
        image_shape: (channels, height, width) of its inputs.
        classes: size of its output.
        seed: of the initialisation; torch's global generator is left as it was.

    Raises:
        UnknownNameError, ConfigError, MissingExtraError: as `check_model`; ConfigError also when the model cannot take
            images of that shape, or when the configuration of `hf:NAME` cannot be fetched.
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


def _factory(spec: str) -> Factory:
    bridge, name = _bridge(spec)
    if bridge is not None:
        return bridge.factory(name)
    name, options = parse_spec(spec)
    owner = f"the model {name!r}"
    if name == "mlp":
        mlp = build_config(MlpOptions, options, owner)
        return lambda shape, classes: Mlp(mlp, image_shape=shape, classes=classes)
    if name == "vit":
        vit = build_config(VitOptions, options, owner)
        return lambda shape, classes: Vit(vit, image_shape=shape, classes=classes)
    if match := re.fullmatch(r"convnet-([1-9])", name):
        convnet = build_config(ConvNetOptions, options, owner)
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
        resnet = build_config(ResNetOptions, options, owner)
        _positive(name, resnet.width)
        small, layers = match[2] is None, int(match[1])
        return lambda shape, classes: ResNet(
            depth=layers, small=small, width=resnet.width, channels=shape[0], classes=classes
        )
    raise UnknownNameError("model", name, MODELS, "A ConvNet takes any depth from 1 to 9.")


def _bridge(spec: str) -> tuple[Bridge | None, str]:
    """The bridge of `prefix:NAME` and all of NAME; no bridge for softlabel's own models."""
    prefix, colon, name = (part.strip() for part in spec.partition(":"))
    if not colon or prefix not in BRIDGES:
        return None, spec
    if not name:
        raise ConfigError(f"The model {spec!r} has no name: write {prefix}:NAME.")
    return BRIDGES[prefix], name


def _positive(name: str, width: int) -> None:
    if width < 1:
        raise ConfigError(f"The option 'width' of the model {name!r} must be 1 or more. Got {width} instead.")
