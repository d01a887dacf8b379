"""The studies of labels as recipes, and choices made on the selection split."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from softlabel.core import ConfigError, SoftlabelError, UnknownNameError
from softlabel.evaluation import DataOptions, Recipe
from softlabel.evaluation._budget import CODECS
from softlabel.evaluation._comparison import Arm, arms
from softlabel.lab import FULL_LABELS, choices
from softlabel.labels import EDITS, Codec, LabelSpec
from softlabel.recipes import LAB, LabSetting, find_lab
from softlabel.report._specs import parse_plot


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("classes", [2, 10, 200])
@pytest.mark.parametrize("name", LAB)
def test_every_study_is_complete(name: str, classes: int, quick: bool) -> None:
    recipe = find_lab(name, LabSetting(quick=quick, classes=classes))
    assert recipe.summary
    assert len(recipe.comparison.seeds) == (2 if quick else 3)
    found = arms(recipe.comparison, [options.name for options in recipe.sets], classes)
    assert len({arm.name for arm in found}) == len(found)
    for arm in found:
        for edit in arm.labels.edits:
            edit.require_classes(classes)
    # Plots name values that arms have: a place of a curve that no arm can take would stay empty.
    values = {(axis, value) for arm in found for axis, value in arm.axes.items()}
    for plot in recipe.comparison.plots:
        if plot["kind"] == "surface":
            assert {("set", value) for value in plot["ipc"]} <= values
            assert {("teacher", value) for value in plot["epochs"]} <= values
            assert {("labels", value) for value in plot["kept"]} <= values
            continue
        if plot["kind"] == "classes":
            assert {("teacher", value) for value in plot["x"]} <= values
            continue
        if plot["kind"] == "absent":
            pairs = {(arm.axes["set"], arm.axes["labels"]) for arm in found}
            assert pairs == {
                (plot["set"], plot["labels"]),
                *((name, plot["labels"]) for name in plot["images"].values()),
                *((plot["set"], labels) for labels in plot["entries"].values()),
            }
            continue
        if plot["kind"] == "bytes":  # draws all arms, and measures them by full labels
            assert ("labels", FULL_LABELS) in values
            assert name != "bytes" or len({arm.axes["labels"] for arm in found}) >= (10 if classes > 2 else 8)
            continue
        parsed = parse_plot(plot)
        if plot["kind"] == "epochs":
            assert {(plot["axis"], value) for value in plot["x"]} <= values
        for axis, allowed in parsed.where.items():
            assert {(axis, value) for value in allowed} <= values


def test_anatomy_makes_every_edit_of_the_paper() -> None:
    labels = find_lab("anatomy").comparison.labels
    used = {edit.name for spec in labels for edit in LabelSpec.parse(spec).edits}
    assert used == set(EDITS) - {"temper", "forget"}
    assert LabelSpec.parse(labels[0]).spec == "fixed+keep:top=10"  # the label itself: what the others are compared with


def test_settings_reach_the_study() -> None:
    setting = LabSetting(arch="mlp", expert_epochs=12, stops=(2, 12), ipc=(3, 7), protocol="no-distillation")
    recipe = find_lab("epochs", setting, DataOptions(spec="digits", classes=4))
    assert [options.ipc for options in recipe.sets] == [3, 7]
    assert [labeler.epoch for labeler in recipe.labelers] == [2, 12]
    assert recipe.teacher.protocol.epochs == 12
    assert recipe.comparison.protocol.optimizer.name == "sgd"
    assert (recipe.teacher.arch, recipe.comparison.students) == ("mlp", ("mlp",))
    assert recipe.data == DataOptions(spec="digits", classes=4)
    assert find_lab("epochs").data.selection == 0.1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ipc": (1, 1)}, r"--ipc takes different numbers of 1 or more\. Got 1, 1"),
        ({"ipc": (0,)}, "--ipc takes different"),
        ({"stops": (0, 3)}, "--stops takes different"),
        ({"stops": (3, 30)}, "--stops asks for epoch 30, and the experts are trained for 24"),
        ({"expert_epochs": 0}, "--expert-epochs must be 1 or more"),
        ({"classes": 1}, "Labels of one class say nothing"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LabSetting(**changes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("zero-shot", {"ipc": (1, 50)}, "takes one number of images per class"),
        *((name, {"stops": (2, 5)}, "takes one expert") for name in ("baseline", "anatomy", "images", "zero-shot")),
        ("epochs", {"protocol": "hard"}, None),
    ],
)
def test_studies_of_one_thing_take_one(name: str, changes: dict[str, Any], message: str | None) -> None:
    if message is None:
        assert find_lab(name, LabSetting(**changes)).comparison.labels == ("fixed",)
        return
    with pytest.raises(ConfigError, match=message):
        find_lab(name, LabSetting(**changes))


def test_a_surface_of_experts_of_one_epoch() -> None:
    assert find_lab("scaling", LabSetting(expert_epochs=1)).comparison.teachers == ("epoch 1",)


def test_an_unknown_study() -> None:
    with pytest.raises(UnknownNameError, match=r"no label study named .anatomie.\. Did you mean .anatomy."):
        find_lab("anatomie")


def test_experts_of_an_ensemble_are_the_single_ones() -> None:
    """One trajectory per seed serves every study, so that what one trained the others find."""
    teachers = {replace(find_lab(name).teacher) for name in LAB}
    assert len(teachers) == 1
    ensemble = find_lab("ensembles")
    assert [labeler.seeds for labeler in ensemble.labelers[:3]] == [(0,), (0, 1), (0, 1, 2)]


# Choices.


def _arm(set_name: str, teacher: str, selection: float | None, final: float | None, loss: str = "soft_ce") -> Any:
    def score(value: float | None) -> Any:
        return None if value is None else {"mean": value, "std": 0.01, "low": 0.0, "high": 1.0, "n": 3}

    axes = {"set": set_name, "teacher": teacher, "labels": "fixed", "loss": loss}
    return {"axes": axes, "selection": score(selection), "final": score(final)}


def test_choices_are_made_on_the_selection_split() -> None:
    found = choices({"choosing": True, "arms": [
        _arm("a", "early", 0.50, 0.45), _arm("a", "late", 0.48, 0.47), _arm("a", "broken", None, None),
        _arm("a", "none", 0.9, 0.9, loss="ce"),
        _arm("b", "early", 0.40, 0.40), _arm("b", "late", 0.44, 0.43),
    ]})  # fmt: skip
    assert [(one.set, one.chosen[0], one.best[0]) for one in found] == [("a", "early", "late"), ("b", "late", "late")]
    assert found[0].difference == pytest.approx(0.02)
    assert found[1].difference == 0


def test_a_study_without_a_selection_split_has_no_choices() -> None:
    assert choices({"choosing": False, "arms": [_arm("a", "early", 0.5, 0.5)]}) == []
    assert choices({"arms": [_arm("a", "early", 0.5, 0.5)]}) == []
    failed = _arm("a", "early", 0.5, 0.5) | {"failed": [{"seed": 1, "error": "x"}]}
    assert choices({"choosing": True, "arms": [failed]}) == []


def test_bytes_takes_labels_and_losses() -> None:
    setting = LabSetting(ipc=(5,), labels=("replay", "replay+distances", "fixed"), losses=("soft_ce", "gift"))
    recipe = find_lab("bytes", setting)
    assert [options.storage for options in recipe.sets] == ["png", "jpeg-75"]
    found = {(arm.set_name, arm.axes["labels"], arm.axes["loss"]) for arm in _arms(recipe)}
    assert found == {
        *(("random, IPC 5", labels, loss) for labels in ("replay+fp16", "fixed") for loss in ("soft_ce", "gift")),
        ("random, IPC 5", "replay+distances+fp16", "soft_ce"),
        ("random, IPC 5, jpeg-75", "fixed", "soft_ce"),
    }


def test_labels_that_no_loss_can_use_are_refused_not_dropped() -> None:
    with pytest.raises(ConfigError, match="of these labels only the largest are kept"):
        find_lab("bytes", LabSetting(labels=("replay", "replay+topk:k=2"), losses=("gift",)))


def test_bytes_tries_jpeg_where_images_weigh_more_than_labels() -> None:
    recipe = find_lab("bytes")
    lossy = [arm for arm in _arms(recipe) if arm.set_name.endswith("jpeg-75")]
    assert {arm.axes["labels"] for arm in lossy} == {"fixed+fp16", "replay:epochs=10+int4", "replay:epochs=30+int4"}
    assert {arm.axes["loss"] for arm in lossy} == {"soft_ce"}
    big = find_lab("bytes", LabSetting(labels=("replay",)))
    assert {options.storage for options in big.sets} == {"png"}


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("epochs", LabSetting(labels=("fixed",)), "--labels is for softlabel lab bytes"),
        ("images", LabSetting(losses=("kl",)), "--losses is for softlabel lab bytes and hello"),
        ("bytes", LabSetting(labeler="hello:epochs=1"), "--labeler is for softlabel lab hello"),
        ("bytes", LabSetting(parts=("probe",)), "--parts is for softlabel lab hello"),
    ],
)
def test_settings_of_another_study_are_refused(name: str, setting: LabSetting, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_lab(name, setting)


def _arms(recipe: Recipe) -> list[Arm]:
    return list(arms(recipe.comparison, [options.name for options in recipe.sets], 10))


def test_every_regime_of_bytes_is_compared_with_full_labels() -> None:
    recipe = find_lab("bytes", LabSetting(labels=("online", FULL_LABELS, "fixed"), losses=("soft_ce",)))
    assert recipe.comparison.pairs == tuple(
        ({"labels": labels}, {"labels": FULL_LABELS}) for labels in ("online", "fixed")
    )


def test_what_a_loss_is_not_tried_with_is_said() -> None:
    recipe = find_lab("bytes", LabSetting(labels=("replay", "replay+topk:k=2"), losses=("gift", "soft_ce")))
    assert recipe.comparison.notes == (
        "gift is not tried with replay+topk:k=2+fp16: these do not keep the logits that it compares.",
    )
    lossy = find_lab("bytes", LabSetting(labels=("replay:epochs=9+topk:k=2+int4",), losses=("gift", "soft_ce")))
    assert [arm.axes["loss"] for arm in _arms(lossy) if "jpeg" in arm.set_name] == ["soft_ce", "soft_ce"]
    assert len(find_lab("bytes", LabSetting(labels=("fixed",), losses=("ce",), ipc=(1,))).sets) == 1


def test_pools_follow_the_training() -> None:
    found = {LabelSpec.parse(spec).epochs for spec in find_lab("bytes", LabSetting(epochs=60)).comparison.labels}
    assert found == {0, 6, 2}
    with pytest.raises(ConfigError, match="a pool that is no shorter than the training of 20 epochs"):
        find_lab("bytes", LabSetting(epochs=20, labels=("replay:epochs=20",)))
    assert find_lab("bytes", LabSetting(epochs=1)).comparison.labels


def test_parts_of_a_labeler_are_compared_with_the_one_before_and_full_labels() -> None:
    recipe = find_lab("hello", LabSetting(labeler="hello:backbone=clip:x"))
    parts = ("probe", "+ weak teachers", "+ low-rank updates", "+ text head")
    assert recipe.comparison.pairs[:3] == tuple(
        ({"teacher": later}, {"teacher": before}) for before, later in pairwise(parts)
    )
    full = {"teacher": "weak teachers", "labels": FULL_LABELS}
    assert recipe.comparison.pairs[3:] == tuple(
        ({"teacher": name, "labels": "online"}, full) for name in ("last epoch", *parts)
    )
    one = find_lab("hello", LabSetting(stops=(8,)))
    assert [labeler.name for labeler in one.labelers] == ["weak teachers", "probe", "+ low-rank updates"]
    assert [labeler.stops for labeler in find_lab("hello", LabSetting(stops=(24, 8))).labelers[:3]] == [
        (8, 24),
        (24,),  # the last epoch's teacher, who costs the half of both
        (24,),
    ]
    assert find_lab("hello").comparison.protocol.name.startswith("gift")
    assert find_lab("hello", LabSetting(protocol="rded")).comparison.protocol.name.startswith("rded")


@pytest.mark.parametrize("classes", [3, 10, 20, 200])
def test_no_labels_are_tried_that_16_bits_would_keep_in_as_few_bytes(classes: int) -> None:
    tried = [LabelSpec.parse(spec).codec for spec in find_lab("bytes", LabSetting(classes=classes)).comparison.labels]
    fp16 = {codec: replace(codec, numbers="fp16").row_bytes(classes) for codec in tried if codec is not None}
    for codec, size in fp16.items():
        assert codec.numbers == "fp16" or codec.row_bytes(classes) < size, codec


def test_a_budget_s_codecs_save_bytes() -> None:
    assert all(Codec.parse(spec).saves(10) for spec in CODECS)
    assert not Codec.parse("topk:k=2,fill=smooth+int8").saves(10)
    assert not Codec.parse("int8").saves(3)


def test_full_labels_are_those_of_every_view_under_a_protocol_with_a_pool() -> None:
    protocol = find_lab("bytes", LabSetting(protocol="lpld", losses=("kl",))).comparison.protocol
    assert protocol.with_labels("replay").labelled_epochs == 300


def test_parts_of_a_labeler_can_be_chosen() -> None:
    clip = "hello:backbone=clip:x"
    low = find_lab("hello", LabSetting(parts=("low-rank",), losses=("gift",)))
    assert [labeler.name for labeler in low.labelers] == ["weak teachers", "+ low-rank updates"]
    assert (low.updated, low.comparison.losses) == ((), ("gift",))
    assert [one.name for one in find_lab("hello", LabSetting(parts=("last",))).labelers] == [
        "weak teachers",
        "last epoch",
    ]
    both = find_lab("hello", LabSetting(quick=True, labeler=clip, parts=("update", "text", "probe")))
    assert [labeler.name for labeler in both.labelers[1:]] == ["probe", "+ text head"]
    assert [updated.labeler for updated in both.updated] == ["+ text head"]
    assert not find_lab("hello", LabSetting(quick=True, labeler=clip)).updated
    for setting, message in (
        (LabSetting(parts=("lora",)), "no part of a labeler named 'lora'"),
        (LabSetting(parts=("text",)), "There is no part 'text' here"),
        (LabSetting(parts=("low-rank",), labeler="hello:rank=0"), "There is no part 'low-rank' here"),
        (LabSetting(parts=("weak",), stops=(8,)), "There is no part 'weak' here"),
        (LabSetting(parts=("update",)), "Ask for another of --parts with it"),
    ):
        with pytest.raises(SoftlabelError, match=message):
            find_lab("hello", setting)


def test_labelers_of_one_set_are_parts_of_their_own() -> None:
    recipe = find_lab("hello", LabSetting(labeler="hello:backbone=clip:x,set_epochs=60,offset_epochs=30,refit=true"))
    text, own, offset, refit = recipe.labelers[-4:]
    assert [one.name for one in (text, own, offset, refit)] == [
        "+ text head", "+ the set's own images", "+ an offset per image", "+ head refitted"]  # fmt: skip
    assert text.hello is not None
    assert own.hello == replace(text.hello, set_epochs=60)
    assert offset.hello == replace(text.hello, set_epochs=60, offset_epochs=30)
    assert refit.hello == replace(text.hello, set_epochs=60, offset_epochs=30, refit=True)
    assert not text.hello.of_set
    names = [one.name for one in (text, own, offset, refit)]
    before = [({"teacher": later}, {"teacher": earlier}) for earlier, later in pairwise(names)]
    assert all(pair in recipe.comparison.pairs for pair in before)
    alone = find_lab("hello", LabSetting(labeler="hello:offset_epochs=5", parts=("low-rank", "offset")))
    assert [one.hello.set_epochs for one in alone.labelers if one.hello] == [0, 0]
    for spec, parts in (("set_epochs=2", "low-rank"), ("offset_epochs=2", "low-rank")):
        with pytest.raises(ConfigError, match="Add own, or offset or refit, to --parts"):
            find_lab("hello", LabSetting(labeler=f"hello:{spec}", parts=(parts,)))
    last = find_lab("hello", LabSetting(labeler="hello:offset_epochs=5,refit=true", parts=("refit",))).labelers[-1]
    assert last.hello is not None
    assert last.hello.refit
    with pytest.raises(ConfigError, match="There is no part 'refit' here"):
        find_lab("hello", LabSetting(labeler="hello:offset_epochs=5", parts=("refit",)))
    with pytest.raises(ConfigError, match="Add own, or offset or refit, to --parts"):
        find_lab("hello", LabSetting(labeler="hello:set_epochs=2,offset_epochs=2", parts=("own",)))


def test_experts_may_be_trained_as_teachers_are() -> None:
    assert find_lab("epochs").teacher.protocol.name.startswith("expert")
    short = find_lab("epochs", LabSetting(experts="teacher", expert_epochs=5)).teacher.protocol
    assert (short.optimizer.momentum, short.epochs) == (0.9, 5)
    with pytest.raises(SoftlabelError, match="no teacher's protocol named 'coach'"):
        LabSetting(experts="coach")


def test_ensembles_are_compared_with_one_expert_of_their_epoch() -> None:
    assert find_lab("ensembles", LabSetting(stops=(4,))).comparison.pairs == (
        ({"teacher": "2 experts of epoch 4"}, {"teacher": "1 expert of epoch 4"}),
        ({"teacher": "3 experts of epoch 4"}, {"teacher": "1 expert of epoch 4"}),
    )


def test_bytes_takes_one_expert() -> None:
    with pytest.raises(ConfigError, match="takes one expert"):
        find_lab("bytes", LabSetting(stops=(4, 8)))
