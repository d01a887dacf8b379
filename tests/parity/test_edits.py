"""Edits of labels against slow restatements, one label at a time, and what they promise about sums and masses."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from softlabel.core import ConfigError, DatasetInfo, DistilledSet, UnknownNameError, stream
from softlabel.labels import EDITS, Edit, EditedLabels, FixedLabels, LabelSpec, edited_labels, entropy
from softlabel.losses import LOSSES, Loss

CLASSES, IMAGES = 7, 24
PROBABILITIES = F.softmax(3 * torch.randn(IMAGES, CLASSES, generator=stream(0, "p"), dtype=torch.float64), dim=-1)
TARGET = torch.randint(CLASSES, (IMAGES,), generator=stream(0, "y"))
NOISE = torch.rand(IMAGES, CLASSES, generator=stream(0, "n"))
SPECS = ("swap:rank=1", "swap:rank=3", "swap:rank=6", "keep:top=0", "keep:top=1", "keep:top=3", "keep:top=7",
         "tail:top=1", "tail:top=4", "tail:top=7", "temper:temperature=0.5", "temper:temperature=3", "smooth",
         "shuffle", "argmax", "forget:index=2")  # fmt: skip


INFO = DatasetInfo(name="toy", class_names=tuple("abcdefg"), channels=1, height=2, width=2, mean=(0.5,), std=(0.5,),
                   digest="d")  # fmt: skip


def images(seed: int = 0, targets: Tensor = TARGET) -> DistilledSet:
    pixels = torch.zeros(IMAGES, 1, 2, 2, dtype=torch.uint8)
    return DistilledSet(images=pixels, targets=targets, info=INFO, method="random", ipc=1, seed=seed)


def edited(spec: str) -> Tensor:
    return Edit.parse(spec)(PROBABILITIES, target=TARGET, noise=NOISE)


def _descending(row: list[float]) -> list[int]:
    return sorted(range(len(row)), key=lambda c: -row[c])


def _slow(spec: str, row: list[float], y: int, noise: list[float]) -> list[float]:
    edit = Edit.parse(spec)
    options = dict(edit.options)
    order, hard = _descending(row), [float(c == y) for c in range(CLASSES)]
    new = list(row)
    if edit.name == "swap":
        one, last = order[int(options["rank"]) - 1], order[-1]
        new[one], new[last] = row[last], row[one]
    elif edit.name == "keep":
        kept = order[: int(options["top"])]
        new = [p if c in kept else 0.0 for c, p in enumerate(row)] if kept else hard
    elif edit.name == "tail":
        others = order[int(options["top"]) :]
        for c in others:
            new[c] = sum(row[other] for other in others) / len(others)
    elif edit.name == "temper":
        powers = [p ** (1 / float(options["temperature"])) for p in row]
        new = [power / sum(powers) for power in powers]
    elif edit.name == "smooth":
        wanted = -sum(p * math.log(p) for p in row)
        share = min((step / 100_000 for step in range(100_001)), key=lambda a: abs(_smooth_entropy(a) - wanted))
        new = [(1 - share) * h + share / CLASSES for h in hard]
    elif edit.name == "shuffle":
        places = [c for c in range(CLASSES) if c != y]
        for place, source in zip(places, sorted(places, key=lambda c: noise[c]), strict=True):
            new[place] = row[source]
    elif edit.name == "argmax":
        new = [float(c == order[0]) for c in range(CLASSES)]
    elif y != options["index"]:
        new[int(options["index"])] = 0.0
    return new


def _smooth_entropy(share: float) -> float:
    own, other = 1 - share + share / CLASSES, share / CLASSES
    return -own * math.log(own) - (CLASSES - 1) * (other * math.log(other) if other else 0.0)


@pytest.mark.parametrize("spec", SPECS)
def test_edits_equal_their_restatement(spec: str) -> None:
    rows = zip(PROBABILITIES.tolist(), TARGET.tolist(), NOISE.tolist(), strict=True)
    slow = torch.tensor([_slow(spec, *row) for row in rows], dtype=torch.float64)
    torch.testing.assert_close(edited(spec), slow, atol=2e-5 if spec == "smooth" else 1e-12, rtol=0)


def test_every_edit_is_restated() -> None:
    assert {Edit.parse(spec).name for spec in SPECS} == set(EDITS)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not spec.startswith(("keep", "forget"))])
def test_sums_stay(spec: str) -> None:
    torch.testing.assert_close(edited(spec).sum(dim=-1), torch.ones(IMAGES, dtype=torch.float64))


@pytest.mark.parametrize("top", range(1, CLASSES + 1))
def test_kept_entries_keep_their_mass(top: int) -> None:
    kept = edited(f"keep:top={top}")
    assert (kept > 0).sum(dim=-1).tolist() == [top] * IMAGES
    torch.testing.assert_close(kept.sum(dim=-1), PROBABILITIES.sort(descending=True).values[:, :top].sum(dim=-1))


@pytest.mark.parametrize("spec", ["smooth", "shuffle", "swap:rank=2"])
def test_entropies_stay(spec: str) -> None:
    torch.testing.assert_close(entropy(edited(spec)), entropy(PROBABILITIES), atol=1e-9, rtol=0)


def test_swapping_and_shuffling_move_what_they_say() -> None:
    order = PROBABILITIES.argsort(dim=-1, descending=True)
    swapped = edited("swap:rank=2")
    assert torch.equal(swapped.argsort(dim=-1, descending=True)[:, 1], order[:, -1])
    others = ~F.one_hot(TARGET, CLASSES).bool()
    shuffled = edited("shuffle")
    assert torch.equal(shuffled[~others], PROBABILITIES[~others])
    assert torch.equal(shuffled.sort(dim=-1).values, PROBABILITIES.sort(dim=-1).values)
    assert not torch.equal(shuffled, PROBABILITIES)


def test_entries_that_were_removed_stay_removed() -> None:
    kept = edited("keep:top=3")
    hot = Edit.parse("temper:temperature=20")(kept, target=TARGET, noise=NOISE)
    assert torch.equal(hot == 0, kept == 0)
    torch.testing.assert_close(hot.sum(dim=-1), torch.ones(IMAGES, dtype=torch.float64))


def test_every_set_has_shuffles_of_its_own() -> None:
    spec = LabelSpec.parse("shuffle").edits
    tables = [edited_labels(FixedLabels(PROBABILITIES), spec, images(seed)).logits(torch.empty(0), torch.arange(IMAGES))
              for seed in (0, 0, 1)]  # fmt: skip
    assert torch.equal(tables[0], tables[1])
    assert not torch.equal(tables[0], tables[2])


def test_the_hardest_and_softest_labels_can_be_smoothed() -> None:
    extreme = torch.stack([F.one_hot(torch.tensor(3), CLASSES).double(), torch.full((CLASSES,), 1 / CLASSES).double()])
    made = Edit.parse("smooth")(extreme, target=torch.tensor([3, 1]), noise=NOISE[:2])
    torch.testing.assert_close(made, extreme, atol=1e-6, rtol=0)


# --- what becomes of the mass is the loss's choice -----------------------------------------------------------------


@pytest.mark.parametrize("top", [1, 3, 7])
def test_cross_entropy_of_mass_m_is_m_times_that_of_the_renormalised_label(top: int) -> None:
    source = FixedLabels(PROBABILITIES, space="probabilities")
    labels = edited_labels(source, [Edit.parse(f"keep:top={top}")], images())
    logged = labels.logits(torch.empty(0), torch.arange(IMAGES))
    assert logged is not None
    student = torch.randn(IMAGES, CLASSES, generator=stream(0, "z"), dtype=torch.float64, requires_grad=True)
    raw = LOSSES["soft_ce_mass"].function(student=student, teacher=logged, target=TARGET)
    renormalised = LOSSES["soft_ce"].function(student=student, teacher=logged, target=TARGET)
    mass = edited(f"keep:top={top}").sum(dim=-1)
    torch.testing.assert_close(raw, mass * renormalised)
    [steep] = torch.autograd.grad(raw.sum(), student, retain_graph=True)
    [flat] = torch.autograd.grad(renormalised.sum(), student)
    torch.testing.assert_close(steep, mass[:, None] * flat)


def test_the_largest_entry_alone_is_the_expert_s_class_weighted_by_its_confidence() -> None:
    student = torch.randn(IMAGES, CLASSES, generator=stream(1, "z"), dtype=torch.float64)
    loss = LOSSES["soft_ce_mass"].function(student=student, teacher=edited("keep:top=1").log(), target=TARGET)
    top = PROBABILITIES.max(dim=-1)
    torch.testing.assert_close(loss, top.values * F.cross_entropy(student, top.indices, reduction="none"))


# --- as a label source ---------------------------------------------------------------------------------------------


def test_edited_labels_are_those_of_their_images() -> None:
    logits = 5 * PROBABILITIES.float().log()
    source = edited_labels(FixedLabels(logits), LabelSpec.parse("shuffle+keep:top=3").edits, images())
    assert isinstance(source, EditedLabels)
    index = torch.tensor([5, 0, 5, 17])
    made = source.logits(torch.empty(0), index)
    assert made is not None
    expected = F.softmax(logits, dim=-1)
    for spec in ("shuffle", "keep:top=3"):
        expected = Edit.parse(spec)(expected, target=TARGET, noise=source.noise)
    torch.testing.assert_close(made.exp(), expected[index], atol=1e-12, rtol=1e-5)
    assert (source.space, source.regime) == ("probabilities", "fixed")
    assert torch.equal(source.noise, edited_labels(source.source, source.edits, images()).noise)  # type: ignore[attr-defined]


def test_fingerprints_tell_edits_apart() -> None:
    source = FixedLabels(PROBABILITIES.float())
    names = ["swap", "swap:rank=2", "keep:top=2", "swap+keep:top=2", "keep:top=2+swap"]
    made = [edited_labels(source, LabelSpec.parse(name).edits, images()).fingerprint for name in names]
    assert len({source.fingerprint, *made}) == len(names) + 1
    assert edited_labels(source, [], images()) is source
    # What an edit looks at besides: the classes of the images, and the draws of their set.
    [swap] = LabelSpec.parse("swap").edits
    others = [images(seed=1), images(targets=TARGET.flip(0))]
    assert len({edited_labels(source, [swap], other).fingerprint for other in (images(), *others)}) == 3
    # A default written out is the same edit.
    assert Edit.parse("swap") == Edit.parse("swap:rank=1")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("swop", "There is no edit of labels named 'swop'. Did you mean 'swap'?"),
        ("swap:place=2", "The edit 'swap' has no option 'place'. Its options are: rank."),
        ("smooth:x=1", "Its options are: none."),
        ("swap:rank=0", "must be a whole number from 1 on. Got 0"),
        ("keep:top=1.5", "must be a whole number from 0 on. Got 1.5"),
        ("keep:top=true", "must be a whole number"),
        ("temper:temperature=0", "must be a number from 1e-06 on. Got 0"),
        ("temper:temperature=hot", "Got 'hot'"),
    ],
)
def test_edits_that_do_not_exist(spec: str, message: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError)) as caught:
        Edit.parse(spec)
    assert message in str(caught.value)


@pytest.mark.parametrize("spec", ["swap:rank=7", "keep:top=8", "tail:top=8", "forget:index=7"])
def test_entries_that_the_labels_do_not_have(spec: str) -> None:
    with pytest.raises(ConfigError, match="asks for more than labels of 7 classes have"):
        edited_labels(FixedLabels(PROBABILITIES), [Edit.parse(spec)], images())


def test_label_specs() -> None:
    assert LabelSpec.parse("online") == LabelSpec("online")
    spec = LabelSpec.parse("fixed+temper:temperature=2+keep:top=4")
    assert (spec.regime, [edit.name for edit in spec.edits]) == ("fixed", ["temper", "keep"])
    assert spec.spec == "fixed+temper:temperature=2+keep:top=4"
    assert LabelSpec.parse(spec.spec) == spec
    assert LabelSpec.parse("argmax") == LabelSpec(None, (Edit("argmax"),))
    with pytest.raises(UnknownNameError, match="There is no label regime, edit or codec named 'sometimes'"):
        LabelSpec.parse("sometimes")


def test_losses_say_what_they_need() -> None:
    assert Loss.parse("soft_ce_mass").needs_probabilities
    assert not Loss.parse("soft_ce_mass").needs_logits
    assert not any(Loss.parse(name).needs_probabilities for name in LOSSES if name != "soft_ce_mass")
