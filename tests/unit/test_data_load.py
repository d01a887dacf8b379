"""load_dataset: digits, class folders, options, carving, bad input."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from softlabel.core import ConfigError, DataError, Silent, UnknownNameError, tensor_fingerprint
from softlabel.data import load_dataset
from softlabel.data._folder import folder_source
from softlabel.data._pictures import to_tensors
from softlabel.data._splits import moments, stratified


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SOFTLABEL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("SOFTLABEL_DATA", raising=False)


def picture(path: Path, *, size: tuple[int, int] = (6, 4), mode: str = "RGB", value: int = 0) -> None:
    """An image file of `size` (width, height) with smooth content that depends on `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    grey = (np.add.outer(np.arange(height), np.arange(width)) * 7 + value).astype(np.uint8)
    image = Image.fromarray(grey)
    image.convert(mode).save(path)


def class_folders(root: Path, names: tuple[str, ...] = ("cat", "dog"), count: int = 5, **options: object) -> Path:
    for index, name in enumerate(names):
        for number in range(count):
            picture(root / name / f"{number}.png", value=20 * index + number, **options)  # type: ignore[arg-type]
    return root


class Recorder:
    """A Progress that remembers."""

    def __init__(self) -> None:
        self.total = self.done = self.open = 0

    def start(self, what: str, total: int) -> None:
        self.total, self.open = total, self.open + 1

    def advance(self, steps: int = 1, note: str = "") -> None:
        self.done += steps

    def finish(self, summary: str = "") -> None:
        self.open -= 1


def test_digits_are_whole_and_stratified() -> None:
    data = load_dataset("digits")
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.info.image_shape == (1, 8, 8)
    assert data.info.class_names == tuple("0123456789")
    assert int(data.train.images.max()) == 255
    assert max(data.test.counts(10)) - min(data.test.counts(10)) <= 2


def test_digits_split_is_pinned() -> None:
    assert (
        load_dataset("digits", seed=3).info.digest == load_dataset("digits", seed=4).info.digest == "061ae23f57b69ba7"
    )


def test_mean_and_deviation_agree_with_numpy() -> None:
    images = torch.randint(0, 256, (1500, 3, 4, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = moments(images)
    pixels = images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3)), rtol=1e-12)


def test_a_constant_channel_has_deviation_one() -> None:
    assert moments(torch.full((2, 1, 2, 2), 7, dtype=torch.uint8))[1] == (1.0,)


def test_selection_is_carved_from_train_and_leaves_info_alone() -> None:
    whole = load_dataset("digits")
    data = load_dataset("digits", selection=0.1, seed=1)
    assert data.selection is not None
    assert replace(data.info, options={}) == replace(whole.info, options={})
    assert len(data.train) + len(data.selection) == len(whole.train)
    together = torch.cat([data.train.images, data.selection.images]).flatten(1).unique(dim=0)
    assert len(together) == len(whole.train.images.flatten(1).unique(dim=0))
    for carved, all_of_it in zip(data.selection.counts(10), whole.train.counts(10), strict=True):
        assert carved == int(all_of_it * 0.1 + 0.5)
    assert tensor_fingerprint(data.test.images) == tensor_fingerprint(whole.test.images)


def test_selection_depends_on_the_seed_alone() -> None:
    first, again, other = (load_dataset("digits", selection=0.2, seed=seed).selection for seed in (1, 1, 2))
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_stratified_takes_at_least_one_of_each_class() -> None:
    targets = torch.tensor([0, 0, 1, 1, 1, 0, 0, 0, 0, 0])
    kept, taken = stratified(targets, 0.05, ("a", "b"), seed=0, purpose="selection")
    assert sorted(targets[taken].tolist()) == [0, 1]
    assert sorted([*kept.tolist(), *taken.tolist()]) == list(range(10))


def test_class_folders_with_a_test_split(tmp_path: Path) -> None:
    class_folders(tmp_path / "train")
    class_folders(tmp_path / "val", count=2)
    (tmp_path / "train" / "cat" / ".DS_Store").write_bytes(b"clutter")
    (tmp_path / "train" / "cat" / "Thumbs.db").write_bytes(b"clutter")
    (tmp_path / "train" / "README.md").write_text("about")
    data = load_dataset(f"imagefolder:{tmp_path}")
    assert data.info.class_names == ("cat", "dog")
    assert data.info.image_shape == (3, 4, 6)
    assert data.train.counts(2) == [5, 5]
    assert data.test.counts(2) == [2, 2]
    assert data.train.images[0, :, 1, 2].tolist() == [21, 21, 21]


def test_class_folders_without_a_test_split_get_a_fixed_one(tmp_path: Path) -> None:
    spec = f"imagefolder:{class_folders(tmp_path / 'flowers')}"
    data = load_dataset(spec, test_fraction=0.4)
    assert data.train.counts(2) == [3, 3]
    assert data.test.counts(2) == [2, 2]
    assert "40% of each class set aside" in data.info.origin
    assert load_dataset(spec, test_fraction=0.4, seed=9).info.digest == data.info.digest


def test_origin_holds_no_path(tmp_path: Path) -> None:
    origin = load_dataset(f"imagefolder:{class_folders(tmp_path)}").info.origin
    assert str(tmp_path) not in origin
    assert "/" not in origin


def test_numbered_folders_are_sorted_by_value(tmp_path: Path) -> None:
    names = tuple(str(number) for number in range(12))
    data = load_dataset(f"imagefolder:{class_folders(tmp_path, names, count=2)}", test_fraction=0.5)
    assert data.info.class_names == names
    picture_of_10 = data.train.images[data.train.targets == 10][0, 0, 0, 0]
    assert int(picture_of_10) in (200, 201)


def test_grey_images_give_one_channel_and_mixed_ones_three(tmp_path: Path) -> None:
    class_folders(tmp_path, mode="L")
    assert load_dataset(f"imagefolder:{tmp_path}").info.channels == 1
    assert load_dataset(f"imagefolder:{tmp_path}", channels=3).info.channels == 3
    picture(tmp_path / "cat" / "colour.png", mode="RGB")
    assert load_dataset(f"imagefolder:{tmp_path}").info.channels == 3


@pytest.mark.parametrize("mode", ["1", "LA", "P", "RGBA", "CMYK"])
def test_other_eight_bit_modes_are_converted(tmp_path: Path, mode: str) -> None:
    suffix = "jpg" if mode == "CMYK" else "png"
    for index, name in enumerate(("a", "b")):
        for number in range(2):
            picture(tmp_path / name / f"{number}.{suffix}", mode=mode, value=index)
    channels = 1 if mode in {"1", "LA"} else 3
    assert load_dataset(f"imagefolder:{tmp_path}", test_fraction=0.5).info.image_shape == (channels, 4, 6)


def test_transparent_palettes_load_without_a_warning(tmp_path: Path) -> None:
    class_folders(tmp_path)
    image = Image.new("P", (6, 4))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "cat" / "palette.png", transparency=bytes([0, 128]))
    assert len(load_dataset(f"imagefolder:{tmp_path}", test_fraction=0.5).train) == 5


def test_sixteen_bit_images_are_refused(tmp_path: Path) -> None:
    class_folders(tmp_path)
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(tmp_path / "dog" / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png.*'I;16'.*8-bit"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_camera_rotation_is_undone(tmp_path: Path) -> None:
    class_folders(tmp_path)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its side
    Image.new("RGB", (4, 6)).save(tmp_path / "cat" / "phone.jpg", exif=exif)
    assert load_dataset(f"imagefolder:{tmp_path}").info.image_shape == (3, 4, 6)


def test_differing_sizes_are_named(tmp_path: Path) -> None:
    class_folders(tmp_path)
    picture(tmp_path / "cat" / "large.png", size=(9, 8))
    with pytest.raises(DataError, match=r"4x6 \(10 images\), 8x9 \(1 images\).*--image-size HxW"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_image_size_brings_all_to_one_size(tmp_path: Path) -> None:
    class_folders(tmp_path)
    picture(tmp_path / "cat" / "large.png", size=(90, 8))
    data = load_dataset(f"imagefolder:{tmp_path}", image_size=(5, 3))
    assert data.info.image_shape == (3, 5, 3)


def test_image_size_scales_the_short_side_and_cuts_the_centre(tmp_path: Path) -> None:
    left_to_right = np.repeat(np.array([[10, 10, 10, 10, 90, 90, 90, 90, 200, 200, 200, 200]], np.uint8), 4, 0)
    for name in ("a", "b"):
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(left_to_right).save(tmp_path / name / f"{number}.png")
    data = load_dataset(f"imagefolder:{tmp_path}", image_size=(4, 4), test_fraction=0.5)
    assert data.train.images.unique().tolist() == [90]


def test_image_size_also_fits_arrays() -> None:
    data = load_dataset("digits", image_size=(16, 12), channels=3)
    assert data.info.image_shape == (3, 16, 12)
    assert torch.equal(data.train.images[:, 0], data.train.images[:, 2])


def test_progress_counts_every_image_and_is_closed_on_errors(tmp_path: Path) -> None:
    class_folders(tmp_path, count=3)
    recorder = Recorder()
    load_dataset(f"imagefolder:{tmp_path}", progress=recorder)
    assert (recorder.total, recorder.done, recorder.open) == (6, 6, 0)
    (tmp_path / "cat" / "0.png").write_bytes(b"no image")
    recorder = Recorder()
    with pytest.raises(DataError):
        load_dataset(f"imagefolder:{tmp_path}", progress=recorder)
    assert recorder.open == 0


def test_unknown_name_lists_names_and_forms() -> None:
    with pytest.raises(
        UnknownNameError, match=r"'cifar-10'.*Did you mean 'cifar10'.*digits.*imagefolder:PATH.*hf:NAME"
    ):
        load_dataset("cifar-10")


def test_a_bare_path_is_answered_with_the_form_to_use(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=f"write imagefolder:{tmp_path}"):
        load_dataset(str(tmp_path))


@pytest.mark.parametrize("form", ["imagefolder", "parquet"])
def test_missing_path(form: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing at .*/nowhere"):
        load_dataset(f"{form}:{tmp_path / 'nowhere'}")
    with pytest.raises(ConfigError, match="lacks what follows the colon"):
        load_dataset(f"{form}:")


def test_imagefolder_of_a_file(tmp_path: Path) -> None:
    picture(tmp_path / "one.png")
    with pytest.raises(DataError, match=r"one\.png is no folder.*one sub-folder per class"):
        load_dataset(f"imagefolder:{tmp_path / 'one.png'}")


def test_truncated_image_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path)
    broken = tmp_path / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:50])
    with pytest.raises(DataError, match=r"dog/3\.png cannot be read as an image \(.+\)\. Remove or replace it"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_text_with_an_image_suffix_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "dog" / "notes.png").write_text("remember the milk")
    with pytest.raises(DataError, match=r"notes\.png cannot be read as an image \(no known image format\)"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_postscript_is_not_run(tmp_path: Path) -> None:
    class_folders(tmp_path)
    (tmp_path / "dog" / "sly.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\n")
    with pytest.raises(DataError, match=r"sly\.png cannot be read"):
        load_dataset(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("name", ["notes.txt", "labels.json", "sub/a.png"])
def test_stray_files_in_a_class_folder(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path)
    stray = tmp_path / "cat" / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("x")
    with pytest.raises(DataError, match=rf"cat/{name.split('/')[0]} is no image file.*Move it elsewhere"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_images_beside_class_folders(tmp_path: Path) -> None:
    class_folders(tmp_path)
    picture(tmp_path / "lost.png")
    with pytest.raises(DataError, match=r"images outside class folders, for example lost\.png"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_no_class_folders_one_class_and_an_empty_class(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no class folders"):
        load_dataset(f"imagefolder:{tmp_path}")
    class_folders(tmp_path, ("cat",))
    with pytest.raises(DataError, match=r"only one class folder \(cat\)"):
        load_dataset(f"imagefolder:{tmp_path}")
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match=r"class folder .*/dog is empty"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_train_and_test_with_different_classes(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", ("cat", "dog", "eel"))
    class_folders(tmp_path / "test", ("cat", "dog", "fox"))
    with pytest.raises(DataError, match=r"only in train: eel; only in test: fox"):
        load_dataset(f"imagefolder:{tmp_path}")


@pytest.mark.parametrize("size", [(0, 8), (8,), (8, -1), (8.0, 8), "8x8", (True, 8), (8, 5000), [8, 8]])
def test_nonsense_image_sizes(size: object) -> None:
    with pytest.raises(ConfigError, match=r"image_size must be \(height, width\)"):
        load_dataset("digits", image_size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("selection", [-0.1, 0.51, 1.0, float("nan")])
def test_nonsense_selection(selection: float) -> None:
    with pytest.raises(ConfigError, match=r"from 0 to 0\.5"):
        load_dataset("digits", selection=selection)


def test_nonsense_channels_and_test_fraction() -> None:
    with pytest.raises(ConfigError, match=r"channels must be 1 \(grey\) or 3"):
        load_dataset("digits", channels=4)
    with pytest.raises(ConfigError, match="test_fraction must lie between 0 and 1"):
        load_dataset("digits", test_fraction=0.0)


def test_a_class_too_small_to_carve_from(tmp_path: Path) -> None:
    class_folders(tmp_path, count=1)
    with pytest.raises(DataError, match=r"class 'cat' has 1 images, too few to carve 20% .* test split"):
        load_dataset(f"imagefolder:{tmp_path}")
    class_folders(tmp_path, count=2)
    with pytest.raises(DataError, match=r"class 'cat' has 1 images, too few to carve 10% .* selection split"):
        load_dataset(f"imagefolder:{tmp_path}", selection=0.1)


def test_data_larger_than_memory_is_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path)
    monkeypatch.setattr("os.sysconf", lambda name: 10)
    with pytest.raises(DataError, match="Pass a smaller --image-size"):
        load_dataset(f"imagefolder:{tmp_path}")


def test_decoding_does_not_depend_on_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path, count=7)
    monkeypatch.setattr("softlabel.data._pictures._BLOCK", 2)
    part = folder_source(tmp_path).read().train
    found = []
    for cores in (1, 4):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        found += to_tensors([part], image_size=None, channels=None, what="x", progress=Silent())
    assert torch.equal(found[0].images, found[1].images)


def test_the_first_classes_only() -> None:
    whole, part = load_dataset("digits"), load_dataset("digits", classes=3, selection=0.2)
    assert part.info.class_names == whole.info.class_names[:3]
    assert part.info.options == {"spec": "digits", "selection": 0.2, "classes": 3}
    assert part.selection is not None
    kept = torch.cat([part.train.targets, part.selection.targets])
    assert kept.bincount().tolist() == whole.train.counts(10)[:3]
    assert load_dataset("digits", classes=10).train.digest == whole.train.digest
    with pytest.raises(ConfigError, match=r"digits has 10 classes. Ask for fewer than 11\."):
        load_dataset("digits", classes=11)
    with pytest.raises(ConfigError, match="classes must be 2 or more"):
        load_dataset("digits", classes=1)
