"""Views as data: reproducible, storable, harmless to their input, and clear about mistakes."""

from typing import Any

import pytest
import torch

from softlabel.core import ConfigError, DataError, StoreError, UnknownNameError, fingerprint, plain, stream
from softlabel.views import (
    VIEW_OPS,
    Colour,
    CutMix,
    Cutout,
    DSAClassic,
    DSAGift,
    FactorCrop,
    Flip,
    Mixup,
    PatchShuffle,
    Policy,
    RandomResizedCrop,
    Rotate,
    Scale,
    ShiftCrop,
    ViewOp,
    ViewParams,
    apply,
    crop_resize,
    from_tensors,
    policy_from_plain,
    random_resized_boxes,
    sample,
    to_tensors,
)

POLICIES: dict[str, Policy] = {
    "rded": (PatchShuffle(factor=2), RandomResizedCrop(min_scale=0.5), Flip(), CutMix()),
    "gift": (FactorCrop(factor=2), DSAGift()),
    "classic": (DSAClassic(),),
    "cifar": (ShiftCrop(padding=2), Flip(), Mixup()),
    "single": (Colour(), Scale(), Rotate(), Cutout()),
    "empty": (),
}
SHAPES = [(3, 16, 16), (1, 16, 16), (3, 11, 17), (1, 18, 9)]


def images_of(shape: tuple[int, ...], batch: int = 6) -> torch.Tensor:
    return torch.randn(batch, *shape, generator=stream(0, "images"))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", POLICIES)
def test_same_seed_same_bits_other_seed_other_view(name: str, shape: tuple[int, int, int]) -> None:
    images, policy = images_of(shape), POLICIES[name]
    first, again, other = (apply(images, sample(policy, 6, *shape[1:], stream(seed, "views"))) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "empty")
    assert first.shape == images.shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", POLICIES)
def test_a_view_replays_bit_for_bit(name: str, shape: tuple[int, int, int]) -> None:
    images = images_of(shape)
    generator = stream(3, "views")
    for _ in range(8):  # both DSA mixtures pass through several of their parts
        params = sample(POLICIES[name], 6, *shape[1:], generator)
        stored = {key: tensor.clone() for key, tensor in sorted(to_tensors(params).items(), reverse=True)}
        replayed = from_tensors(stored)
        assert [op for op, _ in replayed.ops] == [op.op for op in POLICIES[name]]
        assert torch.equal(apply(images, replayed), apply(images, params))
        assert all(torch.equal(to_tensors(replayed)[key], tensor) for key, tensor in stored.items())
        assert (params.mix is None) == (replayed.mix is None)


@pytest.mark.parametrize("name", POLICIES)
def test_inputs_and_numbers_stay_unchanged(name: str) -> None:
    images = images_of((3, 16, 16))
    params = sample(POLICIES[name], 6, 16, 16, stream(4, "views"))
    before = {key: tensor.clone() for key, tensor in to_tensors(params).items()}
    copy = images.clone()
    first = apply(images, params)
    assert torch.equal(images, copy)
    assert all(torch.equal(to_tensors(params)[key], tensor) for key, tensor in before.items())
    assert torch.equal(apply(images, params), first)


def test_nothing_reads_the_global_generator() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    for policy in POLICIES.values():
        apply(images_of((3, 16, 16)), sample(policy, 6, 16, 16, stream(5, "views")))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", POLICIES)
def test_every_tensor_has_the_batch_first_and_is_whole(name: str) -> None:
    for _, values in sample(POLICIES[name], 6, 16, 16, stream(6, "views")).ops:
        assert values
        assert all(tensor.shape[0] == 6 and tensor.is_contiguous() for tensor in values.values())


@pytest.mark.parametrize(
    "op",
    [
        Flip(p=0.0),
        ShiftCrop(padding=0),
        RandomResizedCrop(min_scale=1.0),
        FactorCrop(factor=1),
        PatchShuffle(factor=1),
        Cutout(ratio=0.0),
        CutMix(p=0.0),
        Mixup(p=0.0),
    ],
    ids=lambda op: op.op,
)
def test_identity_settings_change_no_bit(op: ViewOp) -> None:
    images = images_of((3, 16, 16))
    assert torch.equal(apply(images, sample((op,), 6, 16, 16, stream(7, "views"))), images)


