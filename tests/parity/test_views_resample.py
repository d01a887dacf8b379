"""crop_resize against cutting out and torch's own interpolation, one image at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import stream
from softlabel.views import crop_resize, random_resized_boxes


def slow_crop_resize(images: Tensor, boxes: Tensor, size: tuple[int, int], antialias: bool) -> Tensor:
    pieces = []
    for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True):
        piece = image[None, :, top : top + height, left : left + width]
        pieces.append(F.interpolate(piece, size, mode="bilinear", align_corners=False, antialias=antialias))
    return torch.cat(pieces)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (32, 32, (32, 32)),  # up, as RandomResizedCrop does
        (32, 32, (16, 16)),  # some up, some down, as RDED's crops do
        (33, 47, (7, 5)),  # down, odd
        (19, 11, (40, 23)),  # up, odd, not square
        (8, 64, (64, 8)),  # up one way and down the other
        (5, 5, (1, 1)),
        (1, 9, (3, 3)),
    ],
)
def test_equals_cropping_and_interpolating(
    height: int, width: int, size: tuple[int, int], channels: int, antialias: bool
) -> None:
    generator = stream(0, "resample", height, width)
    images = torch.randn(24, channels, height, width, generator=generator)
    boxes = random_resized_boxes(24, height, width, generator, min_scale=0.05, min_ratio=0.4, max_ratio=2.5)
    boxes[0] = torch.tensor([0, 0, height, width])
    boxes[1] = torch.tensor([height - 1, width - 1, 1, 1])
    expected = slow_crop_resize(images, boxes, size, antialias)
    torch.testing.assert_close(crop_resize(images, boxes, size, antialias), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
def test_equals_at_imagenet_size(antialias: bool) -> None:
    generator = stream(1, "resample")
    images = torch.randn(3, 3, 224, 224, generator=generator)
    boxes = random_resized_boxes(3, 224, 224, generator)
    expected = slow_crop_resize(images, boxes, (112, 112), antialias)
    torch.testing.assert_close(crop_resize(images, boxes, (112, 112), antialias), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("antialias", [False, True])
def test_nothing_leaks_in_from_outside_the_box(antialias: bool) -> None:
    images = torch.full((1, 1, 16, 16), torch.inf)
    images[:, :, 4:9, 3:10] = 1.0
    finite = images.nan_to_num(posinf=1e9)
    out = crop_resize(finite, torch.tensor([[4, 3, 5, 7]]), (16, 16), antialias)
    torch.testing.assert_close(out, torch.ones(1, 1, 16, 16))


@pytest.mark.parametrize("antialias", [False, True])
def test_the_whole_image_at_its_size_is_bit_identical(antialias: bool) -> None:
    images = torch.randn(4, 3, 17, 23, generator=stream(2, "resample"))
    boxes = torch.tensor([[0, 0, 17, 23]]).repeat(4, 1)
    assert torch.equal(crop_resize(images, boxes, (17, 23), antialias), images)


@pytest.mark.parametrize("antialias", [False, True])
def test_fractional_boxes_sample_a_ramp_at_their_positions(antialias: bool) -> None:
    # on a linear ramp bilinear interpolation is exact, so the result shows the sampling positions
    ramp = torch.arange(40.0).repeat(1, 1, 40, 1)
    out = crop_resize(ramp, torch.tensor([[2.5, 10.25, 20.0, 20.0]]), (20, 20), antialias)
    inner = slice(1, -1)
    expected = (10.25 + torch.arange(20.0)).repeat(20, 1)
    torch.testing.assert_close(out[0, 0, :, inner], expected[:, inner])


def test_fractional_boxes_with_whole_numbers_equal_integer_boxes() -> None:
    generator = stream(3, "resample")
    images = torch.randn(8, 3, 20, 30, generator=generator)
    boxes = random_resized_boxes(8, 20, 30, generator)
    assert torch.equal(crop_resize(images, boxes, (9, 9)), crop_resize(images, boxes.double(), (9, 9)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_dtypes_are_kept(dtype: torch.dtype) -> None:
    images = torch.randn(2, 3, 8, 8, generator=stream(4, "resample")).to(dtype)
    out = crop_resize(images, torch.tensor([[0, 0, 4, 4], [1, 2, 5, 6]]), (8, 8))
    assert out.dtype == dtype


def test_autocast_does_not_touch_the_result() -> None:
    generator = stream(5, "resample")
    images = torch.randn(4, 3, 16, 16, generator=generator)
    boxes = random_resized_boxes(4, 16, 16, generator)
    plain = crop_resize(images, boxes, (16, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = crop_resize(images, boxes, (16, 16))
    assert torch.equal(plain, inside)
