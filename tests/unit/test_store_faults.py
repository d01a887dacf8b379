"""Artifacts when the disk is full, a folder is forbidden, or what was written has been damaged."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from softlabel.core import DiskFullError, StoreError
from softlabel.store import MANIFEST, SCHEMA, new_artifact, read_artifact, require_same, sha256, write_bytes


def everything_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def make(path: Path, **meta: Any) -> Path:
    with new_artifact(path, "labels", {"answer": 42, **meta}) as writer:
        writer.write_tensors("a/table.safetensors", {"x": torch.arange(6).view(2, 3)})
        writer.write("notes.txt", b"hello")
    return path


# --- full disks and forbidden folders --------------------------------------------------------------------------


def refuse(code: int) -> Any:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    monkeypatch.setattr(os, call, refuse(code))
    with pytest.raises(DiskFullError) as caught:
        make(tmp_path / "thing")
    text = str(caught.value)
    assert text.startswith("The disk is full: ")
    assert "table.safetensors could not be written" in text
    assert "MB free). Nothing half-written was kept and finished work is safe." in text
    assert text.endswith("Free some space, or choose another --store, and run the same command again.")
    assert everything_in(tmp_path) == []


def test_a_disk_that_fills_up_at_the_manifest_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fills_up() -> None:
        with new_artifact(tmp_path / "thing", "labels", {}) as writer:
            writer.write("notes.txt", b"hello")
            monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))

    with pytest.raises(DiskFullError, match=MANIFEST):
        fills_up()
    assert everything_in(tmp_path) == []


def test_a_disk_that_fills_up_before_the_first_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "mkdir", refuse(errno.ENOSPC))
    with pytest.raises(DiskFullError):
        make(tmp_path / "deep" / "thing")


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "x", b"old")
    monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
    with pytest.raises(DiskFullError):
        write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert everything_in(tmp_path) == ["x"]


def test_a_full_disk_keeps_what_can_be_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def fills_up() -> None:
        with new_artifact(tmp_path / "thing", "teacher", {}, resumable=True) as writer:
            folders.append(writer.folder)
            writer.write("one", b"kept")
            monkeypatch.setattr(os, "fsync", refuse(errno.ENOSPC))
            writer.write("two", b"lost")

    with pytest.raises(DiskFullError):
        fills_up()
    assert everything_in(folders[0]) == ["one"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_forbidden_folder_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "mkdir", refuse(code))
    with pytest.raises(
        StoreError, match=r"No permission to write .*thing.*\. Choose a --store folder you may write to"
    ):
        make(tmp_path / "thing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(StoreError, match="No permission to write"):
        make(tmp_path / "locked" / "thing")


def test_other_faults_of_the_system_say_their_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    with pytest.raises(StoreError, match=r"x cannot be written \(Input/output error\)\. Choose another place"):
        write_bytes(tmp_path / "x", b"")
    assert everything_in(tmp_path) == []


# --- reading what is damaged -----------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"There is nothing at .*thing\. Check the path, or make it first\."):
        read_artifact(tmp_path / "thing")


def test_a_folder_without_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is no softlabel artifact: it has no manifest\.json"):
        read_artifact(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is no softlabel artifact"):
        read_artifact(tmp_path / "file")


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer"])
def test_a_corrupt_file_is_named(tmp_path: Path, damage: str) -> None:
    file = make(tmp_path / "thing") / "a" / "table.safetensors"
    data = file.read_bytes()
    file.write_bytes({"flipped": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-3], "longer": data + b"x"}[damage])
    with pytest.raises(StoreError) as caught:
        read_artifact(tmp_path / "thing")
    text = str(caught.value)
    assert text.startswith(f"{file} is corrupt: its SHA-256 is {sha256(file)[:12]}...")
    assert text.endswith(f"Move {tmp_path / 'thing'} away, and give the command that made it again.")
    assert read_artifact(tmp_path / "thing", verify=False).meta == {"answer": 42}


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (make(tmp_path / "thing") / "notes.txt").unlink()
    with pytest.raises(StoreError, match=r"notes\.txt is missing, though the manifest lists it\. Make thing again\."):
        read_artifact(tmp_path / "thing")


def rewrite(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / MANIFEST).read_text())
    (path / MANIFEST).write_text(json.dumps({**manifest, **changes}))


def test_a_newer_schema_asks_for_an_upgrade(tmp_path: Path) -> None:
    rewrite(make(tmp_path / "thing"), schema=SCHEMA + 1, softlabel="9.9")
    with pytest.raises(StoreError) as caught:
        read_artifact(tmp_path / "thing")
    assert str(caught.value) == (
        f"{tmp_path / 'thing'} was written by softlabel 9.9 (schema {SCHEMA + 1}); this version reads up to schema "
        f"{SCHEMA}. Upgrade softlabel."
    )


def test_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        StoreError,
        match=r"Expected an artifact of kind 'teacher' at .*thing, found one of kind 'labels'\. Check which path goes",
    ):
        read_artifact(make(tmp_path / "thing"), "teacher")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("\x00\xff", "cannot be read as JSON"),
        ("[]", "does not hold a JSON object"),
        ("{}", "is no softlabel manifest"),
    ],
)
def test_a_damaged_manifest_is_named(tmp_path: Path, text: str, message: str) -> None:
    (make(tmp_path / "thing") / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=message) as caught:
        read_artifact(tmp_path / "thing")
    assert MANIFEST in str(caught.value)


def test_require_same_refuses_another_artifact(tmp_path: Path) -> None:
    require_same(tmp_path, "teacher", "abc", "abc")
    with pytest.raises(
        StoreError, match=r"already holds another teacher .* Nothing is overwritten: choose another --out"
    ):
        require_same(tmp_path, "teacher", "abc", "abd")
