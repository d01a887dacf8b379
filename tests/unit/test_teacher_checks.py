"""What teachers say, and when they are believed."""

import re
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import Dataset, SoftlabelWarning, Split, TeacherMismatchError
from softlabel.losses import gift
from softlabel.store import Store
from softlabel.training import (
    TEACHER_PROTOCOL,
    Execution,
    Normaliser,
    Optimizer,
    check_teacher,
    load_teacher,
    mean_logits,
    measure_accuracy,
    renormalise,
    train_teacher,
    warn_if_weaker,
)

ARCH = "convnet-2:width=4"


@pytest.fixture(scope="module")
def taught(tiny_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of 3 epochs on the tiny data."""
    optimizer = Optimizer(name="sgd", lr=0.1, momentum=0.9)
    return train_teacher(
        tiny_data,
        arch=ARCH,
        store=Store(tmp_path_factory.mktemp("taught")),
        execution=Execution("cpu", "fp32"),
        protocol=replace(TEACHER_PROTOCOL, epochs=3, batch=32, views="shift", optimizer=optimizer),
    )


def views_of(data: Dataset) -> torch.Tensor:
    return Normaliser(data.info, torch.device("cpu"))(data.test.images)


# --- speaking --------------------------------------------------------------------------------------------------


def test_logits_are_float32_without_gradient_and_fit_into_a_graph(tiny_data: Dataset, taught: Path) -> None:
    teacher, views = load_teacher(taught), views_of(tiny_data)
    logits = teacher.logits(views.requires_grad_())
    assert (logits.shape, logits.dtype, logits.requires_grad) == ((80, 4), torch.float32, False)
    assert not logits.is_inference()
    torch.testing.assert_close(logits, teacher.model(views).detach())
    student = torch.randn(80, 4, requires_grad=True)
    gift(student=student, teacher=logits, target=tiny_data.test.targets).sum().backward()
    assert student.grad is not None
    with Execution("cpu", "bf16").autocast():
        assert teacher.logits(views).dtype == torch.float32
        assert not torch.equal(teacher.logits(views), logits)


def test_features_lead_to_the_logits(tiny_data: Dataset, taught: Path) -> None:
    teacher, views = load_teacher(taught), views_of(tiny_data)
    features = teacher.features(views)
    assert (features.dtype, features.requires_grad) == (torch.float32, False)
    with torch.no_grad():
        torch.testing.assert_close(teacher.model.head(features), teacher.logits(views))


def test_an_ensemble_speaks_with_its_mean(tiny_data: Dataset, taught: Path) -> None:
    teachers, views = [load_teacher(taught, epoch) for epoch in (1, 2, 3)], views_of(tiny_data)
    mean = sum(teacher.logits(views) for teacher in teachers) / 3
    torch.testing.assert_close(mean_logits(teachers, views, tiny_data.info), mean)
    torch.testing.assert_close(mean_logits(teachers[:1], views, tiny_data.info), teachers[0].logits(views))


def test_views_are_renormalised_for_a_teacher_of_other_statistics(tiny_data: Dataset, taught: Path) -> None:
    other = replace(tiny_data.info, mean=(0.1, 0.5, 0.7), std=(0.3, 0.2, 0.9))
    pixels = tiny_data.test.images
    theirs, ours = (Normaliser(info, torch.device("cpu"))(pixels) for info in (other, tiny_data.info))
    torch.testing.assert_close(renormalise(theirs, other, tiny_data.info), ours, rtol=1e-4, atol=1e-4)
    assert renormalise(ours, tiny_data.info, tiny_data.info) is ours
    wider = replace(tiny_data.info, std=tuple(2 * value for value in tiny_data.info.std))
    torch.testing.assert_close(renormalise(ours, tiny_data.info, wider), ours / 2, rtol=1e-4, atol=1e-4)
    teacher = load_teacher(taught)
    torch.testing.assert_close(mean_logits([teacher], theirs, other), teacher.logits(ours), rtol=1e-3, atol=1e-3)


# --- believed? -------------------------------------------------------------------------------------------------


def test_a_teacher_of_this_data_fits(tiny_data: Dataset, taught: Path) -> None:
    check_teacher(load_teacher(taught), tiny_data.info)
    check_teacher(load_teacher(taught), replace(tiny_data.info, name="elsewhere", digest="other", mean=(0.0, 0.0, 0.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"class_names": ("class a", "class b", "zebra", "yak")},
            "was trained on other classes: it knows 4 classes of tiny, the data new has 4, of which it lacks yak, "
            "zebra. ",
        ),
        (
            {"class_names": ("class a", "class b")},
            "was trained on other classes: it knows 4 classes of tiny, the data new has 2. ",
        ),
        (
            {"class_names": ("class a", "class c", "class b", "class d")},
            "has the same classes in another order: class 1 is 'class b' to the teacher and 'class c' in the data "
            "new. ",
        ),
        (
            {"height": 32, "width": 24},
            "was trained on images of 3 x 16 x 16; the data new has 3 x 32 x 24. ",
        ),
        ({"channels": 1}, "was trained on images of 3 x 16 x 16; the data new has 1 x 16 x 16. "),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(
    tiny_data: Dataset, taught: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(TeacherMismatchError) as caught:
        check_teacher(load_teacher(taught), replace(tiny_data.info, name="new", **change))
    text = str(caught.value)
    assert text.startswith(f"The teacher {ARCH} {message}Use a teacher trained on this data (softlabel teach)")
    assert text.endswith("convert the data on loading.") == bool(change.keys() & {"height", "channels"})


def elsewhere(data: Dataset, targets: torch.Tensor) -> Dataset:
    """The same test images under another digest, with these targets."""
    return replace(data, info=replace(data.info, digest="other", name="copy"), test=Split(data.test.images, targets))


def test_a_teacher_that_is_weaker_than_its_record_draws_a_warning(
    tiny_data: Dataset, taught: Path, execution: Execution
) -> None:
    teacher = load_teacher(taught)
    assert teacher.accuracy is not None
    permuted = elsewhere(tiny_data, (tiny_data.test.targets + 1) % 4)
    expected = measure_accuracy(teacher.model, permuted.test, tiny_data.info, execution)
    text = (
        f"The teacher {ARCH} reaches {100 * expected:.1f} % on the test split of copy, but "
        f"{100 * teacher.accuracy:.1f} % was recorded when it was trained. Check that the images, their "
        f"preprocessing and the class order are the same."
    )
    with pytest.warns(SoftlabelWarning, match=re.escape(text)):
        assert warn_if_weaker(teacher, permuted, execution) == expected


def test_a_teacher_that_does_as_well_as_recorded_draws_none(
    tiny_data: Dataset, taught: Path, execution: Execution
) -> None:
    teacher, same = load_teacher(taught), elsewhere(tiny_data, tiny_data.test.targets)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert warn_if_weaker(teacher, same, execution) == teacher.accuracy
        # Within half a point it is believed; beyond that it is not.
        assert teacher.accuracy is not None
        assert warn_if_weaker(replace(teacher, accuracy=teacher.accuracy + 0.004), same, execution) is not None
    with pytest.warns(SoftlabelWarning, match="was recorded"):
        warn_if_weaker(replace(teacher, accuracy=teacher.accuracy + 0.006), same, execution)


def test_there_is_nothing_to_measure_on_its_own_data_or_without_record(
    tiny_data: Dataset, taught: Path, execution: Execution
) -> None:
    teacher = load_teacher(taught)
    assert warn_if_weaker(teacher, tiny_data, execution) is None
    assert warn_if_weaker(load_teacher(taught, 0), elsewhere(tiny_data, tiny_data.test.targets), execution) is None


def test_a_teacher_is_measured_with_its_own_normalisation(
    tiny_data: Dataset, taught: Path, execution: Execution
) -> None:
    """The other data has other statistics, but the same pixels."""
    teacher, same = load_teacher(taught), elsewhere(tiny_data, tiny_data.test.targets)
    odd = replace(same, info=replace(same.info, mean=(0.9, 0.0, 0.9), std=(0.01, 3.0, 1.0)))
    assert warn_if_weaker(teacher, odd, execution) == teacher.accuracy
