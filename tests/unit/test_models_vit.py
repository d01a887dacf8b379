"""The MLP and the Vision Transformer: sizes from formulas, the arithmetic against torch's own, stacks, mistakes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from softlabel.core import ConfigError, stream
from softlabel.models import Mlp, Vit, build_model, check_model

CIFAR = (3, 32, 32)


def size_of(spec: str, shape: tuple[int, int, int], classes: int) -> int:
    model = build_model(spec, image_shape=shape, classes=classes, seed=0)
    return sum(parameter.numel() for parameter in model.parameters())


def batch_of(shape: tuple[int, int, int], count: int = 3) -> torch.Tensor:
    return torch.randn(count, *shape, generator=stream(0, "images"), dtype=torch.float64)


def vit_parameters(patch: int, width: int, depth: int, tokens: int, channels: int, classes: int) -> int:
    embedding = (channels * patch * patch + 1) * width + tokens * width
    attention = (width + 1) * 3 * width + (width + 1) * width
    block = 2 * 2 * width + attention + (width + 1) * 4 * width + (4 * width + 1) * width
    return embedding + depth * block + 2 * width + (width + 1) * classes


# --- sizes and arithmetic --------------------------------------------------------------------------------------


def test_the_mlp_has_the_size_of_dc() -> None:
    assert size_of("mlp", CIFAR, 10) == (3072 + 1) * 128 + (128 + 1) * 128 + (128 + 1) * 10 == 411_146


@pytest.mark.parametrize(("depth", "hidden"), [(1, 0), (2, 1), (5, 4)])
def test_the_depth_of_an_mlp_counts_its_head(depth: int, hidden: int) -> None:
    model = build_model(f"mlp:depth={depth},width=5", image_shape=(1, 4, 6), classes=3, seed=0)
    assert isinstance(model, Mlp)
    assert [type(layer) for layer in model.body] == [nn.Flatten, *[nn.Linear, nn.ReLU] * hidden]
    assert model.feature_size == (5 if hidden else 24)


def test_an_mlp_of_depth_1_is_a_linear_classifier() -> None:
    model = build_model("mlp:depth=1", image_shape=(1, 4, 4), classes=3, seed=0).double()
    images = batch_of((1, 4, 4), 2)
    torch.testing.assert_close(model(images).sum(dim=0), model(images.sum(0, True))[0] + model.head.bias)


@pytest.mark.parametrize(
    ("spec", "shape", "expected"),
    [
        ("vit", CIFAR, vit_parameters(4, 192, 6, 64, 3, 10)),
        ("vit", (1, 28, 28), vit_parameters(4, 192, 6, 49, 1, 10)),
        ("vit:patch=8", (3, 64, 64), vit_parameters(8, 192, 6, 64, 3, 10)),
        ("vit:patch=4,width=32,depth=2,heads=4", (3, 8, 24), vit_parameters(4, 32, 2, 12, 3, 10)),
    ],
)
def test_a_vit_has_the_size_of_its_formula(spec: str, shape: tuple[int, int, int], expected: int) -> None:
    assert size_of(spec, shape, 10) == expected


def test_a_block_is_torchs_pre_norm_encoder_layer() -> None:
    model = build_model("vit:width=12,depth=1,heads=3", image_shape=(3, 16, 16), classes=4, seed=0).double()
    assert isinstance(model, Vit)
    block = model.blocks[0]
    layer = nn.TransformerEncoderLayer(12, 3, 48, 0.0, F.gelu, batch_first=True, norm_first=True, dtype=torch.float64)
    names = {"norm1": "attend.0", "norm2": "think.0", "linear1": "think.1", "linear2": "think.3"}
    names |= {"self_attn.in_proj_": "attend.1.projections.", "self_attn.out_proj": "attend.1.merge"}
    state = dict(block.state_dict())
    for theirs, ours in names.items():
        state = {key.replace(ours, theirs): value for key, value in state.items()}
    layer.load_state_dict(state)
    tokens = torch.randn(2, 9, 12, dtype=torch.float64, generator=stream(0, "tokens"))
    torch.testing.assert_close(block(tokens), layer(tokens))


def test_a_vit_starts_as_documented() -> None:
    model = build_model("vit", image_shape=CIFAR, classes=10, seed=0)
    for name, parameter in model.named_parameters():
        if name == "positions" or (name.endswith("weight") and parameter.dim() > 1):
            assert 0.018 < float(parameter.detach().std()) < 0.022, name
        elif name.endswith("bias"):
            assert not parameter.any(), name


def test_a_vit_knows_where_its_patches_are() -> None:
    model = build_model("vit:width=12,depth=1", image_shape=(1, 8, 8), classes=3, seed=0).double().eval()
    images = batch_of((1, 8, 8), 1)
    moved = images.roll(4, dims=3)  # the same patches in other places
    assert not torch.allclose(model(images), model(moved))
    with torch.no_grad():
        model.positions.zero_()
    torch.testing.assert_close(model(images), model(moved))


# --- stacks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["mlp:width=6", "vit:width=12,depth=2,heads=3", "vit:width=8,depth=1,heads=1,patch=8"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 8, 24)])
def test_models_in_one_vmap_equal_one_after_another(spec: str, shape: tuple[int, int, int]) -> None:
    models = [build_model(spec, image_shape=shape, classes=4, seed=seed).double() for seed in range(3)]
    parameters, buffers = stack_module_state(models)
    images = batch_of(shape)

    def one(own: dict[str, torch.Tensor], own_buffers: dict[str, torch.Tensor]) -> torch.Tensor:
        return functional_call(models[0], (own, own_buffers), (images,))  # type: ignore[no-any-return]

    together = vmap(one)(parameters, buffers)
    alone = torch.stack([model(images) for model in models])
    torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)
    together.square().sum().backward()
    alone.square().sum().backward()
    for name, stacked in parameters.items():
        gradients = torch.stack([dict(model.named_parameters())[name].grad for model in models])
        torch.testing.assert_close(stacked.grad, gradients, rtol=1e-9, atol=1e-9)


def test_the_text_of_a_vit_tells_its_heads() -> None:
    """Stacks put models of one text together, and the shapes of the weights do not tell the heads."""
    texts = [repr(build_model(f"vit:width=12,depth=1,heads={n}", image_shape=CIFAR, classes=4, seed=0)) for n in (2, 3)]
    assert texts[0] != texts[1]


# --- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mlp:depth=0", "The option 'depth' of the model 'mlp' must be 1 or more. Got 0 instead."),
        ("mlp:width=-1", "The option 'width' of the model 'mlp' must be 1 or more. Got -1 instead."),
        ("mlp:heads=3", "The model 'mlp' has no option 'heads'. Its options are: depth, width."),
        ("vit:patch=0", "The option 'patch' of the model 'vit' must be 1 or more. Got 0 instead."),
        ("vit:depth=half", "The option 'depth' of the model 'vit' must be int. Got 'half' instead."),
        (
            "vit:width=100",
            "The width of the model 'vit' is shared by its heads, and 100 does not divide by 3. Choose a width that "
            "does, e.g. 102.",
        ),
    ],
)
def test_a_bad_option_says_what_is_expected(spec: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_model(spec)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("spec", "shape", "fitting", "nearest"),
    [
        ("vit", (3, 30, 30), "1, 2, 3, 5, 6, 10, 15, 30", 3),
        ("vit", (1, 32, 30), "1, 2", 2),
        ("vit:patch=16", (3, 8, 8), "1, 2, 4, 8", 8),
        ("vit", (1, 2, 2), "1, 2", 2),
    ],
)
def test_an_image_that_cannot_be_cut_is_refused(
    spec: str, shape: tuple[int, int, int], fitting: str, nearest: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        build_model(spec, image_shape=shape, classes=2, seed=0)
    patch = 16 if "16" in spec else 4
    assert str(caught.value) == (
        f"The model 'vit' cuts images into patches of {patch}x{patch} px, and {shape[1]}x{shape[2]} px cannot be cut "
        f"so. Choose a patch that divides both sides ({fitting}), e.g. vit:patch={nearest}, or resize the images with "
        f"--image-size."
    )
    build_model(f"vit:patch={nearest},width=3", image_shape=shape, classes=2, seed=0)
