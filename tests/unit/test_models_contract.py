"""What every architecture owes the rest of softlabel, whoever made it."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from softlabel.core import stream, tensor_fingerprint
from softlabel.models import as_classifier, build_model, check_model

Shape = tuple[int, int, int]

SHAPES: list[Shape] = [(3, 32, 32), (1, 28, 28), (1, 16, 24)]
TINY_VIT = "vit:patch=4,width=12,depth=2,heads=3"
HF = ["hf-resnet", "hf-vit"]
SPECS = ["convnet-2:width=4", "resnet-18:width=4", "resnet-18-imagenet:width=4", "mlp:width=6", "mlp:depth=1", TINY_VIT]


@pytest.fixture(params=[*SPECS, *HF])
def spec(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A model's spec; those of Hugging Face name a configuration that is written here."""
    name: str = request.param
    return f"hf:{configuration(name, tmp_path)}" if name in HF else name


def configuration(name: str, folder: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    if name == "hf-resnet":
        config = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic")
    else:
        config = transformers.ViTConfig(
            patch_size=4, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=24
        )
    config.save_pretrained(folder)
    return folder


def build(spec: str, shape: Shape = (3, 32, 32), seed: int = 0) -> nn.Module:
    return build_model(spec, image_shape=shape, classes=7, seed=seed)


def batch_of(shape: Shape, count: int = 4) -> torch.Tensor:
    return torch.randn(count, *shape, generator=stream(0, "images"))


def digest(model: nn.Module) -> str:
    return tensor_fingerprint(*model.state_dict().values())


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_the_head_of_the_features(spec: str, shape: Shape) -> None:
    model = build(spec, shape).eval()
    images, classifier = batch_of(shape), as_classifier(model)
    features = classifier.features(images)
    assert features.shape == (4, classifier.feature_size)
    assert model(images).shape == (4, 7)
    torch.testing.assert_close(model(images), model.head(features))


def test_a_spec_is_checked_without_building(spec: str) -> None:
    check_model(spec)


def test_the_seed_alone_decides_the_weights(spec: str) -> None:
    first = digest(build(spec, seed=5))
    torch.rand(17)
    assert digest(build(spec, seed=5)) == first != digest(build(spec, seed=6))


def test_the_global_generator_is_left_as_it_was(spec: str) -> None:
    torch.rand(3)  # so that no earlier build has left this very state
    before = torch.get_rng_state()
    build(spec, seed=5)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fresh_model_is_float32_and_in_training_mode(spec: str) -> None:
    model = build(spec)
    assert {(parameter.dtype, parameter.device.type) for parameter in model.parameters()} == {(torch.float32, "cpu")}
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    counts = [buffer for name, buffer in model.named_buffers() if name.endswith("num_batches_tracked")]
    assert not any(counts)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_gradient_reaches_every_parameter(spec: str, shape: Shape) -> None:
    model = build(spec, shape)
    F.cross_entropy(model(batch_of(shape)), torch.arange(4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # Biases ahead of a batch norm, and of an attention's keys, move nothing.
        assert parameter.grad.any() or name.endswith("bias"), name


def test_features_carry_the_gradient(spec: str) -> None:
    images = batch_of((3, 32, 32)).requires_grad_()
    as_classifier(build(spec)).features(images).square().sum().backward()
    assert images.grad is not None
    assert images.grad.any()


def test_a_copy_is_a_model_of_its_own(spec: str) -> None:
    model, images = build(spec).eval(), batch_of((3, 32, 32))
    logits, features = model(images), as_classifier(model).features(images)
    copy = deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(copy(images), logits)
    assert torch.equal(as_classifier(copy).features(images), features)


def test_weights_go_into_a_model_of_another_seed(spec: str) -> None:
    first, second, images = build(spec, seed=1).eval(), build(spec, seed=2).eval(), batch_of((3, 32, 32))
    assert not torch.equal(first(images), second(images))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images), second(images))


def test_a_step_under_bfloat16_and_channels_last_trains(spec: str) -> None:
    model = build(spec).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(batch_of((3, 32, 32)).contiguous(memory_format=torch.channels_last))
    F.cross_entropy(logits.float(), torch.arange(4)).backward()
    optimizer.step()
    assert logits.dtype == torch.bfloat16
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.isfinite().all(), name
        assert not torch.equal(parameter, before[name]) or name.endswith("bias"), name


def test_the_memory_layout_does_not_matter(spec: str) -> None:
    model, images = build(spec).eval(), batch_of((3, 32, 32))
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(last), model(images), rtol=1e-4, atol=1e-4)
