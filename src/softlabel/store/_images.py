"""Single images as bytes: PNG and lossless WebP keep every pixel; JPEG does not."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from softlabel.core import ConfigError, DataError

LOSSLESS = ("png", "webp")

_BOMBS = (Image.DecompressionBombWarning, Image.DecompressionBombError)


def encode_image(image: torch.Tensor, storage: str) -> bytes:
    """A uint8 image [C, H, W] (C 1 or 3) as a file: `png`, `webp` (lossless) or `jpeg-Q` with quality Q in 1..100."""
    array = image.permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else np.ascontiguousarray(array))
    buffer = io.BytesIO()
    if storage == "png":
        picture.save(buffer, "PNG", optimize=True)
    elif storage == "webp":
        picture.save(buffer, "WEBP", lossless=True, quality=100)
    else:
        picture.save(buffer, "JPEG", quality=jpeg_quality(storage))
    return buffer.getvalue()


def decode_image(data: bytes, channels: int, where: str) -> torch.Tensor:
    """The uint8 tensor [channels, H, W] of an encoded image, converted to grey or RGB.

    Raises:
        DataError: naming `where` when the bytes are no image, or a truncated one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                converted = picture.convert("L" if channels == 1 else "RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, *_BOMBS) as error:
        raise DataError(f"{where} cannot be read as an image ({error}). Remove or replace it.") from error
    array = np.array(converted)
    return torch.from_numpy(array[None] if channels == 1 else array.transpose(2, 0, 1).copy())


def image_file_bytes(images: torch.Tensor) -> dict[str, int]:
    """What uint8 images [N, C, H, W] weigh in each lossless form: `png`, `webp` (colour alone), and `raw` pixels.

    `raw` is one tensor, as safetensors keeps it, without the file's header.
    """
    forms = LOSSLESS if images.shape[1] == 3 else ("png",)
    found = {form: sum(len(encode_image(image, form)) for image in images) for form in forms}
    return {**found, "raw": images.numel()}


def check_storage(storage: str) -> None:
    """Check the name of an image storage.

    Raises:
        ConfigError: it is neither `png`, `webp` nor `jpeg-Q`.
    """
    if storage not in LOSSLESS:
        jpeg_quality(storage)


def jpeg_quality(storage: str) -> int:
    """The quality in `jpeg-Q` (plain `jpeg` is 75, Pillow's default, as RDED's code uses)."""
    head, _, tail = storage.partition("-")
    quality = int(tail) if tail.isdecimal() else 75 if not tail else 0
    if head != "jpeg" or not 1 <= quality <= 100:
        raise ConfigError(f"There is no image storage {storage!r}. Choose png, webp, or jpeg-Q with Q from 1 to 100.")
    return quality


def suffix(storage: str) -> str:
    """The file name's ending for a storage."""
    return "jpg" if storage.startswith("jpeg") else storage
