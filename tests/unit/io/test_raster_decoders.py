"""PNG and JPEG files that imagecodecs decodes are what Pillow makes of them; what it would make up is refused."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from anomalib_medical.data.images import read_image
from anomalib_medical.io import ImageReadError, image_size, read_mask_pixels

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


def with_alpha() -> Image.Image:
    return Image.fromarray(np.dstack([PIXELS, np.arange(50, dtype=np.uint8)[None].repeat(40, axis=0) * 5]))


@pytest.mark.parametrize("options", [{"lossless": True, "exact": True}, {"quality": 70}], ids=["lossless", "lossy"])
def test_webp(tmp_path: Path, options: dict) -> None:
    for name, image in (("rgb", Image.fromarray(PIXELS)), ("rgba", with_alpha())):
        path = tmp_path / f"{name}.webp"
        image.save(path, **options)
        assert torch.equal(read_image(path), by_pillow(path, "RGB"))
        assert image_size(path) == (40, 50)


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("alpha", [True, False])
def test_a_lossy_mask_has_no_fringe_and_a_lossless_one_keeps_small_values(
    tmp_path: Path, lossless: bool, alpha: bool
) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[9:21, 9:21] = 3 if lossless else 255
    image = Image.fromarray(mask).convert("RGBA" if alpha else "RGB")
    if alpha:
        image.putalpha(Image.fromarray(np.full((32, 32), 200, np.uint8)))  # an opaque one would not be kept
    image.save(tmp_path / "m.webp", lossless=lossless, quality=60)
    assert np.array_equal(read_mask_pixels(tmp_path / "m.webp"), mask > 0)


@pytest.mark.parametrize("suffix", [".webp", ".png"])
def test_animations_are_no_picture(tmp_path: Path, suffix: str) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    frames[0].save(tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageReadError, match=r"found a (WEBP|PNG) file of several pictures.*own file"):
        read_image(tmp_path / f"a{suffix}")


DEEP = np.random.default_rng(0).integers(0, 4096, (40, 50)).astype(np.uint16)
UNUSUAL = {
    "a JPEG of 12 bits": lambda: imagecodecs.jpeg8_encode(DEEP, bitspersample=12),
    "a lossless JPEG of 12 bits": lambda: imagecodecs.jpeg8_encode(DEEP, bitspersample=12, lossless=True),
    "a lossless JPEG of 16 bits": lambda: imagecodecs.ljpeg_encode(DEEP, bitspersample=16),
    "a JPEG-LS of 16 bits": lambda: imagecodecs.jpegls_encode(DEEP),
}


@pytest.mark.parametrize("name", UNUSUAL)
@pytest.mark.parametrize("function", [read_image, image_size])
def test_unusual_jpegs_are_named(tmp_path: Path, name: str, function) -> None:
    (tmp_path / "a.jpg").write_bytes(UNUSUAL[name]())
    with pytest.raises(ImageReadError, match=rf"found {name}, expected a baseline.*Save it as PNG or TIFF") as error:
        function(tmp_path / "a.jpg")
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[..., 0]], ids=["rgb", "grey"])
def test_a_lossless_jpeg_of_8_bits_is_exact(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), lossless=True))
    image = read_image(tmp_path / "a.jpg").permute(1, 2, 0).numpy() * 255
    assert np.array_equal(image.round(), pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1))


@pytest.mark.parametrize("function", [read_image, read_mask_pixels, image_size])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_a_picture_above_pillows_limit_is_not_damaged(tmp_path: Path, monkeypatch, function, suffix: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / f"a{suffix}")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)  # twice that is too many: 2000
    with pytest.raises(
        ImageReadError, match=r"2000 pixels\) exceeds limit of 1800 pixels.*into tiles.*MAX_IMAGE_PIXELS"
    ) as error:
        function(tmp_path / f"a{suffix}")
    assert "damaged" not in str(error.value)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    function(tmp_path / f"a{suffix}")


def test_a_header_cut_off_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nxxxx")
    with pytest.raises(ImageReadError, match=r"truncated file \(12 bytes; decoder: not even its header\)"):
        read_image(tmp_path / "a.png")
