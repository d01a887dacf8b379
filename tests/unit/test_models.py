"""Models by spec: shapes, sizes known from the literature, norms, seeds, and mistakes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from softlabel.core import ConfigError, UnknownNameError, stream, tensor_fingerprint
from softlabel.models import MODELS, ConvNet, ResNet, as_classifier, build_model, check_model
from softlabel.models._norms import channels_last, norm_layer

CIFAR = (3, 32, 32)
SMALL = [
    "convnet-1:width=4",
    "convnet-2:width=4,norm=instance",
    "convnet-3:width=4,norm=group",
    "convnet-3:width=4,norm=none",
    "resnet-18:width=4",
    "resnet-50:width=2",
    "resnet-101:width=2",
    "resnet-18-imagenet:width=4",
    "resnet-50-imagenet:width=2",
    "resnet-101-imagenet:width=2",
]


def batch_of(shape: tuple[int, int, int], count: int = 3) -> torch.Tensor:
    return torch.randn(count, *shape, generator=stream(0, "images"))


def parameters_of(spec: str, shape: tuple[int, int, int], classes: int) -> int:
    with torch.device("meta"):
        model = build_model(spec, image_shape=shape, classes=classes, seed=0)
    return sum(parameter.numel() for parameter in model.parameters())


def digest(model: nn.Module) -> str:
    return tensor_fingerprint(*model.state_dict().values())


# --- shapes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 8, 12), (1, 17, 9), (3, 64, 64)])
@pytest.mark.parametrize("spec", SMALL)
def test_logits_and_features_have_their_shapes(spec: str, shape: tuple[int, int, int]) -> None:
    model = build_model(spec, image_shape=shape, classes=7, seed=0)
    images, classifier = batch_of(shape), as_classifier(model)
    features = classifier.features(images)
    assert features.shape == (3, classifier.feature_size)
    assert model(images).shape == (3, 7)
    model.eval()
    torch.testing.assert_close(model(images), model.head(classifier.features(images)))
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(last), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", SMALL)
def test_every_parameter_learns(spec: str) -> None:
    model = build_model(spec, image_shape=(3, 16, 16), classes=3, seed=0)
    model(batch_of((3, 16, 16), 4)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize(("spec", "side"), [("resnet-18", 4), ("resnet-18-imagenet", 1), ("resnet-50", 4)])
def test_the_two_forms_of_resnet_shrink_32_px_differently(spec: str, side: int) -> None:
    model = build_model(f"{spec}:width=2", image_shape=CIFAR, classes=2, seed=0).eval()
    assert isinstance(model, ResNet)
    assert model.body[:-1](batch_of(CIFAR)).shape[-2:] == (side, side)


def test_convnet_halves_28_px_without_padding() -> None:
    model = build_model("convnet-3:width=5", image_shape=(1, 28, 28), classes=10, seed=0)
    assert isinstance(model, ConvNet)
    assert model.feature_size == 5 * 3 * 3
    assert as_classifier(build_model("convnet-2:width=5", image_shape=(1, 8, 13), classes=2, seed=0)).feature_size == 30


# --- sizes -----------------------------------------------------------------------------------------------------


def convnet_parameters(depth: int, width: int, channels: int, side: int, classes: int, affine: bool = True) -> int:
    convolutions = (9 * channels + 1) * width + (depth - 1) * (9 * width + 1) * width
    norms = 2 * width * depth if affine else 0
    return convolutions + norms + (width * (side >> depth) ** 2 + 1) * classes


def test_convnet_3_on_cifar_has_its_known_size() -> None:
    assert parameters_of("convnet-3", CIFAR, 10) == convnet_parameters(3, 128, 3, 32, 10) == 320_010


@pytest.mark.parametrize(
    ("spec", "shape", "expected"),
    [
        ("convnet-4", (3, 64, 64), convnet_parameters(4, 128, 3, 64, 10)),
        ("convnet-3:width=64,norm=instance", CIFAR, convnet_parameters(3, 64, 3, 32, 10)),
        ("convnet-3:norm=group", CIFAR, convnet_parameters(3, 128, 3, 32, 10)),
        ("convnet-3:norm=none", (1, 28, 28), convnet_parameters(3, 128, 1, 28, 10, affine=False)),
    ],
)
def test_convnets_have_the_size_of_their_formula(spec: str, shape: tuple[int, int, int], expected: int) -> None:
    assert parameters_of(spec, shape, 10) == expected


@pytest.mark.parametrize(
    ("spec", "shape", "classes", "expected"),
    [
        ("resnet-18", CIFAR, 10, 11_173_962),
        ("resnet-50", CIFAR, 10, 23_520_842),
        ("resnet-18-imagenet", (3, 224, 224), 1000, 11_689_512),
        ("resnet-50-imagenet", (3, 224, 224), 1000, 25_557_032),
        ("resnet-101-imagenet", (3, 224, 224), 1000, 44_549_160),
    ],
)
def test_resnets_have_their_published_sizes(
    spec: str, shape: tuple[int, int, int], classes: int, expected: int
) -> None:
    assert parameters_of(spec, shape, classes) == expected


# --- norms -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "groups"), [(128, 32), (64, 32), (24, 8), (7, 1)])
def test_group_norm_has_32_groups_or_the_next_smaller_power_of_two(width: int, groups: int) -> None:
    model = build_model(f"convnet-1:width={width},norm=group", image_shape=CIFAR, classes=2, seed=0)
    assert [module.num_groups for module in model.modules() if isinstance(module, nn.GroupNorm)] == [groups]


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_group_norm_is_torch_s_and_keeps_the_memory_format(memory: torch.memory_format) -> None:
    images = torch.randn(4, 12, 6, 5).contiguous(memory_format=memory).requires_grad_()
    twin = images.detach().clone().requires_grad_()
    ours, theirs = norm_layer("instance", 12), nn.GroupNorm(12, 12)
    out, expected = ours(images), theirs(twin)
    assert out.is_contiguous(memory_format=memory)
    torch.testing.assert_close(out, expected)
    weights = torch.randn(4, 12, 6, 5)
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(images.grad, twin.grad)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_a_network_laid_out_channels_last_computes_the_same_with_the_same_weights() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.GroupNorm(2, 8, eps=1e-3), nn.SiLU()), nn.Flatten(2),
                            nn.GroupNorm(4, 8))  # fmt: skip
    nn.init.normal_(network[1][0].weight)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    images = torch.randn(4, 3, 9, 9)
    expected = network(images)
    assert channels_last(network) is network
    torch.testing.assert_close(network(images), expected)
    torch.testing.assert_close(dict(network.state_dict()), before)
    assert not any(type(module) is nn.GroupNorm for module in network.modules())
    assert network[0](images).is_contiguous(memory_format=torch.channels_last)
    assert network[:2](images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm2d), ("instance", nn.GroupNorm), ("group", nn.GroupNorm)]
)
def test_every_block_has_its_norm(norm: str, kind: type[nn.Module]) -> None:
    model = build_model(f"convnet-3:width=48,norm={norm}", image_shape=CIFAR, classes=2, seed=0)
    norms = [module for module in model.modules() if isinstance(module, (nn.BatchNorm2d, nn.GroupNorm))]
    assert len(norms) == 3
    assert all(isinstance(module, kind) for module in norms)
    groups = {module.num_groups for module in norms if isinstance(module, nn.GroupNorm)}
    assert groups == {"batch": set(), "instance": {48}, "group": {16}}[norm]


def test_instance_norm_is_instance_norm() -> None:
    model = build_model("convnet-1:width=6,norm=instance", image_shape=CIFAR, classes=2, seed=0)
    images = batch_of((6, 9, 7))
    norm = next(module for module in model.modules() if isinstance(module, nn.GroupNorm))
    torch.testing.assert_close(norm(images), F.instance_norm(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "sees_batch"), [("batch", True), ("instance", False), ("group", False), ("none", False)]
)
def test_only_batch_norm_sees_the_batch(norm: str, sees_batch: bool) -> None:
    model = build_model(f"convnet-2:width=4,norm={norm}", image_shape=CIFAR, classes=3, seed=0).train()
    images = batch_of(CIFAR, 4)
    alone, together = model(images[:1]), model(images)[:1]
    assert torch.allclose(alone, together, rtol=1e-4, atol=1e-5) == (not sees_batch)


# --- seeds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["convnet-2:width=4", "resnet-18:width=4"])
def test_one_seed_one_initialisation(spec: str) -> None:
    first, again, other = (digest(build_model(spec, image_shape=CIFAR, classes=3, seed=seed)) for seed in (5, 5, 6))
    assert first == again != other


def test_the_initialisation_does_not_depend_on_what_was_drawn_before() -> None:
    first = digest(build_model("convnet-2:width=4", image_shape=CIFAR, classes=3, seed=5))
    torch.rand(17)
    assert digest(build_model("convnet-2:width=4", image_shape=CIFAR, classes=3, seed=5)) == first


def test_no_global_generator_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("the generators of all GPUs were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", fail)
    torch.rand(3)  # so that no earlier build has left this very state
    before = torch.get_rng_state()
    build_model("convnet-2:width=4", image_shape=CIFAR, classes=3, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_models_are_built_in_float32_on_the_cpu() -> None:
    model = build_model("resnet-18:width=2", image_shape=CIFAR, classes=3, seed=2**63 - 1)
    assert {(parameter.dtype, parameter.device.type) for parameter in model.parameters()} == {(torch.float32, "cpu")}


# --- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec", ["convnet3", "resnet-34", "convnet-0", "convnet-10", "vit-16", "mlp-3", "hf", "", "resnet-18-big"]
)
def test_an_unknown_model_lists_the_choices(spec: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        check_model(spec)
    assert f"There is no model named {spec!r}." in str(caught.value)
    assert f"Choose one of: {', '.join(sorted(MODELS))}. A ConvNet takes any depth from 1 to 9." in str(caught.value)


def test_every_listed_model_exists() -> None:
    for spec in MODELS:
        if ":" not in spec:  # those of other packages have tests of their own
            check_model(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("convnet-3:widht=64", "The model 'convnet-3' has no option 'widht'. Its options are: width, norm."),
        ("resnet-18:norm=batch", "The model 'resnet-18' has no option 'norm'. Its options are: width."),
        ("convnet-3:width=wide", "The option 'width' of the model 'convnet-3' must be int. Got 'wide' instead."),
        ("convnet-3:width=0", "The option 'width' of the model 'convnet-3' must be 1 or more. Got 0 instead."),
        ("resnet-18:width=-4", "The option 'width' of the model 'resnet-18' must be 1 or more. Got -4 instead."),
        ("convnet-3:norm=layer", "There is no norm named 'layer'. Choose one of: batch, group, instance, none."),
    ],
)
def test_a_bad_option_says_what_is_expected(spec: str, message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        check_model(spec)
    assert str(caught.value) == message


@pytest.mark.parametrize(("depth", "shape"), [(4, (3, 8, 32)), (5, (1, 28, 28)), (1, (3, 4, 1))])
def test_an_image_that_is_too_small_is_refused(depth: int, shape: tuple[int, int, int]) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(f"convnet-{depth}", image_shape=shape, classes=2, seed=0)
    assert str(caught.value) == (
        f"convnet-{depth} halves the image {depth} times, and {shape[1]}x{shape[2]} px is too small for that. "
        "Choose a smaller depth."
    )


def test_the_smallest_image_that_fits_is_taken() -> None:
    model = build_model("convnet-3:width=2", image_shape=(1, 8, 8), classes=2, seed=0)
    assert model(batch_of((1, 8, 8))).shape == (3, 2)
