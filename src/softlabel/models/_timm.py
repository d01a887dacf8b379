"""Models of timm and of torchvision, freshly initialised. No weights are ever downloaded."""

from functools import partial
from typing import Any

from torch import nn

from softlabel.core import ConfigError
from softlabel.models._bridge import (
    Bridge,
    Factory,
    Shape,
    bridged,
    foreign_errors,
    optional_package,
    require_listed,
    without_option,
)


def timm_factory(name: str) -> Factory:
    """`timm:NAME`, any name of `timm.list_models()`, with or without a tag of weights, which is not used.

    Raises:
        MissingExtraError: timm is not installed.
        ConfigError: no such model.
    """
    timm = optional_package("timm", "timm", f"timm:{name}")
    if ":" in name or not timm.is_model(name):  # a colon would make timm ask a hub
        require_listed("timm", name, timm.list_models())

    def build(image_shape: Shape, classes: int) -> nn.Module:
        channels, height, width = image_shape
        create = partial(timm.create_model, name, pretrained=False, num_classes=classes, in_chans=channels)
        with foreign_errors(f"timm:{name}", image_shape):
            network = without_option(create, "img_size", (height, width))
            return bridged(network, spec=f"timm:{name}", image_shape=image_shape, classes=classes)

    return build


def torchvision_factory(name: str) -> Factory:
    """`torchvision:NAME`, any image classifier of `torchvision.models`.

    Raises:
        MissingExtraError: torchvision is not installed.
        ConfigError: no such model. When it is built: images that are not in colour, which these models cannot take.
    """
    models = _torchvision_models(name)
    require_listed("torchvision", name, models.list_models(module=models))

    def build(image_shape: Shape, classes: int) -> nn.Module:
        channels, height, width = image_shape
        if channels != 3:
            raise ConfigError(
                f"The model 'torchvision:{name}' takes images of 3 channels, and these have {channels}. Load the data "
                f"with --channels 3, or choose another model."
            )
        create = partial(models.get_model, name, weights=None, num_classes=classes)
        with foreign_errors(f"torchvision:{name}", image_shape):
            # Only its Vision Transformers have an `image_size`; they take square images alone.
            network = without_option(create, "image_size", height) if height == width else create()
            return bridged(network, spec=f"torchvision:{name}", image_shape=image_shape, classes=classes)

    return build


def _torchvision_models(name: str) -> Any:
    return optional_package("torchvision.models", "torchvision", f"torchvision:{name}")


def _timm_facts(name: str) -> dict[str, str]:
    return {"timm": optional_package("timm", "timm", f"timm:{name}").__version__}


def _torchvision_facts(name: str) -> dict[str, str]:
    return {"torchvision": optional_package("torchvision", "torchvision", f"torchvision:{name}").__version__}


TIMM = Bridge(timm_factory, _timm_facts)
TORCHVISION = Bridge(torchvision_factory, _torchvision_facts)
