"""One image file to pixels: the only place where bytes from outside meet a decoder."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

MAX_PIXELS = (
    89_478_485  # PIL's own limit (a quarter gigabyte of RGB): a small file can claim to hold any number
)
# Only these decoders may run, whatever the file's name says (EPS would start Ghostscript, for one).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
# Compared in lower case.
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".webp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
)
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
_GREY = ("1", "L", "LA", "La", "I", *_SIXTEEN_BIT)


class BadImage(Exception):
    """An image that cannot be used; the message is the reason in a few words."""


class Pictures(Protocol):
    """Images that are decoded when asked for. Must survive pickling: worker processes hold copies."""

    @property
    def threads(self) -> bool:
        """Whether several threads may decode at once."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int) -> Image.Image:
        """Image `index`, mode "L" or "RGB". Raises BadImage."""
        ...

    def check(self, index: int) -> None:
        """Raise BadImage if image `index` is damaged, as far as that shows without decoding all of it."""
        ...

    def name(self, index: int) -> str:
        """What a report calls image `index`."""
        ...


def decode(source: Path | bytes) -> Image.Image:
    """The first frame of an image file or its bytes, upright (EXIF), as mode "L" or "RGB".

    16-bit grey is scaled to 8 bits, CMYK and palettes are converted, transparency is dropped.

    Raises:
        BadImage: empty, truncated, not an image, of a kind that has no 8-bit form, or larger than MAX_PIXELS.
    """
    try:
        with _open(source) as picture:
            return plain(_upright(picture), picture.format)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - a damaged file makes decoders raise nearly anything
        raise BadImage(_reason(error)) from None


def check_file(path: Path) -> None:
    """Raise BadImage if the header of `path` cannot be read or the file ends too early.

    Reads a few kilobytes. A JPEG or PNG without its end marker is decoded to be sure: some writers
    append to a whole file.
    """
    try:
        with _open(path) as picture:
            marker = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}.get(picture.format or "")
        if marker is not None and marker not in _tail(path):
            decode(path)
    except (BadImage, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - as above
        raise BadImage(_reason(error)) from None


def fit(picture: Image.Image, size: int, crop: float, channels: int) -> Tensor:
    """`picture` as uint8 [channels, size, size]: its central square, `crop` of the shorter side, resized.

    Bilinear with antialiasing, the aspect ratio kept. The same as resizing the shorter side to size / crop
    and cropping the centre, but a very long picture is never blown up on the way.
    """
    picture = picture.convert("L" if channels == 1 else "RGB")
    width, height = picture.size
    side = min(width, height) * size / math.floor(size / crop)
    left, top = (width - side) / 2, (height - side) / 2
    if (width, height, side) != (size, size, size):
        box = (left, top, left + side, top + side)
        picture = picture.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return to_tensor(picture)


def to_tensor(picture: Image.Image) -> Tensor:
    """An "L" or "RGB" picture as uint8 [C, H, W]."""
    array = np.array(picture, dtype=np.uint8)
    return torch.from_numpy(
        array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))
    )


def to_picture(image: Tensor) -> Image.Image:
    """A uint8 tensor [1 or 3, H, W] as a picture."""
    array = image.numpy()
    return Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0)))


def _open(source: Path | bytes) -> Image.Image:
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size == 0:
        raise BadImage("empty")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    picture = Image.open(file, formats=FORMATS)
    width, height = picture.size
    if width * height > MAX_PIXELS:
        picture.close()
        raise BadImage(f"{width}x{height} pixels are too many")
    if width < 1 or height < 1:
        picture.close()
        raise BadImage("no pixels")
    return picture


def _upright(picture: Image.Image) -> Image.Image:
    picture.load()  # once and first: PIL lets a second load of a damaged file pass, with black pixels
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:  # noqa: BLE001 - damaged EXIF does not spoil the pixels
        return picture.copy()


def plain(picture: Image.Image, kind: str | None) -> Image.Image:
    """`picture`, from a file of format `kind`, as mode "L" or "RGB" (see `decode`). Raises BadImage."""
    if picture.mode in ("L", "RGB"):
        return picture
    # PIL's own conversion clips 16-bit values at 255, which turns most pictures white.
    if picture.mode in _SIXTEEN_BIT or (picture.mode == "I" and kind == "PNG"):
        return Image.fromarray((np.asarray(picture, dtype=np.uint32) // 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise BadImage(f"32-bit pixels (mode {picture.mode})")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("L" if picture.mode in _GREY else "RGB")


def _tail(path: Path, count: int = 64) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - count))
        return file.read()


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "too many pixels"
    text = (str(error).splitlines() or [""])[0]
    if "truncated" in text.lower():
        return "truncated"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {text[:80]}".rstrip(": ").lower()
