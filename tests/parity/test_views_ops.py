"""Every op against an obvious restatement of its formula, one image and one pixel loop at a time."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import stream
from softlabel.views import (
    Colour,
    CutMix,
    Cutout,
    DSAClassic,
    DSAGift,
    FactorCrop,
    Flip,
    Mixup,
    PatchShuffle,
    RandomResizedCrop,
    Rotate,
    Scale,
    ShiftCrop,
    ViewOp,
    apply,
    sample,
)

Values = dict[str, Tensor]


def each(images: Tensor, change: Callable[[int, Tensor], Tensor]) -> Tensor:
    return torch.stack([change(index, image) for index, image in enumerate(images)])


def slow_flip(images: Tensor, values: Values) -> Tensor:
    return each(images, lambda i, image: image.flip(-1) if values["flags"][i] else image)


def slow_shift(images: Tensor, values: Values) -> Tensor:
    height, width = images.shape[2:]

    def change(index: int, image: Tensor) -> Tensor:
        down, across = values["shifts"][index].tolist()
        out = torch.zeros_like(image)
        for row in range(height):
            for column in range(width):
                if 0 <= row + down < height and 0 <= column + across < width:
                    out[:, row, column] = image[:, row + down, column + across]
        return out

    return each(images, change)


def slow_zoom(images: Tensor, values: Values) -> Tensor:
    def change(index: int, image: Tensor) -> Tensor:
        top, left, height, width = values["boxes"][index].tolist()
        piece = image[None, :, top : top + height, left : left + width]
        return F.interpolate(piece, image.shape[1:], mode="bilinear", align_corners=False)[0]

    return each(images, change)


def slow_shuffle(images: Tensor, values: Values) -> Tensor:
    def change(index: int, image: Tensor) -> Tensor:
        for axis, key in ((2, "columns"), (1, "rows")):
            factor = values[key].shape[1]
            tiles = image.tensor_split(factor, axis)  # numpy's rule: the first tiles are the longer ones
            image = torch.cat([tiles[k] for k in values[key][index].tolist()], axis)
        return image

    return each(images, change)


def slow_affine(images: Tensor, values: Values) -> Tensor:
    def change(index: int, image: Tensor) -> Tensor:
        grid = F.affine_grid(values["theta"][index][None], [1, *image.shape], align_corners=False)
        return F.grid_sample(image[None], grid, align_corners=False)[0]

    return each(images, change)


def slow_colour(images: Tensor, values: Values) -> Tensor:
    def change(index: int, image: Tensor) -> Tensor:
        image = image + values["brightness"][index]
        mean = image.mean(0, keepdim=True)
        image = (image - mean) * values["saturation"][index] + mean
        mean = image.mean()
        return (image - mean) * values["contrast"][index] + mean

    return each(images, change)


def slow_cutout(images: Tensor, values: Values) -> Tensor:
    def change(index: int, image: Tensor) -> Tensor:
        top, left, height, width = values["boxes"][index].tolist()
        image = image.clone()
        image[:, top : top + height, left : left + width] = 0
        return image

    return each(images, change)


def slow_cutmix(images: Tensor, values: Values) -> Tensor:
    def change(index: int, image: Tensor) -> Tensor:
        top, left, height, width = values["boxes"][index].tolist()
        box = (slice(None), slice(top, top + height), slice(left, left + width))
        image = image.clone()
        image[box] = images[values["partner"][index]][box]
        return image

    return each(images, change)


def slow_mixup(images: Tensor, values: Values) -> Tensor:
    def change(index: int, image: Tensor) -> Tensor:
        weight = values["weight"][index]
        return weight * image + (1 - weight) * images[values["partner"][index]]

    return each(images, change)


def slow_dsa(images: Tensor, values: Values) -> Tensor:
    order = {
        "flip": slow_flip,
        "color": slow_colour,
        "crop": slow_shift,
        "scale": slow_affine,
        "rotate": slow_affine,
        "cutout": slow_cutout,
    }
    for name, slow in order.items():
        part = {key.split(".")[1]: tensor for key, tensor in values.items() if key.split(".")[0] == name}
        if part:
            images = slow(images, part)
    return images


OPS: list[tuple[ViewOp, Callable[[Tensor, Values], Tensor]]] = [
    (Flip(), slow_flip),
    (ShiftCrop(padding=3), slow_shift),
    (RandomResizedCrop(), slow_zoom),
    (RandomResizedCrop(min_scale=0.5), slow_zoom),
    (FactorCrop(factor=2), slow_zoom),
    (FactorCrop(factor=3), slow_zoom),
    (PatchShuffle(factor=2), slow_shuffle),
    (PatchShuffle(factor=3), slow_shuffle),
    (PatchShuffle(factor=5), slow_shuffle),
    (Colour(), slow_colour),
    (Scale(), slow_affine),
    (Rotate(), slow_affine),
    (Cutout(), slow_cutout),
    (CutMix(), slow_cutmix),
    (Mixup(), slow_mixup),
    (DSAClassic(), slow_dsa),
    (DSAGift(), slow_dsa),
]


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 16, 16), (3, 11, 14), (1, 13, 9)])
@pytest.mark.parametrize(("op", "slow"), OPS, ids=[repr(op) for op, _ in OPS])
def test_equals_the_formula_per_image(
    op: ViewOp, slow: Callable[[Tensor, Values], Tensor], shape: tuple[int, int, int]
) -> None:
    generator = stream(0, "parity", op.op, *shape)
    images = torch.randn(6, *shape, generator=generator)
    for _ in range(4):
        params = sample((op,), 6, shape[1], shape[2], generator)
        expected = slow(images, params.ops[0][1])
        torch.testing.assert_close(apply(images, params), expected, rtol=0, atol=2e-5)


def dsa_rotate(image: Tensor, angle: Tensor, align_corners: bool) -> Tensor:
    """DSA's rotation as its papers' codes write it."""
    cosine, sine = torch.cos(angle), torch.sin(angle)
    theta = torch.tensor([[[cosine, -sine, 0], [sine, cosine, 0]]])
    grid = F.affine_grid(theta, [1, *image.shape], align_corners=align_corners)
    return F.grid_sample(image[None], grid, align_corners=align_corners)[0]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 12, 20), (1, 21, 8)])
def test_rotate_in_both_dialects(shape: tuple[int, int, int], align_corners: bool) -> None:
    images = torch.randn(8, *shape, generator=stream(1, "parity"))
    op = Rotate(degrees=40.0, align_corners=align_corners)
    params = sample((op,), 8, shape[1], shape[2], stream(2, "parity"))
    angles = (torch.rand(8, generator=stream(2, "parity")) * 80 - 40) / 180 * math.pi
    expected = each(images, lambda i, image: dsa_rotate(image, angles[i], align_corners))
    torch.testing.assert_close(apply(images, params), expected, rtol=0, atol=1e-4)


def dsa_scale(image: Tensor, across: Tensor, down: Tensor, align_corners: bool) -> Tensor:
    """DSA's zoom as its papers' codes write it."""
    theta = torch.tensor([[[across, 0, 0], [0, down, 0]]])
    grid = F.affine_grid(theta, [1, *image.shape], align_corners=align_corners)
    return F.grid_sample(image[None], grid, align_corners=align_corners)[0]


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(3, 16, 16), (3, 12, 20)])
def test_scale_in_both_dialects(shape: tuple[int, int, int], align_corners: bool) -> None:
    images = torch.randn(8, *shape, generator=stream(3, "parity"))
    op = Scale(ratio=1.4, align_corners=align_corners)
    params = sample((op,), 8, shape[1], shape[2], stream(4, "parity"))
    generator = stream(4, "parity")
    across, down = (torch.rand(8, generator=generator) * (1.4 - 1 / 1.4) + 1 / 1.4 for _ in range(2))
    expected = each(images, lambda i, image: dsa_scale(image, across[i], down[i], align_corners))
    torch.testing.assert_close(apply(images, params), expected, rtol=0, atol=1e-4)


def test_shift_equals_padding_and_cropping() -> None:
    images = torch.randn(5, 3, 8, 10, generator=stream(5, "parity"))
    params = sample((ShiftCrop(padding=2),), 5, 8, 10, stream(6, "parity"))
    padded = F.pad(images, (2, 2, 2, 2))

    def change(index: int, _: Tensor) -> Tensor:
        down, across = (params.ops[0][1]["shifts"][index] + 2).tolist()
        return padded[index, :, down : down + 8, across : across + 10]

    assert torch.equal(apply(images, params), each(images, change))


def torchvision_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], draws: Tensor
) -> list[int]:
    """torchvision's search for a box, in words of one image; draws is [4, 10]."""
    for area_u, ratio_u, top_u, left_u in draws.T.tolist():
        area = height * width * (scale[0] + (scale[1] - scale[0]) * area_u)
        low, high = math.log(ratio[0]), math.log(ratio[1])
        aspect = math.exp(low + (high - low) * ratio_u)
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            top = int(top_u * (height - box_height + 1))
            left = int(left_u * (width - box_width + 1))
            return [top, left, box_height, box_width]
    box_height, box_width = height, width
    if width / height < ratio[0]:
        box_height = round(width / ratio[0])
    elif width / height > ratio[1]:
        box_width = round(height * ratio[1])
    return [(height - box_height) // 2, (width - box_width) // 2, box_height, box_width]


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (32, 32, (0.9, 1.0), (1.0, 1.0)),
        (9, 40, (0.6, 1.0), (3 / 4, 4 / 3)),  # almost always the central box
        (40, 9, (0.6, 1.0), (3 / 4, 4 / 3)),
    ],
)
def test_boxes_equal_torchvisions_search(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    op = RandomResizedCrop(min_scale=scale[0], max_scale=scale[1], min_ratio=ratio[0], max_ratio=ratio[1])
    boxes = sample((op,), 200, height, width, stream(7, "parity")).ops[0][1]["boxes"]
    draws = torch.rand(4, 10, 200, generator=stream(7, "parity"), dtype=torch.float64)
    expected = [torchvision_box(height, width, scale, ratio, draws[:, :, index]) for index in range(200)]
    assert boxes.tolist() == expected


def test_flips_crops_and_mixes_commute_with_normalisation() -> None:
    policy = (PatchShuffle(factor=2), RandomResizedCrop(), Flip(), Mixup())
    pixels = torch.rand(6, 3, 12, 12, generator=stream(8, "parity"))
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.25, 0.3]).view(3, 1, 1)
    params = sample(policy, 6, 12, 12, stream(9, "parity"))
    before, after = (apply(pixels, params) - mean) / std, apply((pixels - mean) / std, params)
    torch.testing.assert_close(before, after, rtol=0, atol=1e-5)


def test_a_policy_is_its_ops_one_after_the_other() -> None:
    policy = (PatchShuffle(factor=2), RandomResizedCrop(min_scale=0.5), Flip(), CutMix())
    slow = (slow_shuffle, slow_zoom, slow_flip, slow_cutmix)
    images = torch.randn(6, 3, 16, 16, generator=stream(10, "parity"))
    params = sample(policy, 6, 16, 16, stream(11, "parity"))
    expected = images
    for step, (_, values) in zip(slow, params.ops, strict=True):
        expected = step(expected, values)
    torch.testing.assert_close(apply(images, params), expected, rtol=0, atol=1e-5)
