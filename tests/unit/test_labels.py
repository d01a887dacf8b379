"""Hard, fixed and online labels, and fixed labels as files."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from softlabel.core import (
    ConfigError,
    Dataset,
    DatasetInfo,
    DistilledSet,
    LabelSource,
    Split,
    StoreError,
    TeacherMismatchError,
    stream,
)
from softlabel.distill import distill
from softlabel.evaluation import find_protocol, student_views
from softlabel.labels import (
    FixedLabels,
    HardLabels,
    LabelSpec,
    fixed_labels,
    load_labels,
    make_labels,
    online_labels,
    read_labels,
    save_labels,
)
from softlabel.models import build_model
from softlabel.store import save_distilled
from softlabel.training import REGIMES, Execution, Normaliser, Teacher, fit
from softlabel.views import CutMix, Flip, ShiftCrop, apply, sample

ARCH = "convnet-2:width=8"


def untrained(data: Dataset, seed: int = 0) -> Teacher:
    model = build_model(ARCH, image_shape=data.info.image_shape, classes=data.info.classes, seed=seed)
    size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    return Teacher(model.eval().requires_grad_(False), data.info, ARCH, f"test-{seed}", None, 0, size)


def with_normalisation(teacher: Teacher, mean: float, std: float) -> Teacher:
    """The same weights, trained on inputs of another mean and std."""
    channels = teacher.info.channels
    return replace(teacher, info=replace(teacher.info, mean=(mean,) * channels, std=(std,) * channels))


def plain_logits(teacher: Teacher, images: Tensor, info: DatasetInfo) -> Tensor:
    """uint8 images one by one through the model, normalised as `info` says."""
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (info.mean, info.std))
    with torch.no_grad():
        return torch.cat([teacher.model((image[None] / 255 - mean) / std) for image in images])


@pytest.fixture
def teacher(tiny_data: Dataset) -> Teacher:
    return untrained(tiny_data)


@pytest.fixture
def distilled(tiny_data: Dataset, execution: Execution) -> DistilledSet:
    return distill("random", tiny_data, ipc=3, seed=0, execution=execution)


def views_of(distilled: DistilledSet, seed: int = 0) -> Tensor:
    images = Normaliser(distilled.info, torch.device("cpu"))(distilled.images)
    policy = (Flip(), ShiftCrop(padding=2), CutMix())
    return apply(images, sample(policy, len(images), *images.shape[2:], stream(seed, "views")))


@pytest.mark.parametrize("regime", sorted(REGIMES))
def test_every_regime_is_a_label_source(
    regime: str, teacher: Teacher, distilled: DistilledSet, execution: Execution
) -> None:
    source = make_labels(regime, teachers=[teacher], distilled=distilled, execution=execution)
    assert isinstance(source, LabelSource)
    assert source.regime == ("online" if regime == "replay" else regime)  # stored is what was online
    moved = source.to(torch.device("cpu"))
    assert (moved.fingerprint, moved.label_bytes, moved.labeler_bytes) == (
        source.fingerprint,
        source.label_bytes,
        source.labeler_bytes,
    )
    logits = source.logits(views_of(distilled), torch.arange(len(distilled)))
    if regime == "hard":
        assert logits is None
    else:
        assert logits is not None
        assert logits.shape == (12, 4)
        assert logits.dtype == torch.float32


def test_fixed_labels_are_the_teachers_logits_on_plain_images(
    teacher: Teacher, distilled: DistilledSet, execution: Execution
) -> None:
    labels = fixed_labels([teacher], distilled, execution)
    expected = plain_logits(teacher, distilled.images, distilled.info)
    torch.testing.assert_close(labels.table, expected, rtol=1e-5, atol=1e-6)
    assert labels.table.dtype == torch.float32
    assert labels.teachers == (teacher.fingerprint,)


def test_fixed_labels_ignore_the_views(teacher: Teacher, distilled: DistilledSet, execution: Execution) -> None:
    labels = fixed_labels([teacher], distilled, execution)
    index = torch.tensor([7, 0, 7, 3])
    views = views_of(distilled)[index]
    assert torch.equal(labels.logits(views, index), labels.table[index])
    assert torch.equal(labels.logits(torch.zeros_like(views), index), labels.table[index])


def test_more_images_than_one_batch(teacher: Teacher, tiny_data: Dataset, execution: Execution) -> None:
    train = tiny_data.train
    many = DistilledSet(
        images=train.images.repeat(4, 1, 1, 1), targets=train.targets.repeat(4), info=tiny_data.info, method="m",
        ipc=0, seed=0,
    )  # fmt: skip
    table = fixed_labels([teacher], many, execution).table
    assert len(table) == 640
    torch.testing.assert_close(table, plain_logits(teacher, train.images, tiny_data.info).repeat(4, 1))


def test_online_labels_are_the_teachers_logits_on_the_views(teacher: Teacher, distilled: DistilledSet) -> None:
    source = online_labels([teacher], distilled.info)
    views = views_of(distilled)
    expected = torch.cat([teacher.model(view[None]) for view in views])
    torch.testing.assert_close(source.logits(views, torch.arange(len(views))), expected, rtol=1e-5, atol=1e-6)
    other = source.logits(views_of(distilled, seed=1), torch.arange(len(views)))
    assert not torch.allclose(other, expected)


@pytest.mark.parametrize("regime", ["fixed", "online"])
def test_an_ensemble_is_the_mean_of_logits(
    regime: str, tiny_data: Dataset, distilled: DistilledSet, execution: Execution
) -> None:
    teachers = [untrained(tiny_data, seed) for seed in range(3)]
    views = Normaliser(distilled.info, torch.device("cpu"))(distilled.images)
    index = torch.arange(len(views))
    every = [make_labels(regime, teachers=group, distilled=distilled, execution=execution).logits(views, index)
             for group in (teachers, teachers[:1], teachers[1:2], teachers[2:])]  # fmt: skip
    together, *alone = (logits for logits in every if logits is not None)
    torch.testing.assert_close(together, (alone[0] + alone[1] + alone[2]) / 3, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(alone[0], alone[1])


@pytest.mark.parametrize("regime", ["fixed", "online"])
def test_a_teacher_with_another_normalisation(
    regime: str, teacher: Teacher, distilled: DistilledSet, execution: Execution
) -> None:
    """Its logits are those it would give to images that were normalised its own way."""
    other = with_normalisation(teacher, mean=0.1, std=0.7)
    source = make_labels(regime, teachers=[other], distilled=distilled, execution=execution)
    views = Normaliser(distilled.info, torch.device("cpu"))(distilled.images)
    found = source.logits(views, torch.arange(len(views)))
    assert found is not None
    torch.testing.assert_close(found, plain_logits(other, distilled.images, other.info), rtol=1e-4, atol=1e-5)
    own = plain_logits(teacher, distilled.images, distilled.info)
    assert not torch.allclose(found, own, rtol=1e-2, atol=1e-2)  # or nothing was tested


def test_an_ensemble_of_two_normalisations(teacher: Teacher, distilled: DistilledSet, execution: Execution) -> None:
    other = with_normalisation(teacher, mean=0.5, std=0.25)
    table = fixed_labels([teacher, other], distilled, execution).table
    expected = [plain_logits(t, distilled.images, t.info) for t in (teacher, other)]
    torch.testing.assert_close(table, (expected[0] + expected[1]) / 2, rtol=1e-4, atol=1e-5)


def test_a_flipped_view_with_another_normalisation(teacher: Teacher, distilled: DistilledSet) -> None:
    other = with_normalisation(teacher, mean=0.1, std=0.7)
    views = Normaliser(distilled.info, torch.device("cpu"))(distilled.images).flip(3)
    found = online_labels([other], distilled.info).logits(views, torch.arange(len(views)))
    torch.testing.assert_close(found, plain_logits(other, distilled.images.flip(3), other.info), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("regime", ["fixed", "online"])
def test_labels_can_enter_a_graph(regime: str, teacher: Teacher, distilled: DistilledSet, execution: Execution) -> None:
    source = make_labels(regime, teachers=[teacher], distilled=distilled, execution=execution)
    logits = source.logits(views_of(distilled), torch.arange(len(distilled)))
    assert logits is not None
    assert not logits.requires_grad
    student = torch.zeros_like(logits, requires_grad=True)
    (student * logits).sum().backward()
    assert torch.equal(student.grad, logits)  # type: ignore[arg-type]


@pytest.mark.parametrize("regime", ["fixed", "online"])
def test_bfloat16_gives_float32_labels(regime: str, teacher: Teacher, distilled: DistilledSet) -> None:
    half = Execution("cpu", "bf16")
    source = make_labels(regime, teachers=[teacher], distilled=distilled, execution=half)
    views = Normaliser(distilled.info, torch.device("cpu"))(distilled.images)
    with half.autocast():
        logits = source.logits(views, torch.arange(len(views)))
    assert logits is not None
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, plain_logits(teacher, distilled.images, distilled.info), rtol=0.1, atol=0.05)


def test_bytes(tiny_data: Dataset, distilled: DistilledSet, execution: Execution) -> None:
    teachers = [untrained(tiny_data, seed) for seed in range(2)]
    hard, fixed, online = (
        make_labels(regime, teachers=teachers, distilled=distilled, execution=execution)
        for regime in ("hard", "fixed", "online")
    )
    assert (hard.label_bytes, hard.labeler_bytes) == (0, 0)
    assert (fixed.label_bytes, fixed.labeler_bytes) == (12 * 4 * 4, 0)
    weights = sum(t.numel() * t.element_size() for t in teachers[0].model.state_dict().values())
    assert weights > 0
    assert (online.label_bytes, online.labeler_bytes) == (0, 2 * weights)


def test_fingerprints_tell_labels_apart(tiny_data: Dataset, distilled: DistilledSet, execution: Execution) -> None:
    first, second = (untrained(tiny_data, seed) for seed in range(2))
    sources = [
        make_labels(regime, teachers=teachers, distilled=distilled, execution=execution)
        for regime in ("fixed", "online")
        for teachers in ([first], [second], [first, second])
    ]
    prints = [source.fingerprint for source in (*sources, HardLabels())]
    assert len(set(prints)) == len(prints)
    again = make_labels("fixed", teachers=[first], distilled=distilled, execution=execution)
    assert again.fingerprint == prints[0]


@pytest.mark.parametrize("regime", ["fixed", "online"])
def test_soft_labels_without_a_teacher(regime: str, distilled: DistilledSet, execution: Execution) -> None:
    with pytest.raises(ConfigError, match=r"need a teacher.*--teacher.*--labels hard"):
        make_labels(regime, teachers=[], distilled=distilled, execution=execution)


@pytest.mark.parametrize("regime", ["fixed", "online"])
def test_a_teacher_for_other_classes(
    regime: str, teacher: Teacher, grey_data: Dataset, distilled: DistilledSet, execution: Execution
) -> None:
    with pytest.raises(TeacherMismatchError, match="knows 3 classes of grey"):
        make_labels(regime, teachers=[teacher, untrained(grey_data)], distilled=distilled, execution=execution)


# Files.


@pytest.fixture
def kept(teacher: Teacher, distilled: DistilledSet, execution: Execution, tmp_path: Path) -> tuple[FixedLabels, Path]:
    labels = fixed_labels([teacher], distilled, execution)
    save_labels(labels, distilled, tmp_path / "labels")
    return labels, tmp_path / "labels"


def test_round_trip(kept: tuple[FixedLabels, Path], distilled: DistilledSet) -> None:
    labels, path = kept
    loaded = load_labels(path, distilled)
    assert torch.equal(loaded.table, labels.table)
    assert (loaded.teachers, loaded.fingerprint, loaded.regime) == (labels.teachers, labels.fingerprint, "fixed")
    assert loaded.label_bytes == labels.label_bytes


def test_equal_labels_are_left_alone(kept: tuple[FixedLabels, Path], distilled: DistilledSet) -> None:
    labels, path = kept
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    save_labels(labels, distilled, path)
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


def test_other_labels_are_not_overwritten(kept: tuple[FixedLabels, Path], distilled: DistilledSet) -> None:
    labels, path = kept
    with pytest.raises(StoreError, match=r"already holds another set of labels.*Nothing is overwritten"):
        save_labels(replace(labels, table=labels.table + 1), distilled, path)
    assert torch.equal(load_labels(path, distilled).table, labels.table)


def test_labels_for_other_images_are_refused(
    kept: tuple[FixedLabels, Path], tiny_data: Dataset, execution: Execution
) -> None:
    other = distill("random", tiny_data, ipc=3, seed=1, execution=execution)
    with pytest.raises(ConfigError, match=f"made for another distilled set.*{other.digest}.*softlabel label"):
        load_labels(kept[1], other)


def test_labels_for_other_targets_are_refused(kept: tuple[FixedLabels, Path], distilled: DistilledSet) -> None:
    with pytest.raises(ConfigError, match="made for another distilled set"):
        load_labels(kept[1], replace(distilled, targets=distilled.targets.flip(0)))


def test_a_flipped_byte_is_found(kept: tuple[FixedLabels, Path], distilled: DistilledSet) -> None:
    file = kept[1] / "labels.safetensors"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match=r"labels\.safetensors is corrupt"):
        load_labels(kept[1], distilled)


def test_what_is_not_there(distilled: DistilledSet, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="There is nothing at"):
        load_labels(tmp_path / "nowhere", distilled)


def test_what_is_no_set_of_labels(distilled: DistilledSet, tmp_path: Path) -> None:
    save_distilled(distilled, tmp_path / "set")
    with pytest.raises(StoreError, match=r"set, found one of kind 'distilled'"):
        load_labels(tmp_path / "set", distilled)


# Labels that are probabilities.


def test_probabilities_feed_soft_cross_entropy_only(
    distilled: DistilledSet, tmp_path: Path, execution: Execution
) -> None:
    table = torch.softmax(torch.randn(len(distilled), distilled.info.classes, generator=stream(0, "t")), dim=-1)
    save_labels(FixedLabels(table, space="probabilities"), distilled, tmp_path / "labels")
    labels = load_labels(tmp_path / "labels", distilled)
    assert labels.space == "probabilities"
    index = torch.arange(len(distilled))
    torch.testing.assert_close(labels.logits(torch.zeros(1), index).softmax(dim=-1), table)
    split = Split(distilled.images, distilled.targets)
    protocol = replace(find_protocol("gift", epochs=1), batch=5, views="none")

    def train(loss: str) -> None:
        model = build_model("convnet-1:width=4", image_shape=distilled.info.image_shape, classes=4, seed=0)
        settings = {"info": distilled.info, "seed": 0, "execution": execution, "labels": labels}
        fit(model, split, protocol=protocol.with_loss(loss), **settings)

    train("soft_ce")
    train("soft_ce_ce")
    for loss in ("gift", "cosine", "mse", "kl", "soft_ce:temperature=2"):
        with pytest.raises(ConfigError, match="needs the teacher's logits, and these labels are probabilities"):
            train(loss)


def test_labels_that_are_not_finite_are_refused(distilled: DistilledSet, tmp_path: Path) -> None:
    table = torch.zeros(len(distilled), distilled.info.classes)
    table[1, 2] = torch.nan
    save_labels(FixedLabels(table), distilled, tmp_path / "labels")
    with pytest.raises(ConfigError, match="hold entries that are NaN or infinite"):
        load_labels(tmp_path / "labels", distilled)


def test_labels_of_another_size_are_refused(distilled: DistilledSet, tmp_path: Path) -> None:
    for name, rows, columns in (("rows", 1, 0), ("columns", 0, 1)):
        table = torch.zeros(len(distilled) + rows, distilled.info.classes + columns)
        save_labels(FixedLabels(table), distilled, tmp_path / name)
        with pytest.raises(ConfigError, match=r"are for \d+ images and \d classes; the distilled set has"):
            load_labels(tmp_path / name, distilled)


def test_a_teacher_may_be_shipped_in_16_bits(teacher: Teacher, distilled: DistilledSet, execution: Execution) -> None:
    whole = online_labels([teacher], distilled.info)
    spec = LabelSpec.parse("online+fp16")
    assert spec.spec == "online+fp16"
    plan = student_views(distilled, find_protocol("gift", epochs=1), 0)
    half = read_labels(whole, spec, distilled, regime="online", plan=plan, epochs=1, execution=execution)
    assert half.labeler_bytes == whole.labeler_bytes // 2
    assert half.fingerprint != whole.fingerprint
    rounded = copy.deepcopy(teacher.model).half().float()
    views = Normaliser(distilled.info, torch.device("cpu"))(distilled.images)
    found = half.logits(views, torch.arange(len(views)))
    assert found is not None
    torch.testing.assert_close(found, rounded(views))
    assert not torch.equal(found, whole.logits(views, torch.arange(len(views))))
    for odd in ("online+int8", "online+topk:k=2", "hard+fp16"):
        with pytest.raises(ConfigError, match=r"online\+fp16, a teacher of 16-bit weights"):
            LabelSpec.parse(odd)
