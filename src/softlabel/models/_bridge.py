"""Models of other packages, made into what softlabel needs: logits, features, a feature size.

A bridge is named by its prefix: in `hf:NAME`, `timm:NAME` and `torchvision:NAME` everything after the first colon is
the name, so that it may hold colons, commas and equal signs. Such a name takes no options.
"""

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from softlabel.core import ConfigError, MissingExtraError, stream

FOREIGN = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    LookupError,
    ArithmeticError,
    ImportError,
    SafetensorError,
)
"""What other packages raise when a model cannot be made of what they were given."""

Shape = tuple[int, int, int]
Factory = Callable[[Shape, int], nn.Module]
"""Builds a model for images (channels, height, width) and a number of classes, from torch's global generator."""


@dataclass(frozen=True)
class Bridge:
    """A package that has models.

    Attributes:
        factory: the factory of a name; checks all that can be checked without the network.
        facts: what, beside the name, its models depend on.
    """

    factory: Callable[[str], Factory]
    facts: Callable[[str], dict[str, str]]


class Bridged(nn.Module):
    """A model of another package.

    Its feature is the input of its last linear layer: of the `nn.Linear` whose output is the logits. It is caught by a
    hook while the model runs, so `features` costs a whole forward pass.

    Attributes:
        network: the model itself.
        feature_size: inputs of the last linear layer.
    """

    def __init__(self, network: nn.Module, *, spec: str, head: str, feature_size: int) -> None:
        super().__init__()
        self.network = network
        self.feature_size = feature_size
        self._spec, self._head = spec, head

    @property
    def head(self) -> nn.Module:
        """The last linear layer."""
        return self.network.get_submodule(self._head)

    def extra_repr(self) -> str:
        return self._spec

    def features(self, images: Tensor) -> Tensor:
        """What the last linear layer sees: [B, feature_size]."""
        caught: list[Tensor] = []
        # Registered for this call only: a hook that stays would be copied by deepcopy and catch for the original.
        handle = self.head.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
        try:
            self.network(images)
        finally:
            handle.remove()
        return caught[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, classes] of normalised images [B, C, H, W]."""
        return logits_of(self.network(images))


def logits_of(output: Any) -> Tensor:
    """The logits in what a classifier returns: a tensor, or an object that holds them beside other outputs."""
    return output if isinstance(output, Tensor) else output.logits


def bridged(network: nn.Module, *, spec: str, image_shape: Shape, classes: int) -> Bridged:
    """`network` with its head found by one forward pass of two images, in training mode.

    Raises:
        ConfigError: its output is not [B, classes], or is not that of a linear layer.
    """
    images = torch.randn(2, *image_shape, generator=stream(0, "probe"))
    heads = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    outputs: dict[str, Tensor] = {}
    handles = [module.register_forward_hook(_keeper(outputs, name)) for name, module in heads.items()]
    network.eval()  # so that the pass leaves the statistics of batch norms as they are
    try:
        with torch.no_grad():
            logits = logits_of(network(images))
    finally:
        for handle in handles:
            handle.remove()
    network.train()
    if logits.shape != (2, classes):
        raise ConfigError(
            f"The model {spec!r} gives an output of shape {list(logits.shape)} for 2 images and {classes} classes, "
            f"where [2, {classes}] was expected. Choose a model for image classification."
        )
    for name, output in reversed(outputs.items()):
        if output is logits or (output.shape == logits.shape and torch.equal(output, logits)):
            return Bridged(network, spec=spec, head=name, feature_size=heads[name].in_features)
    raise ConfigError(
        f"The logits of the model {spec!r} are not the output of one linear layer, so that it has no features in "
        f"softlabel's sense. Choose a model that ends in a linear layer."
    )


@contextmanager
def foreign_errors(spec: str, image_shape: Shape, *others: type[Exception]) -> Iterator[None]:
    """FOREIGN errors, and `others`, while a model is built or probed become a ConfigError that says what was asked."""
    channels, height, width = image_shape
    foreign: tuple[type[Exception], ...] = (*FOREIGN, *others)
    try:
        yield
    except foreign as error:
        raise ConfigError(
            f"The model {spec!r} cannot be built for images of {channels} channels and {height}x{width} px "
            f"({reason_of(error)}). Choose another model, or other images with --image-size or --channels."
        ) from error


def reason_of(error: Exception) -> str:
    """The type of an error, and the first line of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), 'no reason given')}"


def optional_package(package: str, extra: str, spec: str) -> Any:
    """The module `package`.

    Raises:
        MissingExtraError: it, or a package that it needs, is not installed.
        ConfigError: it is installed and broken.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingExtraError((error.name or package).partition(".")[0], extra, f"The model {spec!r}") from error
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"The model {spec!r} needs the package {package!r}, which is installed but cannot be imported ({error}). "
            f"Install it again, in a version for torch {torch.__version__}."
        ) from error


def require_listed(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that is not in another package's long list, with the nearest ones.

    Raises:
        ConfigError: the name is not listed.
    """
    names = list(known)
    if name in names:
        return
    near = get_close_matches(name, names, n=3)
    guess = f"Did you mean one of: {', '.join(near)}?" if near else f"It has {len(names)} image classifiers."
    raise ConfigError(f"{kind} has no image classifier named {name!r}. {guess} List them with: {_LISTING[kind]}")


def without_option(build: Callable[..., nn.Module], option: str, value: Any) -> nn.Module:
    """`build(option=value)`, or `build()` where it takes no such option."""
    try:
        return build(**{option: value})
    except TypeError as error:
        if f"unexpected keyword argument {option!r}" not in str(error):
            raise
        return build()


_LISTING = {
    "timm": "python -c 'import timm; print(timm.list_models())'",
    "torchvision": "python -c 'import torchvision.models as m; print(m.list_models(module=m))'",
}


def _keeper(outputs: dict[str, Tensor], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        outputs.pop(name, None)  # so that the layers stand in the order of their last call
        outputs[name] = output

    return keep
