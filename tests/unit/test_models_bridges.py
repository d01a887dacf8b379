"""Models of timm and torchvision, with small stand-ins for the packages; and how a head is found."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from softlabel.core import ConfigError, MissingExtraError
from softlabel.models import Bridged, build_model, check_model, model_facts

CIFAR = (3, 32, 32)


class Convolutional(nn.Module):
    """Any image size; a hidden layer as wide as the output, registered after the head."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(in_chans, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(num_classes, num_classes)
        self.hidden = nn.Linear(6, num_classes)

    def forward(self, images: Tensor) -> Any:
        return self.classifier(self.hidden(self.stem(images)).relu())


class Sized(nn.Module):
    """One image size, by the name that timm or torchvision gives it."""

    def __init__(self, num_classes: int, in_chans: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.head = nn.Linear(in_chans * size[0] * size[1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))  # type: ignore[no-any-return]


class WithAuxiliary(Convolutional):
    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(logits=super().forward(images), aux_logits=None)


class TwoHeads(nn.Module):
    def __init__(self, num_classes: int, in_chans: int = 3) -> None:
        super().__init__()
        self.first, self.second = nn.LazyLinear(num_classes), nn.LazyLinear(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return (self.first(images.flatten(1)) + self.second(images.flatten(1))) / 2  # type: ignore[no-any-return]


class Segmenter(nn.Module):
    def __init__(self, num_classes: int, in_chans: int = 3) -> None:
        super().__init__()
        self.body = nn.Conv2d(in_chans, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)  # type: ignore[no-any-return]


def timm_vit(num_classes: int, in_chans: int, img_size: Any = (224, 224)) -> nn.Module:
    return Sized(num_classes, in_chans, img_size)


def torchvision_vit(num_classes: int, image_size: int = 224) -> nn.Module:
    assert image_size % 16 == 0, "Input shape indivisible by patch size!"
    return Sized(num_classes, 3, (image_size, image_size))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A module `timm`; what `create_model` was asked for."""
    models = {"tiny": Convolutional, "vit": timm_vit, "two": TwoHeads, "segment": Segmenter}
    asked: list[dict[str, Any]] = []

    def create_model(name: str, **options: Any) -> nn.Module:
        asked.append({"name": name, **options})
        assert options.pop("pretrained") is False
        return models[name.partition(".")[0]](**options)

    module = ModuleType("timm")
    module.__dict__.update(
        create_model=create_model,
        is_model=lambda name: name.partition(".")[0] in models,
        list_models=lambda: list(models),
        __version__="1.2.3",
    )
    monkeypatch.setitem(sys.modules, "timm", module)
    return asked


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A module `torchvision`; what `get_model` was asked for."""
    models = {"tiny": Convolutional, "vit": torchvision_vit, "aux": WithAuxiliary}
    asked: list[dict[str, Any]] = []

    def get_model(name: str, **options: Any) -> nn.Module:
        asked.append({"name": name, **options})
        assert options.pop("weights") is None
        return models[name](**options)

    package, module = ModuleType("torchvision"), ModuleType("torchvision.models")
    package.__dict__["__version__"] = "0.99"

    def list_models(module: ModuleType) -> list[str]:
        assert module.__name__ == "torchvision.models"
        return list(models)

    module.__dict__.update(get_model=get_model, list_models=list_models)
    monkeypatch.setitem(sys.modules, "torchvision", package)
    monkeypatch.setitem(sys.modules, "torchvision.models", module)
    return asked


def build(spec: str, shape: tuple[int, int, int] = CIFAR, classes: int = 5, seed: int = 0) -> Bridged:
    model = build_model(spec, image_shape=shape, classes=classes, seed=seed)
    assert isinstance(model, Bridged)
    return model


# --- timm ------------------------------------------------------------------------------------------------------


def test_timm_builds_without_weights(timm: list[dict[str, Any]]) -> None:
    model = build("timm:tiny.in1k", shape=(1, 16, 24))
    assert timm[-1] == {"name": "tiny.in1k", "pretrained": False, "num_classes": 5, "in_chans": 1}
    assert model(torch.randn(3, 1, 16, 24)).shape == (3, 5)


def test_timm_gets_the_image_size_where_it_takes_one(timm: list[dict[str, Any]]) -> None:
    model = build("timm:vit", shape=(1, 16, 24))
    assert [call.get("img_size") for call in timm] == [(16, 24)]
    assert model.feature_size == 16 * 24


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_a_bridged_model_keeps_the_contract(kind: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(kind)
    before = torch.get_rng_state()
    model, again, other = (build(f"{kind}:tiny", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.randn(3, *CIFAR)
    assert torch.equal(model(images), again(images))
    assert not torch.equal(model(images), other(images))
    model.eval()
    torch.testing.assert_close(model.head(model.features(images)), model(images))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.eval()(images), model(images))


def test_timm_without_such_a_model_names_the_nearest(timm: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"timm has no image classifier named 'tiney'. Did you mean one of: tiny\?"):
        check_model("timm:tiney")
    with pytest.raises(ConfigError, match=r"named 'hf-hub:lab/x'. It has 4 image classifiers. List them with: python"):
        check_model("timm:hf-hub:lab/x")


# --- torchvision -----------------------------------------------------------------------------------------------


def test_torchvision_builds_without_weights(torchvision: list[dict[str, Any]]) -> None:
    model = build("torchvision:tiny", shape=(3, 16, 24))
    assert torchvision[-1] == {"name": "tiny", "weights": None, "num_classes": 5}
    assert model(torch.randn(3, 3, 16, 24)).shape == (3, 5)


def test_torchvision_gets_the_image_size_where_it_takes_one(torchvision: list[dict[str, Any]]) -> None:
    assert build("torchvision:vit").feature_size == 3 * 32 * 32
    with pytest.raises(ConfigError, match=r"cannot be built .* 20x20 px \(AssertionError: Input shape indivisible"):
        build("torchvision:vit", shape=(3, 20, 20))


def test_torchvision_takes_colour_alone(torchvision: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError) as caught:
        build("torchvision:tiny", shape=(1, 28, 28))
    assert str(caught.value) == (
        "The model 'torchvision:tiny' takes images of 3 channels, and these have 1. Load the data with --channels 3, "
        "or choose another model."
    )


def test_outputs_beside_the_logits_are_left_aside(torchvision: list[dict[str, Any]]) -> None:
    model, images = build("torchvision:aux"), torch.randn(3, *CIFAR)
    assert model(images).shape == (3, 5)
    assert model.eval().features(images).shape == (3, 5)


# --- heads -----------------------------------------------------------------------------------------------------


def test_the_head_is_the_layer_that_gives_the_logits(timm: list[dict[str, Any]]) -> None:
    """Not the one registered last, nor another one as wide as the output."""
    model = build("timm:tiny")
    assert model.head is model.network.classifier
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_finding_the_head_leaves_batch_norms_as_they_were(timm: list[dict[str, Any]]) -> None:
    model = build("timm:tiny")
    assert model.training
    assert int(model.network.stem[1].num_batches_tracked) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two", "The logits of the model 'timm:two' are not the output of one linear layer"),
        ("segment", "gives an output of shape [2, 5, 32, 32] for 2 images and 5 classes, where [2, 5] was expected."),
    ],
)
def test_a_model_without_a_linear_head_is_refused(name: str, message: str, timm: list[dict[str, Any]]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(f"timm:{name}")
    assert message in str(caught.value)


def test_features_leave_no_hook_behind_when_the_model_fails(timm: list[dict[str, Any]]) -> None:
    model = build("timm:tiny")
    with pytest.raises(RuntimeError):
        model.features(torch.randn(2, 1, 8, 8))
    assert not model.head._forward_pre_hooks


def test_models_of_two_names_differ_in_their_text(timm: list[dict[str, Any]]) -> None:
    assert repr(build("timm:tiny")) != repr(build("timm:tiny.in1k"))


# --- packages --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["timm", "torchvision"])
def test_a_missing_package_is_one_sentence(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (kind, f"{kind}.models"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        check_model(f"{kind}:resnet18")
    assert str(caught.value) == (
        f"The model '{kind}:resnet18' needs the package '{kind}', which is not installed. "
        f"Install it with: pip install 'softlabel[{kind}]'"
    )


def test_a_broken_package_is_said_to_be_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr("softlabel.models._bridge.importlib.import_module", broken)
    with pytest.raises(
        ConfigError, match=r"installed but cannot be imported \(operator torchvision::nms does not exist"
    ):
        check_model("timm:resnet18")


def test_the_facts_of_a_bridge_are_its_version(timm: list[dict[str, Any]], torchvision: list[dict[str, Any]]) -> None:
    assert model_facts("timm:tiny") == {"timm": "1.2.3"}
    assert model_facts("torchvision:tiny") == {"torchvision": "0.99"}
    assert model_facts("convnet-3:width=4") == model_facts("vit") == {}
