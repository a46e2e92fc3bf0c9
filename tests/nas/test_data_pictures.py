"""Damaged, odd and hostile image files: refused with a reason, or converted properly."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nas.data.pictures import BadImage, check_file, decode, fit, to_picture, to_tensor


def noise(height: int = 24, width: int = 32, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def saved(picture: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes that claims to hold 20000 x 20000 pixels."""
    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    return b"\x89PNG\r\n\x1a\n" + chunks


BAD = {
    "truncated.jpg": (saved(noise(), "JPEG")[:-300], "truncated"),
    "scrambled.png": (saved(noise(), "PNG")[:41] + b"\xff" * 20 + saved(noise(), "PNG")[61:], "broken"),
    "truncated.png": (saved(noise(), "PNG")[:-300], ""),
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"these are not the pixels you are looking for\n" * 20, "not an image"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "not an image"),
    "bomb.png": (bomb(), "pixels"),
    "float.tiff": (saved(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), "32-bit"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    content, words = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadImage, match=words):
        decode(tmp_path / name)
    if name not in ("float.tiff", "scrambled.png"):  # header and end are in order
        with pytest.raises(BadImage, match=words):
            check_file(tmp_path / name)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2000), st.integers(0, 255), st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
)
def test_any_flipped_byte_gives_a_picture_or_a_reason(position: int, value: int, kind: str) -> None:
    content = bytearray(saved(noise(), kind))
    content[position % len(content)] = value
    try:
        outcome = decode(bytes(content)).mode
    except BadImage as bad:
        outcome = f"bad: {bad}"
    assert outcome in ("L", "RGB") or outcome.removeprefix("bad: ").isprintable()


def test_a_file_with_something_after_its_end_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(noise(), "JPEG") + b"\0" * 500)
    check_file(path)
    assert decode(path).size == (32, 24)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    picture = decode(saved(Image.fromarray(values), "PNG"))
    assert picture.mode == "L"
    assert np.array_equal(np.asarray(picture), values // 257)


def test_cmyk_palettes_and_transparency() -> None:
    red = Image.new("RGB", (16, 16), (250, 10, 10))
    cmyk = np.asarray(decode(saved(red.convert("CMYK"), "JPEG"))).astype(int)
    assert np.abs(cmyk - np.array([250, 10, 10])).max() < 12
    for picture, kind in ((red.quantize(4), "PNG"), (red.convert("RGBA"), "PNG"), (red.quantize(4), "GIF")):
        assert np.abs(np.asarray(decode(saved(picture, kind))).astype(int) - [250, 10, 10]).max() < 12
    assert decode(saved(red.convert("LA"), "PNG")).mode == "L"


def test_the_camera_held_sideways() -> None:
    picture = noise(24, 32)
    exif = picture.getexif()
    exif[0x0112] = 6  # turn by 90 degrees to view
    assert decode(saved(picture, "JPEG", exif=exif)).size == (24, 32)


def test_fit_agrees_with_resize_and_centre_crop() -> None:
    transforms = pytest.importorskip("timm.data").create_transform(
        56, is_training=False, crop_pct=0.875, normalize=False
    )
    smooth = noise(6, 9).resize((300, 200), Image.Resampling.BICUBIC)
    ours, timms = fit(smooth, 56, 0.875, 3), transforms(smooth)
    difference = (ours.int() - timms.int()).abs()
    # Sizes chosen so that timm has no side or margin to round: what is left is the rounding of values.
    assert difference.max() <= 2


def test_fit_of_a_very_long_picture_stays_small() -> None:
    assert fit(Image.new("RGB", (30000, 2), (9, 9, 9)), 32, 0.875, 3).unique().tolist() == [9]


@pytest.mark.parametrize("channels", [1, 3])
def test_picture_and_tensor_round_trip(channels: int) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (channels, 5, 7), np.uint8))
    assert torch.equal(to_tensor(to_picture(image)), image)
    square = image[:, :5, :5]
    assert torch.equal(fit(to_picture(square), 5, 1.0, channels), square)
