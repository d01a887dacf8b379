"""Codecs against slow restatements, their errors, and their bytes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import ConfigError, UnknownNameError
from softlabel.labels import Codec

CLASSES = 7
SPECS = (
    "fp32",
    "fp16",
    "bf16",
    "int8",
    "int4",
    "topk:k=3",
    "topk:k=3,fill=smooth",
    "topk:k=2,fill=floor+int8",
    "topk:k=1+int4",
    "lowrank:rank=3",
    "lowrank:rank=2+int8",
    "vq:codes=16,parts=3,steps=60",
    "distances",
    "distances+int8",
)


def labels(rows: int = 200, classes: int = CLASSES, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits as a teacher gives them, and the images' classes: mostly the largest."""
    draws = torch.Generator().manual_seed(seed)
    mixing = torch.randn(4, classes, generator=draws)
    logits = 2 * torch.randn(rows, 4, generator=draws) @ mixing + 0.3 * torch.randn(rows, classes, generator=draws)
    return logits, torch.where(torch.rand(rows, generator=draws) < 0.8, logits.argmax(1), 0)


def through(spec: str, logits: Tensor, target: Tensor) -> Tensor:
    fitted = Codec.parse(spec).fit(logits)
    return fitted.decode(fitted.encode(logits, target=target), target=target)


@pytest.mark.parametrize("spec", SPECS)
def test_what_is_stored_is_what_the_layout_says(spec: str) -> None:
    codec, (logits, target) = Codec.parse(spec), labels()
    fitted = codec.fit(logits)
    rows = fitted.encode(logits, target=target)
    assert {name: (tensor.dtype, tensor.shape[1]) for name, tensor in rows.items()} == codec.layout(CLASSES)
    assert all(len(tensor) == len(logits) for tensor in rows.values())
    stored = sum(tensor.numel() * tensor.element_size() for tensor in rows.values())
    assert codec.row_bytes(CLASSES) * len(logits) == stored
    assert codec.shared_bytes(CLASSES) == sum(t.numel() * t.element_size() for t in fitted.stored.values())


@pytest.mark.parametrize("spec", SPECS)
def test_a_codec_reads_rows_in_any_order_and_number(spec: str) -> None:
    logits, target = labels()
    fitted = Codec.parse(spec).fit(logits)
    rows, whole = fitted.encode(logits, target=target), through(spec, logits, target)
    some = torch.tensor([5, 0, 5, 17])
    picked = fitted.decode({name: tensor[some] for name, tensor in rows.items()}, target=target[some])
    torch.testing.assert_close(picked, whole[some])
    assert (whole.dtype, whole.shape) == (torch.float32, logits.shape)
    assert bool(whole.isfinite().all())


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_written_out_is_the_same_codec(spec: str) -> None:
    codec = Codec.parse(spec)
    assert Codec.parse(codec.spec) == Codec.parse(codec.identity) == codec


def test_specs_are_short_and_identities_are_not() -> None:
    shown = {
        spec: Codec.parse(spec).spec
        for spec in ("dense", "dense+int8", "topk:k=4", "topk:k=2", "vq:parts=2", "vq:parts=3")
    }
    assert shown == {"dense": "fp16", "dense+int8": "int8", "topk:k=4": "topk+fp16", "topk:k=2": "topk:k=2+fp16",
                     "vq:parts=2": "vq", "vq:parts=3": "vq:parts=3"}  # fmt: skip
    assert Codec.parse("topk").identity == "topk:k=4,fill=none+fp16"
    assert Codec.parse("vq").identity == "vq:codes=256,parts=2,dim=8,hidden=64,steps=2000"


def test_32_bits_lose_nothing() -> None:
    logits, target = labels()
    assert torch.equal(through("fp32", logits, target), logits)


@pytest.mark.parametrize(("spec", "digits"), [("fp16", 10), ("bf16", 7)])
def test_16_bits_are_rounded(spec: str, digits: int) -> None:
    logits, target = labels()
    assert bool(((through(spec, logits, target) - logits).abs() <= logits.abs() * 2.0 ** -(digits + 1)).all())


@pytest.mark.parametrize(("spec", "levels"), [("int8", 255), ("int4", 15)])
def test_integers_are_within_half_a_step(spec: str, levels: int) -> None:
    logits, target = labels(classes=9)  # an odd number: the last half byte is empty
    found = through(spec, logits, target)
    for row, back in zip(logits, found, strict=True):
        low, high = float(row.min()), float(row.max())
        step = (high - low) / levels
        rounding = 2.0**-11 * (abs(low) + levels * step)  # what float16 makes of the lowest value and the step
        assert float((row - back).abs().max()) <= 0.5 * step + 2 * rounding
    constant = torch.full((2, 9), -3.5)
    assert torch.equal(through(spec, constant, target[:2]), constant)


@pytest.mark.parametrize("spec", ["fp16", "topk:k=1", "int8"])
def test_huge_logits_stay_finite(spec: str) -> None:
    logits = torch.tensor([[1e9, -1e9, 0.0], [1.0, 2.0, 3.0]])
    assert bool(through(spec, logits, torch.tensor([0, 0])).isfinite().all())


@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_top_entries_alone_share_the_whole_label(temperature: float) -> None:
    logits, target = labels()
    found = F.softmax(through("topk:k=3+fp32", logits, target) / temperature, dim=1)
    for row, back in zip(logits, found, strict=True):
        best = sorted(range(CLASSES), key=lambda c: -float(row[c]))[:3]
        weights = {c: math.exp(float(row[c]) / temperature) for c in best}
        for c in range(CLASSES):
            assert float(back[c]) == pytest.approx(weights.get(c, 0.0) / sum(weights.values()), abs=1e-6)


