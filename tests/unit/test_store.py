"""Artifacts: whole or absent, checked on reading, and clear about what is wrong."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import softlabel
from softlabel.core import StoreError
from softlabel.store import (
    MANIFEST,
    SCHEMA,
    FileCheckpoint,
    Store,
    is_complete,
    new_artifact,
    read_artifact,
    read_tensors,
    tensor_bytes,
    write_bytes,
    write_json,
)


def everything_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def make(path: Path, **meta: Any) -> Path:
    with new_artifact(path, "labels", {"answer": 42, **meta}) as writer:
        writer.write_tensors("a/table.safetensors", {"x": torch.arange(6).view(2, 3)})
        writer.write("notes.txt", b"hello")
    return path


def interrupted(path: Path, error: BaseException, *, resumable: bool = False, **meta: Any) -> None:
    """Begin an artifact, write one file of it, and stop."""
    with new_artifact(path, "labels", meta, resumable=resumable) as writer:
        writer.write_tensors("one.safetensors", {"x": torch.ones(2)})
        # As a kill in the middle of a write leaves it.
        (writer.folder / ".two.safetensors.abc.tmp").write_bytes(b"half")
        raise error


# --- writing ---------------------------------------------------------------------------------------------------


def test_an_artifact_reads_back(tmp_path: Path) -> None:
    path = make(tmp_path / "deep" / "thing")
    artifact = read_artifact(path, "labels")
    assert (artifact.kind, artifact.meta, artifact.path) == ("labels", {"answer": 42}, path)
    assert artifact.names() == ["a/table.safetensors", "notes.txt"]
    assert artifact.names("a/") == ["a/table.safetensors"]
    assert artifact.bytes_of("notes") == 5
    assert artifact.bytes_of() == sum(
        file.stat().st_size for file in path.rglob("*") if file.name in ("table.safetensors", "notes.txt")
    )
    assert torch.equal(artifact.tensors("a/table.safetensors")["x"], torch.arange(6).view(2, 3))
    assert everything_in(tmp_path / "deep") == [
        "thing",
        "thing/a",
        "thing/a/table.safetensors",
        "thing/manifest.json",
        "thing/notes.txt",
    ]


def test_the_manifest_lists_hash_and_size_of_every_file(tmp_path: Path) -> None:
    manifest = json.loads((make(tmp_path / "thing") / MANIFEST).read_text())
    assert manifest["schema"] == SCHEMA
    assert manifest["files"]["notes.txt"] == {
        "sha256": "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        "bytes": 5,
    }


def test_meta_may_be_filled_while_writing(tmp_path: Path) -> None:
    meta: dict[str, Any] = {}
    with new_artifact(tmp_path / "thing", "labels", meta):
        meta["late"] = [1]
    assert read_artifact(tmp_path / "thing").meta == {"late": [1]}


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    with new_artifact(tmp_path / "thing", "labels", {}) as writer:
        writer.write("notes.txt", b"hello")
        assert not (tmp_path / "thing").exists()
        assert not list(tmp_path.rglob(MANIFEST))
        assert all(name.startswith(".") for name in everything_in(tmp_path))
    assert is_complete(tmp_path / "thing")


def test_the_manifest_is_written_after_all_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    replace = os.replace

    def recording(source: Any, target: Any) -> None:
        order.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", recording)
    make(tmp_path / "thing")
    assert order == ["table.safetensors", "notes.txt", MANIFEST, "thing"]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_exception_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        interrupted(tmp_path / "thing", error)
    assert everything_in(tmp_path) == []


def test_meta_that_is_no_json_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(TypeError, match="cannot express Tensor as JSON"),
        new_artifact(tmp_path / "thing", "labels", {"x": torch.ones(1)}),
    ):
        pass
    assert everything_in(tmp_path) == []


def test_an_interrupted_resumable_artifact_is_hidden_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    with pytest.raises(RuntimeError):
        interrupted(path, RuntimeError("stop"), resumable=True, seed=0)
    assert not path.exists()
    assert not is_complete(path)
    assert all(name.startswith(".thing.") for name in everything_in(tmp_path))
    with new_artifact(path, "labels", {"seed": 0}, resumable=True) as writer:
        assert torch.equal(read_tensors(writer.folder / "one.safetensors")[0]["x"], torch.ones(2))
    assert read_artifact(path).names() == ["one.safetensors"]
    assert everything_in(tmp_path) == ["thing", "thing/manifest.json", "thing/one.safetensors"]


def test_other_work_does_not_continue_what_was_interrupted(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        interrupted(tmp_path / "x", RuntimeError("stop"), resumable=True, seed=0)
    with new_artifact(tmp_path / "x", "labels", {"seed": 1}, resumable=True) as writer:
        assert list(writer.folder.iterdir()) == []
    assert read_artifact(tmp_path / "x").names() == []


def test_the_faster_process_wins(tmp_path: Path) -> None:
    with new_artifact(tmp_path / "thing", "labels", {"who": "slow"}) as writer:
        writer.write("notes.txt", b"slow")
        (tmp_path / "elsewhere").mkdir()
        make(tmp_path / "elsewhere" / "thing", who="fast").rename(tmp_path / "thing")
    assert read_artifact(tmp_path / "thing").meta["who"] == "fast"
    assert [path.name for path in tmp_path.iterdir() if path.name != "elsewhere"] == ["thing"]


@pytest.mark.parametrize("foreign", ["file", "empty folder", "full folder"])
def test_what_stands_in_the_way_is_never_overwritten(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "thing"
    if foreign == "file":
        path.write_text("mine")
    else:
        path.mkdir()
        if foreign == "full folder":
            (path / "mine.txt").write_text("mine")
    before, began = everything_in(tmp_path), False
    with (
        pytest.raises(StoreError, match=r"thing exists and is no complete artifact\. Move or delete it"),
        new_artifact(path, "labels", {}),
    ):
        began = True
    assert everything_in(tmp_path) == before
    assert not began


def test_a_folder_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no complete artifact"), new_artifact(tmp_path / "thing", "labels", {}):
        (tmp_path / "thing").mkdir()
    assert everything_in(tmp_path) == ["thing"]


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    with pytest.raises(StoreError, match=r"a file stands where a folder is needed\. Move it\."):
        make(tmp_path / "store" / "thing")
    with pytest.raises(StoreError, match="a file stands where a folder is needed"):
        write_bytes(tmp_path / "store" / "x", b"")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_bytes(tmp_path / "deep" / "x", b"first")
    write_bytes(tmp_path / "deep" / "x", b"2")
    assert (tmp_path / "deep" / "x").read_bytes() == b"2"
    assert everything_in(tmp_path) == ["deep", "deep/x"]


# --- tensors, checkpoints, names -------------------------------------------------------------------------------


def test_tensors_of_every_layout_read_back(tmp_path: Path) -> None:
    base = torch.arange(24, dtype=torch.float32).view(1, 2, 3, 4)
    tensors = {
        "view": base[0, 1].t(),
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "shared": base,
        "scalar": torch.tensor(3),
        "half": base.bfloat16(),
        "empty": torch.zeros(0, 4),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    write_bytes(tmp_path / "x.safetensors", tensor_bytes(tensors, {"note": "é"}))
    found, metadata = read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"note": "é"}
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(found[name], tensor.detach())
        assert found[name].dtype == tensor.dtype


def test_files_that_are_no_tensors_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        read_tensors(tmp_path / "none.safetensors")
    torch.save({"x": torch.ones(1)}, tmp_path / "pickle.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(tensor_bytes({"x": torch.ones(100)})[:-1])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    for name in ("pickle", "cut", "empty"):
        with pytest.raises(StoreError, match=rf"{name}\.safetensors is damaged or no safetensors file"):
            read_tensors(tmp_path / f"{name}.safetensors")


def test_the_package_cannot_unpickle() -> None:

    for source in Path(softlabel.__path__[0]).rglob("*.py"):
        text = source.read_text()
        for word in ("import pickle", "torch.load(", "torch.save(", "allow_pickle=True", "joblib"):
            assert word not in text or "weights_only=True" in text, f"{source} has {word}"


def test_a_checkpoint_reads_back_and_is_replaced(tmp_path: Path) -> None:
    checkpoint = FileCheckpoint(tmp_path / "deep" / "state.safetensors")
    assert checkpoint.load() is None
    checkpoint.save({"x": torch.ones(2)}, {"epoch": 1, "history": {"loss": [0.1]}})
    checkpoint.save({"x": torch.zeros(2)}, {"epoch": 2, "history": {"loss": [0.1, 1 / 3]}})
    found = checkpoint.load()
    assert found is not None
    assert torch.equal(found[0]["x"], torch.zeros(2))
    assert found[1] == {"epoch": 2, "history": {"loss": [0.1, 1 / 3]}}
    assert everything_in(tmp_path) == ["deep", "deep/state.safetensors"]
    checkpoint.clear()
    checkpoint.clear()
    assert checkpoint.load() is None


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.safetensors").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"state\.safetensors is damaged .* Delete it and make it again\."):
        FileCheckpoint(tmp_path / "state.safetensors").load()


def test_every_kind_has_its_folder(tmp_path: Path) -> None:
    store = Store(tmp_path)
    places = [store.teacher("a", "k"), store.distilled("a", "k"), store.labels("a", "k"), store.study("a", "k")]
    assert [place.relative_to(tmp_path).as_posix() for place in places] == [
        "teachers/a-k",
        "distilled/a-k",
        "labels/a-k",
        "studies/a-k",
    ]
    assert store.student("k").name.startswith(".")


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cifar10-convnet-3:width=64", "cifar10-convnet-3-width-64-k"),
        ("../../etc/passwd", "etc-passwd-k"),
        ("/home/me/my photos", "home-me-my-photos-k"),
        ("x" * 300, "x" * 80 + "-k"),
    ],
)
def test_names_are_safe_and_keep_their_fingerprint(tmp_path: Path, label: str, name: str) -> None:
    assert Store(tmp_path).teacher(label, "k") == tmp_path / "teachers" / name


def test_the_default_store_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOFTLABEL_STORE", "/some/where")
    assert Store.default().root == Path("/some/where")
    monkeypatch.delenv("SOFTLABEL_STORE")
    assert Store.default().root == Path("softlabel-store")


def test_records_read_back(store: Store) -> None:
    assert store.read_record("k") is None
    store.write_record("k", {"accuracy": 0.5, "seeds": (1, 2)})
    assert store.read_record("k") == {"accuracy": 0.5, "seeds": [1, 2]}
    store.record("k").write_text("{")
    with pytest.raises(StoreError, match=r"k\.json cannot be read as JSON"):
        store.read_record("k")


def test_json_without_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert everything_in(tmp_path) == []
