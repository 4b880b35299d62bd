"""PNG and JPEG files that imagecodecs decodes are what Pillow makes of them; what it would make up is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_medical.data.images import read_image
from anomalib_medical.data.io import ImageReadError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def by_pillow(path: Path, mode: str) -> torch.Tensor:
    with Image.open(path) as image:
        pixels = np.asarray(image.convert(mode).convert("RGB"))
    return torch.from_numpy(pixels.astype(np.float32) / np.float32(255)).permute(2, 0, 1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "options",
    [{"quality": 60}, {"progressive": True}, {"subsampling": 2}, {"optimize": True}, {"restart_marker_rows": 1}],
    ids=lambda options: next(iter(options)),
)
def test_jpeg(tmp_path: Path, mode: str, options: dict) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.jpg", **options)
    assert torch.equal(read_image(tmp_path / "a.jpg"), by_pillow(tmp_path / "a.jpg", mode))


def test_jpeg_stored_as_rgb(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", keep_rgb=True, quality=100)
    assert torch.equal(read_image(tmp_path / "a.jpg"), by_pillow(tmp_path / "a.jpg", "RGB"))
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg").permute(1, 2, 0), PIXELS / 255, atol=0.02)


def test_jpeg_for_printing(tmp_path: Path) -> None:
    # With black of its own: without, the three other inks look like RGB.
    inks = np.concatenate([PIXELS, PIXELS[::-1, :, :1]], axis=-1)
    Image.fromarray(inks, mode="CMYK").save(tmp_path / "a.jpg")
    assert torch.equal(read_image(tmp_path / "a.jpg"), by_pillow(tmp_path / "a.jpg", "RGB"))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_png(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), by_pillow(tmp_path / "a.png", "L" if mode == "LA" else "RGB"))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
def test_png_of_few_bits(tmp_path: Path, bits: int, palette: bool, transparent: bool) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, (5, 8))
    colours = np.random.default_rng(0).integers(0, 256, (2**bits, 3), dtype=np.uint8)
    header = struct.pack(">IIBBBBB", 8, 5, bits, 3 if palette else 0, 0, 0, 0)
    rows = b"".join(
        b"\0" + int("".join(f"{value:0{bits}b}" for value in row), 2).to_bytes(bits, "big") for row in values
    )
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    content += chunk(b"PLTE", colours.tobytes()) if palette else b""
    content += chunk(b"tRNS", b"\0" if palette else b"\0\1") if transparent else b""
    (tmp_path / "a.png").write_bytes(content + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    expected = colours[values] / 255 if palette else np.stack([values / (2**bits - 1)] * 3, axis=-1)
    np.testing.assert_allclose(read_image(tmp_path / "a.png").permute(1, 2, 0), expected, atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_channels_last_is_the_same_picture(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PIXELS).convert(mode).save(path)
    image = read_image(path, channels_last=True)
    assert torch.equal(image, read_image(path))
    assert image.permute(1, 2, 0).is_contiguous()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_png_with_a_transparent_colour_keeps_it(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(PIXELS).convert(mode)
    image.save(tmp_path / "a.png", transparency=image.getpixel((0, 0)))
    assert torch.equal(read_image(tmp_path / "a.png"), by_pillow(tmp_path / "a.png", mode))


@pytest.mark.parametrize("lost", [1, 2, 3, 50, 500])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_not_filled_up(tmp_path: Path, lost: int, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    # A thumbnail in the header has an end of its own.
    thumbnail = io.BytesIO()
    Image.fromarray(PIXELS[::4, ::4]).save(thumbnail, "JPEG")
    Image.fromarray(PIXELS).save(path, progressive=progressive, exif=b"Exif\0\0" + thumbnail.getvalue())
    assert torch.equal(read_image(path), by_pillow(path, "RGB"))
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(ImageReadError, match="damaged or truncated"):
        read_image(path)


def test_bytes_behind_the_end_of_a_jpeg_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path)
    before = read_image(path)
    path.write_bytes(path.read_bytes() + b"vendor's notes")
    assert torch.equal(read_image(path), before)


def test_a_jpeg_that_claims_to_be_enormous_is_refused_before_it_takes_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path)
    content = bytearray(path.read_bytes())
    frame = content.index(b"\xff\xc0") + 5
    content[frame : frame + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=r"too large to be meant"):
        read_image(path)