def test_smoothed_top_entries_are_those_of_fkd_at_temperature_1() -> None:
    logits, target = labels()
    found = F.softmax(through("topk:k=2,fill=smooth+fp32", logits, target), dim=1)
    for row, back in zip(F.softmax(logits, dim=1), found, strict=True):
        best = sorted(range(CLASSES), key=lambda c: -float(row[c]))[:2]
        rest = (1 - sum(float(row[c]) for c in best)) / (CLASSES - 2)
        for c in range(CLASSES):
            assert float(back[c]) == pytest.approx(float(row[c]) if c in best else rest, abs=1e-6)


def test_the_floor_is_the_smallest_logit() -> None:
    logits, target = labels()
    found = through("topk:k=2,fill=floor+fp32", logits, target)
    for row, back in zip(logits, found, strict=True):
        best = sorted(range(CLASSES), key=lambda c: -float(row[c]))[:2]
        assert back.tolist() == [float(row[c]) if c in best else float(row.min()) for c in range(CLASSES)]


def test_a_low_rank_is_the_best_of_its_rank() -> None:
    logits, target = labels()
    found = through("lowrank:rank=3+fp32", logits, target)
    centred = logits - logits.mean(dim=0)
    u, s, v = torch.linalg.svd(centred, full_matrices=False)
    best = (u[:, :3] * s[:3]) @ v[:3] + logits.mean(dim=0)
    torch.testing.assert_close(found, best, atol=2e-2, rtol=0)  # the basis is kept in float16
    error = [
        float((through(f"lowrank:rank={rank}+fp32", logits, target) - logits).square().mean()) for rank in (1, 2, 4)
    ]
    assert error[0] > error[1] > error[2]


def test_a_basis_of_fewer_labels_than_its_rank() -> None:
    logits, target = labels(rows=2)
    assert bool(through("lowrank:rank=5", logits, target).isfinite().all())


def test_codes_tell_more_with_more_parts_and_are_the_same_each_time() -> None:
    logits, target = labels(rows=1000)

    def divergence(spec: str) -> float:
        found = through(spec, logits, target)
        return float(F.kl_div(found.log_softmax(1), logits.log_softmax(1), log_target=True, reduction="batchmean"))

    one, many = (divergence(f"vq:codes=32,parts={parts},steps=400") for parts in (1, 4))
    nothing = F.kl_div(
        logits.mean(0).log_softmax(0).expand_as(logits), logits.log_softmax(1), log_target=True, reduction="batchmean"
    )
    assert many < 0.7 * one < 0.7 * 0.5 * float(nothing)
    assert divergence("vq:codes=32,parts=4,steps=400") == many


def test_two_distances_rebuild_a_label() -> None:
    logits, target = labels()
    found = through("distances+fp32", logits, target).exp()
    for row, back, own in zip(F.softmax(logits, dim=1), found, target.tolist(), strict=True):
        other = max((c for c in range(CLASSES) if c != own), key=lambda c: float(row[c]))
        rest = (1 - float(row[own]) - float(row[other])) / (CLASSES - 2)
        for c in range(CLASSES):
            assert float(back[c]) == pytest.approx(float(row[c]) if c in (own, other) else rest, abs=2e-6)


def test_what_a_label_costs() -> None:
    bytes_of = {
        spec: Codec.parse(spec).row_bytes(10) for spec in ("fp32", "fp16", "int8", "int4", "topk:k=2", "distances")
    }
    assert bytes_of == {"fp32": 40, "fp16": 20, "int8": 14, "int4": 9, "topk:k=2": 6, "distances": 5}
    assert Codec.parse("topk:k=10").row_bytes(1000) == 40  # two bytes for a logit and two for its class
    assert Codec.parse("vq:parts=3").row_bytes(1000) == 3
    assert Codec.parse("vq:parts=3,codes=1024").row_bytes(1000) == 6


@pytest.mark.parametrize(
    ("spec", "space"),
    [("fp16", "logits"), ("topk:k=3", "top logits"), ("topk:k=3,fill=smooth", "logits"), ("vq", "logits"),
     ("topk:k=3,fill=floor", "logits"), ("lowrank", "logits"), ("distances", "probabilities")],
)  # fmt: skip
def test_spaces(spec: str, space: str) -> None:
    assert Codec.parse(spec).space == space


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("topk:k=0", "keeps k entries, 1 or more"),
        ("topk:k=2.5", "must be int"),
        ("topk:size=2", "has no option 'size'"),
        ("lowrank:rank=0", "rank of 1 or more"),
        ("vq:codes=1", "2 to 65536 codes"),
        ("vq:parts=0", "parts of 1 or more"),
        ("vq+int8", "which int8 cannot change"),
        ("fp16+int8", "one structure and one kind of numbers"),
        ("topk+lowrank", "one structure and one kind of numbers"),
        ("int8:bits=4", "have no options"),
    ],
)
def test_specs_that_make_no_sense(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Codec.parse(spec)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="codec"):
        Codec.parse("zip")
    with pytest.raises(UnknownNameError, match="fill of the codec topk"):
        Codec.parse("topk:fill=zero")


@pytest.mark.parametrize(("spec", "classes"), [("topk:k=7", 7), ("lowrank:rank=9", 7), ("distances", 2)])
def test_codecs_that_do_not_fit_the_classes(spec: str, classes: int) -> None:
    with pytest.raises(ConfigError, match=r"labels of \d+ classes have no more|3 classes or more"):
        Codec.parse(spec).fit(torch.zeros(4, classes))


@pytest.mark.parametrize("spec", SPECS)
def test_autocast_around_changes_nothing(spec: str) -> None:
    """Labels are read within the autocast of a training: a basis or a decoder in bfloat16 would lose most of them."""
    logits, target = labels()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = through(spec, logits, target)
    assert torch.equal(within, through(spec, logits, target))
