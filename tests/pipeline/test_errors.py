"""Everything a user can get wrong ends in one clear sentence, exit status 2, and nothing half-written."""

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from softlabel.cli import main
from softlabel.core import SoftlabelError

Words = tuple[str | Path, ...]
Files = Callable[[Path], dict[str, int]]


@dataclass(frozen=True)
class Bench:
    """Where a mistake is made: sound artifacts to go wrong with, an empty store, and room for broken things."""

    made: Any
    store: Path
    room: Path
    pictures: Path
    draw: Callable[..., Path]

    def copy(self, source: Path, name: str = "copy") -> Path:
        return Path(shutil.copytree(source, self.room / name))

    def folder_with(self, name: str, data: bytes) -> str:
        """Class folders, one of which holds a bad file."""
        folder = self.draw(self.room / "pictures", 6)
        (folder / "bee" / name).write_bytes(data)
        return f"imagefolder:{folder}"


@pytest.fixture
def bench(made: Any, tmp_path: Path, pictures: Path, draw_pictures: Callable[..., Path]) -> Bench:
    room = tmp_path / "room"
    room.mkdir()
    return Bench(made, tmp_path / "store", room, pictures, draw_pictures)


TEACH = ("teach", "--arch", "convnet-1:width=4", "--epochs", "2")
STUDENT = ("--student", "convnet-1:width=4", "--epochs", "1")


def flipped(bench: Bench) -> Path:
    """A distilled set with one byte of one image changed."""
    path = bench.copy(bench.made.random)
    file = sorted(path.rglob("*.png"))[2]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    return path


def without(bench: Bench, source: Path, pattern: str) -> Path:
    path = bench.copy(source)
    sorted(path.rglob(pattern))[0].unlink()
    return path


def rewritten(bench: Bench, source: Path, old: str, new: str) -> Path:
    """A copy whose manifest was edited."""
    path = bench.copy(source)
    manifest = path / "manifest.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    return path