@pytest.mark.parametrize("op", [Scale(ratio=1.0), Rotate(degrees=0.0)], ids=lambda op: op.op)
def test_identity_resampling_changes_only_the_last_bits(op: ViewOp) -> None:
    images = images_of((3, 16, 13))
    out = apply(images, sample((op,), 6, 16, 13, stream(7, "views")))
    torch.testing.assert_close(out, images, rtol=0, atol=1e-5)


def test_saturation_leaves_grey_images_alone() -> None:
    images = images_of((1, 8, 8))
    params = sample((Colour(brightness=0.0, contrast=1.0),), 6, 8, 8, stream(8, "views"))
    values = {**params.ops[0][1], "contrast": torch.ones(6)}
    out = apply(images, ViewParams((("colour", values),), 6, 8, 8))
    torch.testing.assert_close(out, images)


@pytest.mark.parametrize("name", POLICIES)
def test_float64_and_half_images_keep_their_dtype(name: str) -> None:
    for dtype in (torch.float64, torch.bfloat16):
        images = images_of((3, 16, 16)).to(dtype)
        assert apply(images, sample(POLICIES[name], 6, 16, 16, stream(9, "views"))).dtype == dtype


@pytest.mark.parametrize("name", POLICIES)
def test_autocast_does_not_change_views(name: str) -> None:
    images, params = images_of((3, 16, 16)), sample(POLICIES[name], 6, 16, 16, stream(10, "views"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = apply(images, params)
    assert torch.equal(inside, apply(images, params))


def test_to_moves_every_number() -> None:
    params = sample(POLICIES["rded"], 6, 16, 16, stream(11, "views")).to("meta")
    assert {tensor.device.type for _, values in params.ops for tensor in values.values()} == {"meta"}
    assert (params.batch, params.height, params.width) == (6, 16, 16)


def test_the_table_names_every_op() -> None:
    assert {name: op_class().op for name, op_class in VIEW_OPS.items()} == {name: name for name in VIEW_OPS}


@pytest.mark.parametrize("name", POLICIES)
def test_policies_go_through_plain_data(name: str) -> None:
    policy = POLICIES[name]
    assert policy_from_plain(plain(policy)) == policy
    assert fingerprint(policy_from_plain(plain(policy))) == fingerprint(policy)


def test_fingerprints_tell_ops_and_settings_apart() -> None:
    policies = [*POLICIES.values(), *((op_class(),) for op_class in VIEW_OPS.values()), (Flip(p=0.4),)]
    assert len({fingerprint(policy) for policy in policies}) == len(policies) - 1  # "classic" is there twice


@pytest.mark.parametrize(
    ("op_class", "settings", "words"),
    [
        (Flip, {"p": 1.5}, "flip needs p to be a number from 0 to 1. Got 1.5"),
        (Flip, {"p": float("nan")}, "Got nan"),
        (ShiftCrop, {"padding": -1}, "padding"),
        (ShiftCrop, {"padding": 1.5}, "whole number"),
        (RandomResizedCrop, {"min_scale": 0.5, "max_scale": 0.4}, "min_scale"),
        (RandomResizedCrop, {"min_scale": 0.0}, "min_scale"),
        (RandomResizedCrop, {"max_scale": 1.5}, "max_scale"),
        (RandomResizedCrop, {"min_ratio": 2.0}, "min_ratio"),
        (FactorCrop, {"factor": 0}, "factor"),
        (PatchShuffle, {"factor": 0}, "factor"),
        (PatchShuffle, {"factor": True}, "factor"),
        (Colour, {"contrast": -0.1}, "contrast"),
        (Scale, {"ratio": 0.9}, "at least 1"),
        (Rotate, {"degrees": 200.0}, "degrees"),
        (Cutout, {"ratio": 1.1}, "ratio"),
        (CutMix, {"alpha": 0.0}, "alpha"),
        (CutMix, {"p": -0.1}, "p to be"),
        (Mixup, {"alpha": -1.0}, "alpha"),
        (Mixup, {"p": "half"}, "'half'"),
        (DSAGift, {"rotate": 181.0}, "dsa_gift: The view rotate"),
        (DSAClassic, {"crop": 0.6}, "crop"),
    ],
)
def test_bad_settings_are_named(op_class: type[ViewOp], settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        op_class(**settings)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ((CutMix(), Mixup()), "cutmix and mixup: keep one"),
        ((CutMix(), Flip()), "cutmix must come last"),
        ((PatchShuffle(factor=9),), "factor of at most 8"),
        ((FactorCrop(factor=9),), "8x12 pixels into 9x9"),
        ((ShiftCrop(padding=8),), "padding below 8"),
        (("flip",), "tuple of view ops"),
    ],
)
def test_policies_that_do_not_fit_are_refused(policy: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        sample(policy, 4, 8, 12, stream(0, "views"))


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one image"):
        sample((), 0, 8, 8, stream(0, "views"))


def test_images_must_be_those_the_view_was_drawn_for() -> None:
    params = sample((Flip(),), 4, 8, 12, stream(0, "views"))
    with pytest.raises(DataError, match=r"\[4, C, 8, 12\]"):
        apply(torch.zeros(4, 3, 12, 8), params)
    with pytest.raises(DataError, match=r"\[4, C, 8, 12\]"):
        apply(torch.zeros(5, 3, 8, 12), params)
    with pytest.raises(DataError, match="uint8"):
        apply(torch.zeros(4, 3, 8, 12, dtype=torch.uint8), params)


def test_unknown_ops_list_the_choices() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'flip'"):
        policy_from_plain([{"op": "flipp"}])
    with pytest.raises(UnknownNameError, match="view op"):
        apply(torch.zeros(1, 3, 8, 8), ViewParams((("swirl", {"x": torch.zeros(1)}),), 1, 8, 8))
    with pytest.raises(ConfigError, match="'op'"):
        policy_from_plain([{"p": 0.5}])
    with pytest.raises(ConfigError, match="no option 'q'"):
        policy_from_plain([{"op": "flip", "q": 0.5}])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tensors: tensors.pop("shape"), "'shape'"),
        (lambda tensors: tensors.pop("0.shift_crop.shifts"), "some are missing"),
        (lambda tensors: tensors.update({"0.flip.flags": torch.zeros(6)}), "one op per position"),
        (lambda tensors: tensors.update({"note": torch.zeros(6)}), "'note'"),
    ],
)
def test_tensors_that_are_no_view_are_refused(change: Any, words: str) -> None:
    tensors = to_tensors(sample(POLICIES["cifar"], 6, 16, 16, stream(0, "views")))
    change(tensors)
    with pytest.raises(StoreError, match=words):
        from_tensors(tensors)


@pytest.mark.parametrize(
    ("boxes", "size", "words"),
    [
        ([[0, 0, 8, 8]], (4, 4), "one per image"),
        ([[0, 0, 8, 8], [1, 0, 8, 8]], (4, 4), r"Box 1 is \[1, 0, 8, 8\]"),
        ([[0, 0, 0, 8], [0, 0, 8, 8]], (4, 4), "Box 0"),
        ([[0, -1, 4, 4], [0, 0, 8, 8]], (4, 4), "Box 0"),
        ([[0, 0, 8, 8], [0, 0, 8, 8]], (0, 4), "at least 1x1"),
    ],
)
def test_impossible_boxes_are_refused(boxes: list[list[int]], size: tuple[int, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        crop_resize(torch.zeros(2, 3, 8, 8), torch.tensor(boxes), size)


def test_impossible_scales_are_refused() -> None:
    with pytest.raises(ConfigError, match="random_resized_boxes needs 0 < min_scale"):
        random_resized_boxes(2, 8, 8, stream(0, "views"), min_scale=0.0)
    with pytest.raises(ConfigError, match="min_ratio"):
        random_resized_boxes(2, 8, 8, stream(0, "views"), min_ratio=2.0)
