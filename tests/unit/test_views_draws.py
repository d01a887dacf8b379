"""What `sample` draws: ranges, shares, and what must always or never happen."""

import pytest
import torch
from scipy import stats
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
    random_resized_boxes,
    sample,
    tile_edges,
)

MANY = 20_000


def draw(op: ViewOp, batch: int = MANY, height: int = 32, width: int = 32, seed: int = 0) -> dict[str, Tensor]:
    return sample((op,), batch, height, width, stream(seed, "draws")).ops[0][1]


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_flips_come_about_p_of_the_time(p: float) -> None:
    assert float(draw(Flip(p=p))["flags"].float().mean()) == pytest.approx(p, abs=0.015)


def test_shifts_are_uniform_over_all_whole_numbers() -> None:
    shifts = draw(ShiftCrop(padding=2))["shifts"]
    for axis in (0, 1):
        counts = torch.bincount(shifts[:, axis] + 2, minlength=5)
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4
    assert shifts.min() == -2
    assert shifts.max() == 2


def test_boxes_stay_inside_and_reach_the_borders() -> None:
    top, left, height, width = random_resized_boxes(MANY, 20, 30, stream(0, "draws")).unbind(1)
    assert int(top.min()) == 0
    assert int(left.min()) == 0
    assert int((top + height).max()) == 20
    assert int((left + width).max()) == 30
    assert int(height.min()) >= 1
    assert int(width.min()) >= 1


def test_box_areas_are_uniform_and_ratios_log_uniform() -> None:
    # boxes of at most half the image always fit, so no draw is rejected; large images make rounding small
    boxes = random_resized_boxes(MANY, 2000, 2000, stream(1, "draws"), max_scale=0.5).double()
    area = boxes[:, 2] * boxes[:, 3] / 2000**2
    ratio = torch.log(boxes[:, 3] / boxes[:, 2])
    assert stats.kstest(area.numpy(), stats.uniform(0.08, 0.42).cdf).pvalue > 1e-4
    log = float(torch.log(torch.tensor(4 / 3)))
    assert stats.kstest(ratio.numpy(), stats.uniform(-log, 2 * log).cdf).pvalue > 1e-4


def test_boxes_of_ratio_one_are_squares() -> None:
    boxes = random_resized_boxes(1000, 32, 32, stream(2, "draws"), min_ratio=1.0, max_ratio=1.0)
    assert torch.equal(boxes[:, 2], boxes[:, 3])
    share = boxes[:, 2].double() ** 2 / 32**2
    assert float(share.min()) > 0.06
    assert int(boxes[:, 2].max()) == 32


@pytest.mark.parametrize("size", [1, 7, 32, 64, 224])
def test_scale_one_never_crops_a_square(size: int) -> None:
    boxes = draw(RandomResizedCrop(min_scale=1.0), 5000, size, size)["boxes"]
    assert torch.equal(boxes, torch.tensor([[0, 0, size, size]]).repeat(5000, 1))


@pytest.mark.parametrize(("height", "width", "box"), [(10, 40, [0, 13, 10, 13]), (40, 10, [13, 0, 13, 10])])
def test_scale_one_on_long_images_is_the_central_box(height: int, width: int, box: list[int]) -> None:
    boxes = draw(RandomResizedCrop(min_scale=1.0), 50, height, width)["boxes"]
    assert boxes.tolist() == [box] * 50


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_factor_crop_takes_the_whole_image_and_every_cell_equally_often(factor: int) -> None:
    boxes = draw(FactorCrop(factor=factor), MANY, 33, 32)["boxes"]
    whole = (boxes == torch.tensor([0, 0, 33, 32])).all(1)
    assert float(whole.float().mean()) == pytest.approx(1 / factor**2, abs=0.015)
    cells, counts = boxes[~whole].unique(dim=0, return_counts=True)
    assert len(cells) == (factor**2 if factor > 1 else 0)
    if factor > 1:
        assert stats.chisquare(counts.numpy()).pvalue > 1e-4
        assert int((cells[:, 2] * cells[:, 3]).sum()) == 33 * 32  # the cells tile the image


def test_patch_shuffle_reaches_exactly_four_layouts_at_factor_two() -> None:
    mosaic = torch.arange(4.0).view(2, 2).kron(torch.ones(4, 4))[None, None].repeat(2000, 1, 1, 1)
    shuffled = apply(mosaic, sample((PatchShuffle(factor=2),), 2000, 8, 8, stream(3, "draws")))
    layouts, counts = shuffled[:, 0, ::4, ::4].reshape(2000, 4).unique(dim=0, return_counts=True)
    assert layouts.tolist() == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]
    assert stats.chisquare(counts.numpy()).pvalue > 1e-4


@pytest.mark.parametrize("factor", [2, 3, 5, 7])
@pytest.mark.parametrize(("height", "width"), [(14, 14), (16, 11), (7, 9)])
def test_patch_shuffle_keeps_every_pixel(factor: int, height: int, width: int) -> None:
    images = torch.arange(float(height * width)).view(1, 1, height, width).repeat(20, 1, 1, 1)
    out = apply(images, sample((PatchShuffle(factor=factor),), 20, height, width, stream(4, "draws")))
    assert torch.equal(out.flatten(1).sort(1).values, images.flatten(1))


@pytest.mark.parametrize(
    ("size", "factor", "edges"),
    [(6, 2, [0, 3, 6]), (7, 2, [0, 4, 7]), (224, 3, [0, 75, 150, 224]), (5, 1, [0, 5])],
)
def test_tile_edges_give_the_extra_pixels_to_the_first_tiles(size: int, factor: int, edges: list[int]) -> None:
    assert tile_edges(size, factor) == edges