def truncated(bench: Bench) -> str:
    image = sorted((bench.pictures / "train" / "ant").iterdir())[0].read_bytes()
    return bench.folder_with("half.png", image[: len(image) // 2])


def other_classes(bench: Bench) -> str:
    return f"imagefolder:{bench.draw(bench.room / 'others', 6, names=('dog', 'eel'))}"


def other_names(bench: Bench) -> str:
    return f"imagefolder:{bench.draw(bench.room / 'others', 6, names=('1', '2', '10'))}"


def digits_set(bench: Bench) -> Path:
    """A distilled set of other data."""
    path = bench.room / "digits"
    assert main(["distill", "--data", "digits", "--method", "random", "--ipc", "1", "--out", str(path)]) == 0
    return path


# name -> the words of the command, and what the sentence must say.
Case = tuple[Callable[[Bench], Words], list[str]]
CASES: dict[str, Case] = {
    # Unknown names list the choices and the nearest one.
    "recipe": (lambda b: ("run", "digits-quik"), ["no recipe named 'digits-quik'", "Did you mean 'digits-quick'"]),
    "data": (
        lambda b: (*TEACH, "--data", "cifar"),
        ["no data set named 'cifar'", "Did you mean 'cifar10'", "digits", "imagefolder:PATH"],
    ),
    "data-path": (lambda b: (*TEACH, "--data", str(b.pictures)), [f"imagefolder:{'{pictures}'}"]),
    "data-form": (lambda b: (*TEACH, "--data", "imagefolder:"), ["lacks what follows the colon"]),
    "no-data": (lambda b: TEACH, ["Which data?", "--data", "softlabel ls datasets"]),
    "method": (
        lambda b: ("distill", "--data", b.made.data, "--method", "rdde"),
        ["no method named 'rdde'", "Did you mean 'rded'", "herding, k-centre, latent-diffusion, random, rded"],
    ),
    "method-option": (
        lambda b: ("distill", "--data", b.made.data, "--method", "rded:tiles=2"),
        ["has no option 'tiles'", "factor, crops, images, min_scale, max_scale"],
    ),
    "method-option-type": (
        lambda b: ("distill", "--data", b.made.data, "--method", "rded:factor=two"),
        ["'factor'", "must be int", "'two'"],
    ),
    "method-outside": (
        lambda b: ("distill", "--data", b.made.data, "--method", "no.such:method"),
        ["cannot be imported", "package.module:function", "Python path"],
    ),
    "method-spec": (
        lambda b: ("distill", "--data", b.made.data, "--method", "rded:factor"),
        ["Cannot read the option 'factor'", "name:key=value"],
    ),
    "loss": (
        lambda b: ("train", b.made.random, "--loss", "gifd", "--teacher", b.made.teacher),
        ["no loss named 'gifd'", "Did you mean 'gift'"],
    ),
    "losses": (
        lambda b: ("evaluate", b.made.random, "--losses", "ce", "lk", "--teacher", b.made.teacher),
        ["no loss named 'lk'", "kl"],
    ),
    "loss-option": (
        lambda b: ("train", b.made.random, "--loss", "kl:heat=2", "--teacher", b.made.teacher),
        ["'kl' has no option 'heat'", "temperature"],
    ),
    "loss-range": (
        lambda b: ("train", b.made.random, "--loss", "gift:gamma=2", "--teacher", b.made.teacher),
        ["'gamma'", "from 0 to 1", "Got 2"],
    ),
    "protocol": (
        lambda b: ("train", b.made.random, "--protocol", "gif"),
        ["no protocol named 'gif'", "Did you mean 'gift'", "no-distillation"],
    ),
    "protocol-evaluate": (lambda b: ("evaluate", b.made.random, "--protocol", "x"), ["no protocol named 'x'", "rded"]),
    "model-teacher": (
        lambda b: ("teach", "--data", b.made.data, "--arch", "convent-3"),
        ["no model named 'convent-3'", "Did you mean 'convnet-3'"],
    ),
    "model-student": (
        lambda b: ("train", b.made.random, "--student", "resnet-19", "--loss", "ce"),
        ["no model named 'resnet-19'", "resnet-18"],
    ),
    "model-student-dry": (
        lambda b: ("train", b.made.random, "--student", "resnet-19", "--loss", "ce", "--dry-run"),
        ["no model named 'resnet-19'"],
    ),
    "model-evaluate": (
        lambda b: ("evaluate", b.made.random, "--student", "vgg", "--losses", "ce"),
        ["no model named 'vgg'"],
    ),
    "model-option": (
        lambda b: ("teach", "--data", b.made.data, "--arch", "convnet-3:wide=2"),
        ["has no option 'wide'", "width, norm"],
    ),
    "model-too-deep": (
        lambda b: ("teach", "--data", b.made.data, "--arch", "convnet-4"),
        ["halves the image 4 times", "12x12 px", "smaller depth"],
    ),
    "labels": (
        lambda b: ("train", b.made.random, "--labels", "onlin", "--teacher", b.made.teacher),
        ["no label regime, edit or codec named 'onlin'", "Did you mean 'online'", "online, replay"],
    ),
    "labels-evaluate": (
        lambda b: ("evaluate", b.made.random, "--labels", "soft", "--teacher", b.made.teacher),
        ["no label regime named 'soft'"],
    ),
    "labels-of-no-store": (
        lambda b: ("train", b.made.random, "--labels", "int8", "--protocol", "gift", "--teacher", b.made.teacher),
        ["online labels are not", "replay+int8"],
    ),
    "labels-edited-and-stored": (
        lambda b: ("train", b.made.random, "--labels", "swap", "--protocol", "lpld", "--teacher", b.made.teacher),
        ["Edits are for labels as they are made", "Take fixed or online, as in online+swap"],
    ),
    "labels-by-class-mixed": (
        lambda b: ("train", b.made.random, "--labels", "smooth", "--protocol", "rded", "--loss", "soft_ce",
                   "--teacher", b.made.teacher),
        ["'smooth' goes by an image's class", "'rded' mix images", "fixed+smooth"],
    ),
    "labels-unread": (
        lambda b: ("train", b.made.random, "--labels", "online+fp16", "--loss", "ce", "--teacher", b.made.teacher),
        ["The loss ce looks at the class alone", "Leave --labels out"],
    ),
    **{
        f"labels-{regime}-unread": (
            lambda b, regime=regime: ("train", b.made.random, "--labels", regime, "--protocol", "challenge-2024",
                                      "--teacher", b.made.teacher),
            ["The loss ce looks at the class alone", f"--labels {regime} are a teacher's"],
        )
        for regime in ("fixed", "online", "replay")
    },
    **{
        f"evaluate-{labels}": (
            lambda b, labels=labels: ("evaluate", b.made.random, "--labels", labels, "--teacher", b.made.teacher),
            ["evaluate compares labels as they are made: hard, fixed", f"lab bytes --labels {labels}"],
        )
        for labels in ("online+fp16", "fixed+keep:top=2", "replay:epochs=1")
    },
    "labels-unread-under-hard": (
        lambda b: ("train", b.made.random, "--labels", "online+swap", "--protocol", "hard",
                   "--teacher", b.made.teacher),
        ["The loss ce looks at the class alone"],
    ),
    "labels-stored-unread": (
        lambda b: ("train", b.made.rded, "--labels", b.made.labels, "--loss", "ce"),
        ["The loss ce looks at the class alone", "Leave --labels out"],
    ),
    "no-classes-of-a-known-set": (
        lambda b: ("train", b.made.random, "--loss", "ce", "--classes", "0"),
        ["classes must be 2 or more. Got 0"],
    ),
    "seconds-of-nothing": (
        lambda b: ("evaluate", b.made.random, "--teacher", b.made.teacher, "--seconds", "5"),
        ["--seconds is the time of --timed sets"],
    ),
    "clip-of-grey": (
        lambda b: ("clip", "--data", "digits", "--out", b.room / "clip", "--dry-run"),
        ["square images of 3 channels"],
    ),
    "clip-again": (
        lambda b: ("clip", "--data", b.made.data, "--out", b.made.teacher, "--no-resume"),
        ["--no-resume makes everything again", "Choose another --out"],
    ),
    "list": (lambda b: ("ls", "recipies"), ["no list named 'recipies'", "Did you mean 'recipes'", "protocols"]),
    "views": (
        lambda b: (*TEACH, "--data", b.made.data, "--views", "flip"),
        ["no view policy named 'flip'", "flip-crop"],
    ),
    "fetch": (lambda b: ("fetch", "mnist-fashion"), ["mnist-fashion", "fashion-mnist"]),
    "storage": (
        lambda b: ("distill", "--data", b.made.data, "--storage", "gif"),
        ["no image storage 'gif'", "png, webp, or jpeg-Q"],
    ),
    "storage-quality": (lambda b: ("distill", "--data", b.made.data, "--storage", "jpeg-101"), ["1 to 100"]),
    # Settings of the machine.
    "image-size": (
        lambda b: (*TEACH, "--data", b.made.data, "--image-size", "big"),
        ["--image-size must look like 64x64", "'big'"],
    ),
    "image-size-power": (
        lambda b: (*TEACH, "--data", b.made.data, "--image-size", "3²"),
        ["--image-size must look like 64x64"],
    ),
    "image-size-half": (lambda b: (*TEACH, "--data", b.made.data, "--image-size", "x8"), ["--image-size must look"]),
    "image-size-zero": (lambda b: (*TEACH, "--data", b.made.data, "--image-size", "0x8"), ["1 to 4096", "(0, 8)"]),
    "image-size-negative": (lambda b: (*TEACH, "--data", b.made.data, "--image-size", "8x-8"), ["--image-size must"]),
    "channels": (lambda b: (*TEACH, "--data", b.made.data, "--channels", "2"), ["1 (grey) or 3 (RGB)", "Got 2"]),
    "selection": (lambda b: (*TEACH, "--data", b.made.data, "--selection", "0.9"), ["from 0 to 0.5", "0.9"]),
    "device": (
        lambda b: (*TEACH, "--data", b.made.data, "--device", "tpu"),
        ["The device 'tpu' cannot be used", "auto, cpu or cuda"],
    ),
    "device-number": (
        lambda b: (*TEACH, "--data", b.made.data, "--device", "cuda:77"),
        ["The device 'cuda:77' cannot be used"],
    ),
    "precision": (
        lambda b: (*TEACH, "--data", b.made.data, "--precision", "fp8"),
        ["no precision named 'fp8'", "auto, bf16, fp32"],
    ),
    # Numbers out of range.
    "epochs": (lambda b: ("teach", "--data", b.made.data, "--epochs", "0"), ["1 epoch or more", "Got 0"]),
    "epochs-student": (
        lambda b: ("train", b.made.random, "--epochs", "0", "--teacher", b.made.teacher),
        ["1 epoch or more"],
    ),
    "epochs-run": (lambda b: ("run", "digits-quick", "--epochs", "-1"), ["1 epoch or more", "Got -1"]),
    "batch": (lambda b: (*TEACH, "--data", b.made.data, "--batch", "0"), ["1 image or more", "Got 0"]),
    "lr": (lambda b: (*TEACH, "--data", b.made.data, "--lr", "-1"), ["above 0", "-1"]),
    "lr-infinite": (lambda b: (*TEACH, "--data", b.made.data, "--lr", "inf"), ["--lr", "inf"]),
    "lr-nan": (lambda b: (*TEACH, "--data", b.made.data, "--lr", "nan"), ["--lr", "nan"]),
    "save-every": (lambda b: (*TEACH, "--data", b.made.data, "--save-every", "0"), ["--save-every must be 1 or more"]),
    "save-every-dry": (
        lambda b: (*TEACH, "--data", b.made.data, "--save-every", "0", "--dry-run"),
        ["--save-every must be 1 or more"],
    ),
    "seeds": (lambda b: ("evaluate", b.made.random, "--seeds", "0"), ["--seeds must be 1 or more"]),
    "executor-run": (lambda b: ("run", "digits-quick", "--executor", "rya"), ["no executor named 'rya'", "'ray'"]),
    "stack-run": (lambda b: ("run", "digits-quick", "--stack", "vmapp", "--dry-run"), ["no stack named 'vmapp'"]),
    "workers-run": (lambda b: ("run", "digits-quick", "--workers", "2"), ["--workers are Ray's", "--executor ray"]),
    "seeds-run": (lambda b: ("run", "digits-quick", "--seeds", "0"), ["at least one seed, and got none"]),
    "losses-twice": (lambda b: ("evaluate", b.made.random, "--losses", "ce", "ce"), ["must differ"]),
    "ipc-zero": (lambda b: ("distill", "--data", b.made.data, "--ipc", "0"), ["--ipc must be 1 or more", "Got 0"]),
    "ipc-zero-dry": (lambda b: ("distill", "--data", b.made.data, "--ipc", "0", "--dry-run"), ["--ipc must be"]),
    "ipc-too-large": (
        lambda b: ("distill", "--data", b.made.data, "--ipc", "21"),
        ["IPC 21 needs 21 training images", "'ant'", "has 20", "smaller --ipc"],
    ),
    "rded-too-few": (
        lambda b: (
            "distill", "--data", b.made.data, "--method", "rded:factor=2", "--ipc", "6", "--teacher", b.made.teacher,
        ),
        ["RDED with IPC 6 and factor 2 needs 24", "'ant'", "has 20"],
    ),
    "rded-factor": (
        lambda b: ("distill", "--data", b.made.data, "--method", "rded:factor=13", "--teacher", b.made.teacher),
        ["factor must lie in 1..12", "Got 13"],
    ),
    # Missing and corrupt files.
    "no-such-set": (lambda b: ("train", b.room / "none", "--loss", "ce"), ["There is nothing at", "none"]),
    "no-such-set-evaluate": (lambda b: ("evaluate", b.made.random, b.room / "none"), ["There is nothing at"]),
    "no-such-set-label": (lambda b: ("label", b.room / "none", "--teacher", b.made.teacher), ["There is nothing at"]),
    "no-such-teacher": (
        lambda b: ("distill", "--method", "rded", "--teacher", b.room / "none"),
        ["There is nothing at", "none"],
    ),
    "no-such-folder": (lambda b: (*TEACH, "--data", f"imagefolder:{b.room}/none"), ["There is nothing at"]),
    "no-such-study": (lambda b: ("report", b.room / "none"), ["There is nothing at"]),
    "flipped-byte": (lambda b: ("train", flipped(b), "--loss", "ce"), ["is corrupt", "SHA-256", "made it again"]),
    "flipped-byte-evaluate": (lambda b: ("evaluate", flipped(b), "--losses", "ce"), ["is corrupt", ".png"]),
    "flipped-byte-label": (lambda b: ("label", flipped(b), "--teacher", b.made.teacher), ["is corrupt"]),
    "lost-image": (
        lambda b: ("train", without(b, b.made.random, "*.png"), "--loss", "ce"),
        [".png is missing", "manifest"],
    ),
    "lost-manifest": (
        lambda b: ("train", without(b, b.made.random, "manifest.json"), "--loss", "ce"),
        ["is no softlabel artifact", "manifest.json"],
    ),
    "lost-weights": (
        lambda b: ("label", b.made.random, "--teacher", without(b, b.made.teacher, "*.safetensors")),
        ["is missing", "safetensors"],
    ),
    "manifest-no-json": (
        lambda b: ("train", rewritten(b, b.made.random, "{", ""), "--loss", "ce"),
        ["cannot be read as JSON"],
    ),
    "manifest-newer": (
        lambda b: ("train", rewritten(b, b.made.random, '"schema": 1', '"schema": 99'), "--loss", "ce"),
        ["schema 99", "Upgrade softlabel"],
    ),
    "wrong-kind": (
        lambda b: ("train", b.made.teacher, "--loss", "ce"),
        ["Expected an artifact of kind 'distilled'", "found one of kind 'teacher'", "which path goes where"],
    ),
    "wrong-kind-teacher": (
        lambda b: ("label", b.made.random, "--teacher", b.made.random),
        ["of kind 'teacher'", "found one of kind 'distilled'"],
    ),
    "wrong-kind-report": (lambda b: ("report", b.made.random), ["of kind 'study'", "found one of kind 'distilled'"]),
    "wrong-labels": (
        lambda b: ("train", b.made.random, "--labels", b.made.labels),
        ["made for another distilled set", "softlabel label"],
    ),
    "wrong-epoch": (
        lambda b: ("label", b.made.random, "--teacher", b.made.teacher, "--teacher-epoch", "9"),
        ["no checkpoint of epoch 9", "0, 1, 2"],
    ),
    # Folders of pictures.
    "truncated-image": (lambda b: (*TEACH, "--data", truncated(b)), ["half.png cannot be read as an image", "replace"]),
    "no-image": (
        lambda b: (*TEACH, "--data", b.folder_with("text.png", b"not a picture")),
        ["text.png cannot be read as an image"],
    ),
    "empty-image": (lambda b: (*TEACH, "--data", b.folder_with("empty.png", b"")), ["empty.png cannot be read"]),
    "stray-file": (
        lambda b: (*TEACH, "--data", b.folder_with("notes.txt", b"hello")),
        ["notes.txt is no image file", "Move it"],
    ),
    "one-class": (
        lambda b: (*TEACH, "--data", f"imagefolder:{b.draw(b.room / 'one', 4, names=('only',))}"),
        ["only one class", "at least two"],
    ),
    "no-classes": (lambda b: (*TEACH, "--data", f"imagefolder:{b.room}"), ["holds no class folders"]),
    # Teachers that do not fit, and none where one is needed.
    "teacher-other-classes": (
        lambda b: ("distill", "--data", other_classes(b), "--method", "rded", "--teacher", b.made.teacher),
        ["trained on other classes", "3 classes", "has 2", "lacks dog, eel", "softlabel teach"],
    ),
    "teacher-other-names": (
        lambda b: ("distill", "--data", other_names(b), "--method", "herding", "--teacher", b.made.teacher),
        ["trained on other classes"],
    ),
    "teacher-other-size": (
        lambda b: (
            "distill", "--data", b.made.data, "--image-size", "8", "--method", "rded", "--ipc", "1",
            "--teacher", b.made.teacher,
        ),
        ["3 x 12 x 12", "3 x 8 x 8", "--image-size"],
    ),
    "set-other-data": (
        lambda b: ("train", b.made.random, "--data", "digits", "--loss", "ce", *STUDENT),
        ["cannot be judged on digits", "3 classes", "10 classes"],
    ),
    "set-other-data-dry": (
        lambda b: ("train", b.made.random, "--data", "digits", "--loss", "ce", *STUDENT, "--dry-run"),
        ["cannot be judged on digits"],
    ),
    "set-other-data-evaluate": (
        lambda b: ("evaluate", b.made.rded, "--data", "digits", "--losses", "ce", *STUDENT),
        ["cannot be judged on digits"],
    ),
    "set-other-data-evaluate-dry": (
        lambda b: ("evaluate", b.made.rded, "--data", "digits", "--losses", "ce", *STUDENT, "--dry-run"),
        ["cannot be judged on digits"],
    ),
    "teacher-other-data-evaluate": (
        lambda b: ("evaluate", digits_set(b), "--losses", "ce", "kl", "--teacher", b.made.teacher, *STUDENT),
        ["trained on other classes", "softlabel teach"],
    ),
    "teacher-other-data-label": (
        lambda b: ("label", digits_set(b), "--teacher", b.made.teacher),
        ["trained on other classes"],
    ),
    "teacher-other-data-dry": (
        lambda b: ("distill", "--data", "digits", "--method", "rded", "--teacher", b.made.teacher, "--dry-run"),
        ["trained on other classes"],
    ),
    "no-teacher-method": (
        lambda b: ("distill", "--data", b.made.data, "--method", "rded"),
        ["'rded' needs a teacher", "softlabel teach"],
    ),
    "no-teacher-method-dry": (
        lambda b: ("distill", "--data", b.made.data, "--method", "rded", "--dry-run"),
        ["'rded' needs a teacher"],
    ),
    "no-teacher-label": (lambda b: ("label", b.made.random), ["made by a teacher", "--teacher"]),
    "no-teacher-train": (lambda b: ("train", b.made.random), ["need a teacher", "--labels hard"]),
    "no-teacher-evaluate": (lambda b: ("evaluate", b.made.rded, *STUDENT), ["need a teacher", "--teacher"]),
    "no-teacher-evaluate-dry": (lambda b: ("evaluate", b.made.random, *STUDENT, "--dry-run"), ["need a teacher"]),
    "hard-labels-soft-loss": (
        lambda b: ("train", b.made.random, "--labels", "hard", "--loss", "kl", *STUDENT),
        ["needs soft labels"],
    ),
    "hard-protocol-soft-losses": (
        lambda b: (
            *("evaluate", b.made.random, "--protocol", "hard", "--losses", "kl", "gift"),
            *("--teacher", b.made.teacher, *STUDENT),
        ),
        ["kl, gift need soft labels", "'hard"],
    ),
    # Training that blows up.
    "nan": (
        lambda b: (*TEACH, "--data", b.made.data, "--lr", "1e30"),
        ["became", "epoch", "step", "learning rate", "lower it"],
    ),
    # Where nothing can be written.
    "store-is-a-file": (
        lambda b: (*TEACH, "--data", b.made.data, "--store", b.made.random / "manifest.json"),
        ["manifest.json", "a file stands where a folder is needed"],
    ),
    "report-out-twice": (
        lambda b: ("report", b.made.random, b.made.teacher, "--out", b.room),
        ["--out takes one study"],
    ),
    "out-taken": (
        lambda b: ("distill", "--data", b.made.data, "--ipc", "1", "--out", b.made.random),
        ["already holds another distilled set", "Nothing is overwritten"],
    ),
}  # fmt: skip


def test_the_table_covers_every_error_that_is_raised_here() -> None:
    """At least one case for each kind of error that needs no missing package and no full disk."""
    kinds = {kind.__name__ for kind in SoftlabelError.__subclasses__()}
    assert kinds == {
        "UnknownNameError", "ConfigError", "DataError", "MissingExtraError", "StoreError", "TeacherMismatchError",
        "DistillError", "TrainingFailedError",
    }  # fmt: skip


def unfinished(store: Path) -> list[str]:
    """Visible things in a store that are no complete artifact or record, and hidden leftovers of no use."""
    bad = []
    for path in store.glob("*/*"):
        if path.name.startswith("."):
            sound = path.name.endswith(".partial")  # a teacher's, kept to be continued
        else:
            sound = path.is_file() or path.parent.name == "reports" or (path / "manifest.json").is_file()
        if not sound:
            bad.append(path.name)
    return bad


@pytest.mark.parametrize("name", CASES)
def test_a_mistake(name: str, bench: Bench, softlabel: Any, small: tuple[str, ...], files_in: Files) -> None:
    words, fragments = CASES[name]
    before = files_in(bench.made.store)
    command = words(bench)
    options: Words = ()
    if command[0] not in ("ls", "fetch", "report"):
        given = {str(word) for word in command}
        options = () if "--store" in given else ("--store", bench.store)
        options += () if given & {"--device", "--precision"} else small
    said = softlabel(*command, *options)
    assert said.code == 2, said
    assert said.out == ""
    message = said.error
    for fragment in fragments:
        assert fragment.format(pictures=bench.pictures) in message, message
    assert unfinished(bench.store) == []
    assert not list(bench.store.glob("*/[!.]*")), "something was made of a mistake"
    assert files_in(bench.made.store) == before


@pytest.mark.parametrize(
    "words",
    [
        ("distill", "--ipc", "many"),
        ("nonsense",),
        ("run",),
        ("train",),
        ("evaluate", "x", "--seeds", "1.5"),
        ("teach", "--no-such-option"),
    ],
    ids=" ".join,
)
def test_words_that_cannot_be_parsed(words: Words, softlabel: Any) -> None:
    said = softlabel(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.strip()
    assert "Traceback" not in said.err


# A full disk.

STAGES: dict[str, Callable[[Bench], Words]] = {
    "teach": lambda b: (*TEACH, "--data", b.made.data),
    "distill": lambda b: ("distill", "--data", b.made.data, "--ipc", "2"),
    "label": lambda b: ("label", b.made.random, "--teacher", b.made.teacher),
    "train": lambda b: ("train", b.made.random, "--loss", "ce", *STUDENT),
    "evaluate": lambda b: ("evaluate", b.made.random, "--losses", "ce", "--seeds", "1", *STUDENT),
}


def full_after(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    """The disk takes so many more files whole, then it is full."""
    left = [files]
    real = os.fsync

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("files", [0, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk(
    stage: str, files: int, bench: Bench, softlabel: Any, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if files and stage in ("label", "train"):
        pytest.skip("writes two files or fewer")
    softlabel("teach", "--data", bench.made.data, "--dry-run", "--arch", "convnet-1:width=4")  # decode, and cache it
    command = (*STAGES[stage](bench), *small, "--store", bench.store)
    with monkeypatch.context() as patch:
        full_after(patch, files)
        said = softlabel(*command)
    assert said.code == 2, said
    for fragment in ("The disk is full", "MB free", "run the same command again"):
        assert fragment in said.error
    assert said.out == ""
    assert unfinished(bench.store) == []
    assert not list(bench.store.rglob("*.tmp"))
    assert softlabel(*command).code == 0  # with room again, the same command finishes


def test_a_full_disk_while_reporting(
    bench: Bench, softlabel: Any, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = softlabel(*STAGES["evaluate"](bench), *small, "--store", bench.store, "--json")
    study = said.json["study"]
    with monkeypatch.context() as patch:
        full_after(patch, 0)
        said = softlabel("report", study, "--out", bench.room / "report")
    assert (said.code, said.out) == (2, "")
    assert "The disk is full" in said.error
    assert list((bench.room / "report").iterdir()) == []


def test_a_folder_that_may_not_be_written(
    bench: Bench, softlabel: Any, small: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    said = softlabel("distill", "--data", "digits", "--ipc", "1", *small, "--store", bench.store)
    assert said.code == 2
    assert "No permission to write" in said.error
    assert "--store" in said.error
