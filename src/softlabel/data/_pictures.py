"""Decoding of pictures, several at a time, into one uint8 tensor per split."""

import os
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, BinaryIO, TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from softlabel.core import DataError, Progress, Split
from softlabel.data._raw import Pictures, RawSplit

Size = tuple[int, int]
Result = TypeVar("Result")

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".tif", ".tiff"})
# Named, so that Pillow never starts the outside programs that some other formats need.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "PPM", "TIFF")
_GREY = frozenset({"1", "L", "LA", "La"})
_COLOUR = frozenset({"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"})
_BLOCK = 256
# Everything Pillow raises for bytes that are no image, or half of one.
_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def to_tensors(
    splits: Sequence[RawSplit],
    *,
    image_size: Size | None,
    channels: int | None,
    what: str,
    progress: Progress,
) -> list[Split]:
    """The splits as uint8 tensors [N, channels, H, W], all of one shape.

    Args:
        splits: as read from the files.
        image_size: (height, width) to bring every image to; None keeps the size the images have.
        channels: 1 or 3; None is 1 if every image is grey, else 3.
        what: the data set's name, for progress and messages.
        progress: told about every image.

    Raises:
        DataError: an image cannot be decoded, or the images differ in size and `image_size` is None.
    """
    total = sum(len(split) for split in splits)
    progress.start(f"decode {what}", total)
    try:
        size, depth = _common_shape(splits, image_size, channels, what)
        _check_memory(total * depth * size[0] * size[1], size, what)
        return [_to_tensor(split, size, depth, progress) for split in splits]
    finally:
        progress.finish()


def _common_shape(splits: Sequence[RawSplit], size: Size | None, channels: int | None, what: str) -> tuple[Size, int]:
    if size is not None and channels is not None:
        return size, channels
    seen: Counter[tuple[Size, bool]] = Counter()
    for split in splits:
        if isinstance(split, Split):
            seen[_size_of(split), split.images.shape[1] == 1] += len(split)
        else:
            for block in _in_threads(partial(_probe_block, split), _blocks(len(split))):
                seen.update(block)
    sizes: Counter[Size] = Counter()
    for (found, _), count in seen.items():
        sizes[found] += count
    if size is None and len(sizes) > 1:
        raise DataError(_sizes_differ(sizes, what))
    grey = all(is_grey for _, is_grey in seen)
    return size or next(iter(sizes)), channels or (1 if grey else 3)


def _size_of(split: Split) -> Size:
    return split.images.shape[2], split.images.shape[3]


def _sizes_differ(sizes: Counter[Size], what: str) -> str:
    shown = ", ".join(f"{h}x{w} ({count} images)" for (h, w), count in sizes.most_common(4))
    more = f" and {len(sizes) - 4} more" if len(sizes) > 4 else ""
    return (
        f"The images of {what} differ in size (height x width): {shown}{more}. All must have one size. "
        f"Pass --image-size HxW (image_size=(H, W) in Python), for example 64x64, to resize and crop them."
    )


def _check_memory(needed: int, size: Size, what: str) -> None:
    if not hasattr(os, "sysconf"):
        return
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > installed:
        raise DataError(
            f"{what} needs {needed / 1e9:.1f} GB of memory at {size[0]}x{size[1]} pixels; this machine has "
            f"{installed / 1e9:.1f} GB. Pass a smaller --image-size HxW, or use fewer images."
        )


def _to_tensor(split: RawSplit, size: Size, channels: int, progress: Progress) -> Split:
    if isinstance(split, Split) and _size_of(split) == size and split.images.shape[1] == channels:
        progress.advance(len(split))
        return split
    images = torch.empty((len(split), channels, *size), dtype=torch.uint8)
    fill = partial(_decode_block, split, images.numpy(), size, channels)
    for done in _in_threads(fill, _blocks(len(split))):
        progress.advance(done)
    return Split(images, split.targets)


def _blocks(count: int) -> Iterator[range]:
    return (range(start, min(start + _BLOCK, count)) for start in range(0, count, _BLOCK))


def _in_threads(work: Callable[[range], Result], blocks: Iterable[range]) -> Iterator[Result]:
    """Results in order. Pillow lets go of Python's lock while it decodes; blocks keep the hand-over cheap."""
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
    try:
        yield from pool.map(work, blocks)
    finally:
        pool.shutdown(cancel_futures=True)


def _probe_block(pictures: Pictures, block: range) -> list[tuple[Size, bool]]:
    return [_probe(pictures, position) for position in block]


def _probe(pictures: Pictures, position: int) -> tuple[Size, bool]:
    """((height, width), is grey) from the header alone."""
    try:
        with pictures.open(position) as file, Image.open(file, formats=_FORMATS) as picture:
            grey = _is_grey(picture)
            width, height = picture.size
            return ((width, height) if _is_turned(picture) else (height, width)), grey
    except _UNREADABLE as error:
        raise _unreadable(pictures, position, error) from error


def _decode_block(split: RawSplit, out: np.ndarray[Any, Any], size: Size, channels: int, block: range) -> int:
    for position in block:
        out[position] = _decode(split, position, size, channels)
    return len(block)


def _decode(split: RawSplit, position: int, size: Size, channels: int) -> np.ndarray[Any, Any]:
    try:
        with _open(split, position) as picture:
            _is_grey(picture)
            array = np.asarray(_fit(_upright(picture), size, channels))
    except _UNREADABLE as error:
        raise _unreadable(split, position, error) from error
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def _open(split: RawSplit, position: int) -> Image.Image:
    if isinstance(split, Pictures):
        return _open_file(split.open(position))
    array = split.images[position].permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[-1] == 1 else np.ascontiguousarray(array))


def _open_file(file: BinaryIO) -> Image.Image:
    with file:
        picture = Image.open(file, formats=_FORMATS)
        picture.load()
        return picture


def _fit(picture: Image.Image, size: Size, channels: int) -> Image.Image:
    """Convert, then scale the short side and cut the centre; an image that has the size is left alone."""
    if picture.mode in {"P", "PA"}:  # by way of RGBA, or Pillow warns about transparent palettes
        picture = picture.convert("RGBA")
    mode = "L" if channels == 1 else "RGB"
    if picture.mode != mode:
        picture = picture.convert(mode)
    height, width = size
    if picture.size == (width, height):
        return picture
    return ImageOps.fit(picture, (width, height), method=Image.Resampling.BILINEAR)


def _is_grey(picture: Image.Image) -> bool:
    if picture.mode in _GREY:
        return True
    if picture.mode in _COLOUR:
        return False
    raise ValueError(f"pixels of the mode {picture.mode!r}; only 8-bit grey and colour can be used: convert it")


def _is_turned(picture: Image.Image) -> bool:
    """Whether the camera's EXIF note swaps height and width."""
    return "exif" in picture.info and picture.getexif().get(0x0112, 1) in {5, 6, 7, 8}


def _upright(picture: Image.Image) -> Image.Image:
    if "exif" not in picture.info:
        return picture
    return ImageOps.exif_transpose(picture)


def _unreadable(split: RawSplit, position: int, error: Exception) -> DataError:
    where = split.where(position) if isinstance(split, Pictures) else f"image {position}"
    known = not isinstance(error, UnidentifiedImageError)
    reason = (str(error) or type(error).__name__) if known else "no known image format"
    return DataError(f"{where} cannot be read as an image ({reason}). Remove or replace it.")