def test_colour_strengths_lie_in_dsas_ranges() -> None:
    values = draw(Colour())
    for key, low, high in (("brightness", -0.5, 0.5), ("saturation", 0.0, 2.0), ("contrast", 0.5, 1.5)):
        assert stats.kstest(values[key].numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-4


def test_scale_and_rotate_strengths_lie_in_dsas_ranges() -> None:
    theta = draw(Scale())["theta"]
    for axis in (0, 1):
        uniform = stats.uniform(1 / 1.2, 1.2 - 1 / 1.2)
        assert stats.kstest(theta[:, axis, axis].numpy(), uniform.cdf).pvalue > 1e-4
    assert not torch.equal(theta[:, 0, 0], theta[:, 1, 1])  # each axis its own factor
    theta = draw(Rotate())["theta"].double()
    degrees = torch.rad2deg(torch.atan2(theta[:, 1, 0], theta[:, 0, 0]))
    assert stats.kstest(degrees.numpy(), stats.uniform(-15, 30).cdf).pvalue > 1e-4


@pytest.mark.parametrize(("height", "width"), [(32, 32), (9, 14), (1, 6)])
def test_cutout_clips_a_half_size_rectangle(height: int, width: int) -> None:
    top, left, tall, wide = draw(Cutout(), height=height, width=width)["boxes"].unbind(1)
    for start, length, size in ((top, tall, height), (left, wide, width)):
        full = int(size * 0.5 + 0.5)
        assert int(length.max()) == full
        assert int(length.min()) == (full + 1) // 2  # centred on the border, half of it is left
        assert int(start.min()) == 0
        assert int((start + length).max()) == size


def parts(values: dict[str, Tensor]) -> set[str]:
    return {key.split(".")[0] for key in values}


def test_dsa_gift_has_one_geometric_op_per_batch_and_the_rest_always() -> None:
    generator = stream(5, "draws")
    seen = [parts(sample((DSAGift(),), 2, 32, 32, generator).ops[0][1]) for _ in range(600)]
    assert all(names - {"crop", "scale", "rotate"} == {"flip", "color", "cutout"} for names in seen)
    counts = [sum(name in names for names in seen) for name in ("crop", "scale", "rotate")]
    assert sum(counts) == 600
    assert stats.chisquare(counts).pvalue > 1e-4


def test_dsa_classic_picks_each_of_the_six_and_one_only() -> None:
    generator = stream(6, "draws")
    seen = [parts(sample((DSAClassic(),), 2, 32, 32, generator).ops[0][1]) for _ in range(1200)]
    assert all(len(names) == 1 for names in seen)
    order = ("color", "crop", "cutout", "flip", "scale", "rotate")
    assert stats.chisquare([sum(name in names for names in seen) for name in order]).pvalue > 1e-4


def test_dsa_shifts_by_at_most_an_eighth_of_each_side() -> None:
    generator = stream(7, "draws")
    drawn = [sample((DSAGift(),), 500, 32, 64, generator).ops[0][1] for _ in range(20)]
    shifts = torch.cat([values["crop.shifts"] for values in drawn if "crop.shifts" in values])
    assert shifts.abs().max(0).values.tolist() == [4, 8]


def mixed(op: ViewOp, times: int, batch: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = stream(8, "draws")
    found = [sample((op,), batch, 16, 20, generator).mix for _ in range(times)]
    return [(mix.partner, mix.weight) for mix in found if mix is not None]


@pytest.mark.parametrize("alpha", [0.2, 0.8, 1.0, 4.0])
def test_mixup_weights_are_beta(alpha: float) -> None:
    weights = [float(weight[0]) for _, weight in mixed(Mixup(alpha=alpha), 2000)]
    assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 1e-4


@pytest.mark.parametrize("op", [CutMix(), Mixup()])
def test_partners_are_one_permutation_and_weights_one_number(op: ViewOp) -> None:
    for partner, weight in mixed(op, 50):
        assert partner.dtype == torch.int64
        assert weight.dtype == torch.float32
        assert torch.equal(partner.sort().values, torch.arange(8))
        assert len(weight.unique()) == 1


def test_cutmix_weight_is_the_area_that_is_seen() -> None:
    generator = stream(9, "draws")
    for _ in range(100):
        params = sample((CutMix(),), 5, 16, 20, generator)
        # paint image i with the number i: what is left of a number is its image's share
        out = apply(torch.arange(5.0).view(5, 1, 1, 1).expand(5, 1, 16, 20), params)
        assert params.mix is not None
        own = (out == torch.arange(5.0).view(5, 1, 1, 1)).float().mean((1, 2, 3))
        moved = params.mix.partner != torch.arange(5)
        torch.testing.assert_close(own[moved], params.mix.weight[moved])


@pytest.mark.parametrize("op", [CutMix(p=0.25), Mixup(p=0.25)])
def test_mixing_happens_about_p_of_the_time(op: ViewOp) -> None:
    untouched = [
        bool((weight == 1).all() and torch.equal(partner, torch.arange(8))) for partner, weight in mixed(op, 1000)
    ]
    assert sum(untouched) / 1000 == pytest.approx(0.75, abs=0.06)


def test_without_a_mixing_op_there_is_no_mix() -> None:
    assert sample((Flip(),), 4, 8, 8, stream(0, "draws")).mix is None
