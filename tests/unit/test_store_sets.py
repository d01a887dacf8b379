"""Distilled sets and single images on disk."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from softlabel.core import ConfigError, DataError, Dataset, DistilledSet, StoreError
from softlabel.store import (
    check_storage,
    decode_image,
    encode_image,
    image_file_bytes,
    load_distilled,
    read_artifact,
    save_distilled,
)


def distilled(data: Dataset, ipc: int = 2) -> DistilledSet:
    """The first images of every class."""
    index = torch.cat([(data.train.targets == target).nonzero()[:ipc, 0] for target in range(data.info.classes)])
    part = data.train.subset(index)
    return DistilledSet(
        images=part.images,
        targets=part.targets,
        info=data.info,
        method="rded:factor=2",
        ipc=ipc,
        seed=7,
        factor=2,
        provenance={"source_index": index.tolist(), "nested": {"a": None}},
    )


def assert_same_but_bytes(one: DistilledSet, two: DistilledSet) -> None:
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.targets, two.targets)
    for name in ("info", "method", "ipc", "seed", "factor", "provenance", "digest"):
        assert getattr(one, name) == getattr(two, name), name


@pytest.mark.parametrize(("storage", "data"), [("png", "tiny_data"), ("png", "grey_data"), ("webp", "tiny_data")])
def test_lossless_sets_read_back(storage: str, data: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made = distilled(request.getfixturevalue(data))
    stored = save_distilled(made, tmp_path / "set", storage)
    assert_same_but_bytes(stored, made)
    assert_same_but_bytes(load_distilled(tmp_path / "set"), made)
    assert read_artifact(tmp_path / "set", "distilled").meta["storage"] == storage


@pytest.mark.parametrize("data", ["tiny_data", "grey_data"])
def test_jpeg_loses_and_gives_back_what_is_stored(data: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    made = distilled(request.getfixturevalue(data))
    stored = save_distilled(made, tmp_path / "set", "jpeg-75")
    loaded = load_distilled(tmp_path / "set")
    assert torch.equal(stored.images, loaded.images)
    assert stored.digest == loaded.digest
    assert not torch.equal(stored.images, made.images)
    assert (stored.images.float() - made.images.float()).abs().mean() < 40
    assert torch.equal(stored.targets, made.targets)


def test_quality_matters_and_75_is_the_default(tiny_data: Dataset, tmp_path: Path) -> None:
    made = distilled(tiny_data)
    sizes = {q: save_distilled(made, tmp_path / q, q).image_bytes for q in ("jpeg", "jpeg-75", "jpeg-5", "jpeg-100")}
    assert sizes["jpeg-5"] < sizes["jpeg-75"] == sizes["jpeg"] < sizes["jpeg-100"]


@pytest.mark.parametrize(("data", "forms"), [("tiny_data", ["png", "webp"]), ("grey_data", ["png"])])
def test_bytes_of_images_in_other_forms_are_those_of_sets_stored_so(
    data: str, forms: list[str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made = distilled(request.getfixturevalue(data))
    found = image_file_bytes(made.images)
    assert found.pop("raw") == made.images.numel()
    assert list(found) == forms
    assert all(save_distilled(made, tmp_path / form, form).image_bytes == found[form] for form in forms)


@pytest.mark.parametrize("storage", ["png", "webp", "jpeg-75"])
def test_images_lie_in_class_folders_and_their_bytes_are_counted(
    tiny_data: Dataset, tmp_path: Path, storage: str
) -> None:
    stored = save_distilled(distilled(tiny_data), tmp_path / "set", storage)
    files = sorted((tmp_path / "set" / "images").rglob("*.*"))
    ending = "jpg" if storage.startswith("jpeg") else storage
    assert [file.relative_to(tmp_path / "set").as_posix() for file in files] == [
        f"images/{target:05d}/{position:06d}.{ending}" for position, target in enumerate([0, 0, 1, 1, 2, 2, 3, 3])
    ]
    assert stored.image_bytes == sum(file.stat().st_size for file in files) > 0
    with Image.open(files[0]) as picture:
        assert picture.size == (16, 16)
        assert picture.format == {"png": "PNG", "webp": "WEBP", "jpg": "JPEG"}[ending]


def test_the_order_of_the_set_is_kept_even_when_classes_are_not_sorted(tiny_data: Dataset, tmp_path: Path) -> None:
    made = distilled(tiny_data)
    mixed = replace(made, images=made.images.flip(0), targets=made.targets.flip(0))
    assert_same_but_bytes(save_distilled(mixed, tmp_path / "set"), mixed)


def test_nothing_in_a_set_is_pickled(tiny_data: Dataset, tmp_path: Path) -> None:
    save_distilled(distilled(tiny_data), tmp_path / "set")
    endings = {file.suffix for file in (tmp_path / "set").rglob("*") if file.is_file()}
    assert endings == {".png", ".json"}


@pytest.mark.parametrize("storage", ["gif", "jpeg-0", "jpeg-101", "jpeg-x", "jpg", "jpeg75", "png-3", ""])
def test_an_unknown_storage_lists_the_choices(tiny_data: Dataset, tmp_path: Path, storage: str) -> None:
    with pytest.raises(ConfigError) as caught:
        save_distilled(distilled(tiny_data), tmp_path / "set", storage)
    assert str(caught.value) == (
        f"There is no image storage {storage!r}. Choose png, webp, or jpeg-Q with Q from 1 to 100."
    )
    with pytest.raises(ConfigError, match="There is no image storage"):
        check_storage(storage)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("storage", ["png", "webp", "jpeg", "jpeg-1", "jpeg-100"])
def test_known_storages_pass(storage: str) -> None:
    check_storage(storage)


def test_what_image_files_cannot_hold_is_refused(tiny_data: Dataset, grey_data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="WebP has no grey images: store this set with --storage png"):
        save_distilled(distilled(grey_data), tmp_path / "set", "webp")
    made = distilled(tiny_data)
    two = replace(made, images=made.images[:, :2], info=replace(made.info, channels=2))
    with pytest.raises(ConfigError, match=r"Image files need 1 or 3 channels\. This set has 2\."):
        save_distilled(two, tmp_path / "set")
    assert not list(tmp_path.iterdir())


def test_an_empty_set_is_refused_on_reading(tiny_data: Dataset, tmp_path: Path) -> None:
    made = distilled(tiny_data)
    with pytest.raises(StoreError, match=r"holds no images\. Make the set again\."):
        save_distilled(replace(made, images=made.images[:0], targets=made.targets[:0]), tmp_path / "set")


def test_a_changed_picture_is_found(tiny_data: Dataset, tmp_path: Path) -> None:
    save_distilled(distilled(tiny_data), tmp_path / "set")
    file = tmp_path / "set" / "images" / "00002" / "000004.png"
    Image.new("RGB", (16, 16)).save(file)
    with pytest.raises(StoreError, match=r"images/00002/000004\.png is corrupt"):
        load_distilled(tmp_path / "set")


def test_a_set_with_foreign_json_is_refused(tiny_data: Dataset, tmp_path: Path) -> None:
    save_distilled(distilled(tiny_data), tmp_path / "set")
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    manifest["meta"]["entries"][0]["target"] = 99
    (tmp_path / "set" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match=r"Targets must lie in 0\.\.3"):
        load_distilled(tmp_path / "set")


# --- single images ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 3)])
@pytest.mark.parametrize(("storage", "channels"), [("png", 1), ("png", 3), ("webp", 3)])
def test_lossless_images_of_any_size_read_back(storage: str, channels: int, size: tuple[int, int]) -> None:
    image = torch.randint(256, (channels, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(decode_image(encode_image(image, storage), channels, "here"), image)


def test_layout_does_not_matter() -> None:
    image = torch.arange(3 * 4 * 6, dtype=torch.uint8).view(3, 4, 6)
    turned = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert encode_image(turned, "png") == encode_image(image, "png")


def as_png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_images_are_converted_to_what_is_asked() -> None:
    red = decode_image(as_png(Image.new("RGBA", (2, 3), (255, 0, 0, 255))), 3, "here")
    assert red.shape == (3, 3, 2)
    assert red.amax(dim=(1, 2)).tolist() == [255, 0, 0]
    assert decode_image(as_png(Image.new("L", (2, 3), 9)), 3, "here").unique().tolist() == [9]
    assert decode_image(as_png(Image.new("RGB", (2, 3), (9, 9, 9))), 1, "here").shape == (1, 3, 2)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"no image at all", as_png(Image.new("RGB", (32, 32)))[:60]])
def test_what_is_no_image_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"over/there\.png cannot be read as an image .* Remove or replace it\."):
        decode_image(data, 3, "over/there.png")


@pytest.mark.parametrize("limit", [60, 20])
def test_a_decompression_bomb_is_named(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """100 pixels are more than the first limit, and more than twice the second: Pillow warns, then raises."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match=r"bomb\.png cannot be read as an image .*exceeds limit"):
        decode_image(as_png(Image.new("RGB", (10, 10))), 3, "bomb.png")


def test_weights_are_kept_with_their_images(tiny_data: Dataset, tmp_path: Path) -> None:
    made = distilled(tiny_data)
    weighed = replace(made, weights=torch.linspace(0.5, 1.5, len(made)))
    loaded = save_distilled(weighed, tmp_path / "set")
    assert loaded.weights is not None
    assert torch.equal(loaded.weights, weighed.weights)
    assert loaded.digest == weighed.digest
    assert save_distilled(made, tmp_path / "plain").weights is None
