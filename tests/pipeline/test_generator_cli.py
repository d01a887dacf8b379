"""softlabel generator, and sets that a generator makes, from the command line."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from softlabel.generate import Processes

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of diffusers, under numpy 2
    pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs softlabel[generate]"),
]
SMALLEST = (
    *("--autoencoder", "kl:factor=2,width=8,epochs=1,batch=8", "--denoiser", "dit:width=16,depth=1,heads=2,patch=2"),
    *("--epochs", "2", "--batch", "8"),
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generator")


@pytest.fixture(scope="module")
def train(softlabel: Any, made: Any, small: Any, home: Path) -> Any:
    def run(*words: str | Path) -> Any:
        return softlabel("generator", "--data", made.data, *SMALLEST, *words, *small, "--store", home)

    return run


def test_from_real_images_to_a_trained_student(train: Any, softlabel: Any, made: Any, small: Any, home: Path) -> None:
    told = train("--teacher", made.teacher, "--json").json
    assert told["bytes"] > 0
    assert told["psnr"] > 0
    here = ("--data", made.data, *small, "--store", home, "--json")
    spec = f"latent-diffusion:generator={told['generator']},steps=3"
    words = ("distill", "--method", spec, "--ipc", "2", *here)
    made_set = softlabel(*words).json
    assert made_set["provenance"]["generator"] == told["fingerprint"]
    assert softlabel(*words).json["distilled"] == made_set["distilled"]  # found
    best = softlabel(
        "distill", "--method", f"{spec},how=best,candidates=2", "--ipc", "2", "--teacher", made.teacher, *here
    )
    assert best.code == 0, best.err
    weighed = softlabel("distill", "--method", f"{spec},how=prototypes", "--ipc", "2", *here).json
    assert sum(entry["weight"] for entry in weighed["entries"]) == pytest.approx(len(weighed["entries"]))
    student = ("--student", "convnet-1:width=4", "--epochs", "1")
    for distilled in (made_set["distilled"], weighed["distilled"]):
        record = softlabel(
            "train", distilled, "--teacher", made.teacher, *student, *small, "--store", home, "--json"
        ).json
        assert 0 <= record["accuracy"]["final"] <= 1


def test_what_is_printed_and_found_again(train: Any, made: Any) -> None:
    first, again = train("--teacher", made.teacher), train("--teacher", made.teacher)
    for words in ("Generator of", "images come back at", "teacher's accuracy", "generator: "):
        assert words in first.out
    assert again.out == first.out


def test_a_plan_writes_nothing(train: Any, home: Path, files_in: Any) -> None:
    before = files_in(home)
    parts = train("--seed", "9", "--dry-run", "--json").json["plan"]
    assert [(part["what"], part["done"]) for part in parts] == [("autoencoder, 1 epochs", 0), ("denoiser, 2 epochs", 0)]
    assert all(part["seconds"] > 0 and part["disk_bytes"] > 0 for part in parts)
    assert files_in(home) == before


def test_an_autoencoder_that_is_there(train: Any, made: Any, home: Path, tmp_path: Path) -> None:
    whole = train("--seed", "9", "--dry-run", "--json").json["plan"][1]
    coder = train("--json").json["autoencoder"]
    words = ("--autoencoder", coder, "--schedule", "flow")
    (part,) = train(*words, "--dry-run", "--json").json["plan"]
    assert (part["what"], part["done"]) == ("denoiser, 2 epochs", 0)
    told = train(*words, "--json").json
    assert told["autoencoder"] == coder
    assert part["disk_bytes"] == whole["disk_bytes"]  # its weights are kept with the denoiser's
    (again,) = train(*words, "--dry-run", "--json").json["plan"]
    assert (again["done"], again["seconds"]) == (1, 0)
    for plan in ((), ("--dry-run",)):
        other = train(*words, "--seed", "8", "--out", told["generator"], *plan)
        assert (other.code, "already holds another generator" in other.error) == (2, True), other.err
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (made.teacher, "Expected an artifact of kind 'autoencoder'"),
        (tmp_path / "empty", "There is no autoencoder at"),
        (tmp_path / "none", "there is no such folder"),
        (("/" + "long" * 100), "there is no such folder"),
    ):
        for plan in ((), ("--dry-run",)):
            said = train("--autoencoder", folder, *plan)
            assert (said.code, message in said.error) == (2, True), said.err


def test_a_place_that_is_taken_is_told_before_work(
    train: Any, softlabel: Any, made: Any, small: Any, home: Path, tmp_path: Path, files_in: Any
) -> None:
    path = train("--json").json["generator"]
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    here, before = (*small, "--store", home), files_in(home)
    spec = f"latent-diffusion:generator={path},steps=2"
    commands = (
        ("generator", "--data", made.data, *SMALLEST, "--seed", "8", *here),
        ("generate", "--generator", path, "--seconds", "1", *here),
        ("distill", "--data", made.data, "--ipc", "1", "--method", spec, *here),
    )
    for command in commands:
        for plan in ((), ("--dry-run",)):
            said = softlabel(*command, "--out", tmp_path / "taken", *plan)
            assert (said.code, "taken exists and is no complete artifact" in said.error) == (2, True), said.err
    for plan in ((), ("--dry-run",)):
        many = train("--autoencoder", train("--json").json["autoencoder"], "--batch", "100000", *plan)
        assert (many.code, "A batch of 100000 is larger than" in many.error) == (2, True), many.err
        said = train("--seed", "8", "--out", made.teacher, *plan)
        assert (said.code, "Expected an artifact of kind 'generator'" in said.error) == (2, True), said.err
    assert files_in(home) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--denoiser", "gan"), "There is no denoiser named 'gan'"),
        (("--autoencoder", "ae"), "takes kl or vq with options, or the folder of an autoencoder"),
        (("--autoencoder", "kl:flip=false"), "--flip and the name before the colon"),
        (("--autoencoder", "kl:factor=16"), "Convert them, e.g. with --image-size"),
        (("--denoiser", "dit:width=16,depth=1,heads=2,patch=5"), "in whole patches of 5"),
        (("--schedule", "linear"), "There is no noise schedule named 'linear'"),
        (("--batch", "100000"), "A batch of 100000 is larger than"),
        (("--drop", "1"), "share of dropped classes"),
    ],
)
def test_mistakes(train: Any, home: Path, files_in: Any, words: tuple[str, ...], message: str) -> None:
    before = files_in(home)
    for plan in ((), ("--dry-run",)):
        said = train(*words, *plan)
        assert (said.code, message in said.error) == (2, True), said.err
    assert files_in(home) == before  # no autoencoder was trained for nothing


def test_a_method_without_its_generator(softlabel: Any, made: Any, small: Any, tmp_path: Path) -> None:
    words = ("distill", "--data", made.data, "--ipc", "1", *small, "--store", tmp_path, "--method")
    for spec, message in (
        ("latent-diffusion", "train one with softlabel generator"),
        (f"latent-diffusion:generator={tmp_path}/none", "There is nothing at"),
        (f"latent-diffusion:generator={made.teacher}", "Expected an artifact of kind 'generator'"),
    ):
        said = softlabel(*words, spec)
        assert (said.code, message in said.error) == (2, True), said.err


def test_a_generator_of_other_data(train: Any, softlabel: Any, made: Any, small: Any, tmp_path: Path) -> None:
    path = train("--json").json["generator"]
    spec, here = f"latent-diffusion:generator={path}", (*small, "--store", tmp_path)
    said = softlabel("distill", "--data", "digits", "--ipc", "1", "--method", spec, *here)
    assert (said.code, "Train one on this data" in said.error) == (2, True), said.err
    asked = softlabel("distill", "--data", made.data, "--ipc", "1", "--method", f"{spec},how=best", *here)
    assert (asked.code, "The choice how=best asks a teacher" in asked.error) == (2, True), asked.err


def test_precision_belongs_to_the_name_of_generated_images(
    train: Any, softlabel: Any, made: Any, tmp_path: Path
) -> None:
    spec = f"latent-diffusion:generator={train('--json').json['generator']},steps=2"
    words = ("distill", "--data", made.data, "--ipc", "1", "--method", spec, "--store", tmp_path, "--device", "cpu")
    names = {softlabel(*words, "--precision", one, "--json").json["distilled"] for one in ("fp32", "bf16")}
    assert len(names) == 2
    asked = softlabel(*words, "--precision", "fp32", "--teacher", made.teacher, "--json").json["distilled"]
    assert asked in names  # plain images look at no teacher
    plan = softlabel(*words, "--precision", "fp32", "--ipc", "2", "--dry-run", "--json").json["plan"]
    assert all(line["seconds"] > 0 for line in plan)


def test_a_generator_that_saw_the_selection_split(
    train: Any, softlabel: Any, made: Any, small: Any, tmp_path: Path
) -> None:
    spec = f"latent-diffusion:generator={train('--json').json['generator']},steps=2"
    words = ("distill", "--data", made.data, "--ipc", "1", "--method", spec, *small, "--store", tmp_path)
    said = softlabel(*words, "--selection", "0.2")
    assert (said.code, "it may have seen what is chosen by" in said.error) == (2, True), said.err


@pytest.mark.heavy
def test_two_processes_train_what_one_trains(train: Any, made: Any, small: Any, tmp_path: Path) -> None:
    alone = train("--json").json
    words = ("generator", "--data", made.data, *SMALLEST, *small, "--store", tmp_path, "--json")
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "softlabel")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": "bf16"}  # which --precision overrules
    said = subprocess.run([*launch, *map(str, words)], capture_output=True, text=True, env=env, check=False)
    assert said.returncode == 0, said.stderr[-2000:]
    together = json.loads(said.stdout)
    assert together["losses"] == pytest.approx(alone["losses"], rel=1e-4)
    assert together["fingerprint"] == alone["fingerprint"]


def test_several_processes_share_one_store(
    train: Any, home: Path, files_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("softlabel.cli._generator.launched", lambda device: Processes(rank=1, count=2))
    before = files_in(home)
    said = train("--no-resume")
    assert (said.code, "--no-resume is for one process" in said.error) == (2, True)
    assert files_in(home) == before


def test_renamed_classes_are_another_generator(
    train: Any, softlabel: Any, small: Any, made: Any, home: Path, tmp_path: Path
) -> None:
    renamed = tmp_path / "renamed"
    shutil.copytree(made.data.partition(":")[2], renamed)
    for split in renamed.iterdir():
        (split / "ant").rename(split / "ant lion")
    words = ("generator", "--data", f"imagefolder:{renamed}", *SMALLEST, *small, "--store", home, "--json")
    assert softlabel(*words).json["generator"] != train("--json").json["generator"]


def test_images_for_a_time(train: Any, softlabel: Any, small: Any, tmp_path: Path) -> None:
    path = train("--json").json["generator"]
    words = ("generate", "--generator", path, "--steps", "2", "--batch", "6", *small, "--store", tmp_path)
    told = softlabel(*words, "--seconds", "1", "--json").json
    assert told["ipc"] >= 2
    assert len(told["entries"]) == 3 * told["ipc"]
    assert "distilled set: " in softlabel(*words, "--seconds", "1").out
    assert softlabel(*words, "--seconds", "1", "--dry-run", "--json").json["images"] >= 6
    assert "is too short" in softlabel(*words, "--seconds", "0.0001", "--dry-run").error
    long = softlabel(*words, "--seconds", "1", "--dry-run", "--out", tmp_path / ("long" * 100))
    assert "Traceback" not in long.err
    for wrong, message in (
        (("--seconds", "0"), "takes seconds above 0"),
        (("--seconds", "inf"), "takes seconds above 0, and an end"),
        (("--seconds", "0.0001"), "too short for one batch"),
        (("--sampler", "euler"), "does not go with the schedule"),
        (("--batch", "0"), "batches of 1 or more"),
        (("--out", told["distilled"], "--seed", "1"), "already holds another distilled set"),
    ):
        said = softlabel(*words, *wrong)
        assert (said.code, message in said.error) == (2, True), said.err
