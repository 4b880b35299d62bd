"""Every raster type is read with its full depth; everything else gets an error that helps."""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from anomalib.data.utils import read_image as anomalib_read_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.io import ImageReadError, image_size

RNG = np.random.default_rng(0)
GREY8 = RNG.integers(0, 256, (7, 5), dtype=np.uint8)
RGB8 = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)
RGBA8 = RNG.integers(0, 256, (7, 5, 4), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (7, 5), dtype=np.uint16)
RGB16 = RNG.integers(0, 65536, (7, 5, 3), dtype=np.uint16)
RGBA16 = RNG.integers(0, 65536, (7, 5, 4), dtype=np.uint16)


def expected(pixels: np.ndarray, largest: int) -> torch.Tensor:
    colour = pixels[..., :3] if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
    return torch.from_numpy(colour.astype(np.float32) / np.float32(largest)).permute(2, 0, 1)


def save(path: Path, pixels: np.ndarray) -> Path:
    if path.suffix in {".tif", ".tiff"}:
        photometric = "rgb" if pixels.ndim == 3 else "minisblack"
        tifffile.imwrite(path, pixels, photometric=photometric)
    elif pixels.dtype == np.uint16:
        path.write_bytes(imagecodecs.png_encode(pixels))
    else:
        Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("pixels", [GREY8, RGB8, RGBA8, GREY16, RGB16, RGBA16], ids=lambda p: f"{p.dtype}{p.shape}")
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_lossless_files_are_exact_and_alpha_is_dropped(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = save(tmp_path / f"a{suffix}", pixels)
    image = read_image(path)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    assert torch.equal(image, expected(pixels, np.iinfo(pixels.dtype).max))
    assert image_size(path) == (7, 5)


@pytest.mark.parametrize("pixels", [GREY8, RGB8], ids=["grey", "rgb"])
def test_bmp_is_exact(tmp_path: Path, pixels: np.ndarray) -> None:
    assert torch.equal(read_image(save(tmp_path / "a.bmp", pixels)), expected(pixels, 255))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_equals_pillow(tmp_path: Path, mode: str) -> None:
    Image.fromarray(RGB8).convert(mode).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        assert torch.equal(read_image(tmp_path / "a.jpg"), expected(np.asarray(image.convert("RGB")), 255))


def test_8_bit_equals_anomalib(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB8)
    assert torch.allclose(read_image(path), anomalib_read_image(path, as_tensor=True), atol=1e-7)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_palette_gives_colours_not_indices(tmp_path: Path, suffix: str) -> None:
    palette = Image.fromarray(RGB8).quantize(8)
    palette.save(tmp_path / f"a{suffix}")
    colours = expected(np.asarray(palette.convert("RGB")), 255)
    assert torch.allclose(read_image(tmp_path / f"a{suffix}"), colours, atol=1e-6)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_one_bit(tmp_path: Path, suffix: str) -> None:
    Image.fromarray(GREY8 > 127).save(tmp_path / f"a{suffix}")
    assert torch.equal(read_image(tmp_path / f"a{suffix}")[0], torch.from_numpy(GREY8 > 127).float())


def test_png_of_grey_with_alpha(tmp_path: Path) -> None:
    Image.fromarray(GREY8).convert("LA").save(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), expected(GREY8, 255))


def test_tiff_where_0_is_white_is_inverted(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY8, photometric="miniswhite")
    assert torch.allclose(read_image(tmp_path / "a.tif"), 1 - expected(GREY8, 255))


def test_12_bit_tiff_uses_its_own_range(tmp_path: Path) -> None:
    values = np.linspace(0, 4095, 24).astype(np.uint16).reshape(4, 6)
    packed = np.packbits((values[..., None] >> np.arange(11, -1, -1)) & 1).reshape(4, 9)
    tifffile.imwrite(tmp_path / "a.tif", packed, photometric="minisblack", metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages.first.tags["ImageWidth"].overwrite(6)
        tiff.pages.first.tags["BitsPerSample"].overwrite(12)
    assert torch.equal(read_image(tmp_path / "a.tif"), expected(values, 4095))


@pytest.mark.parametrize("compression", ["zlib", "lzw", "packbits"])
def test_compressed_planar_tiff(tmp_path: Path, compression: str) -> None:
    planes = np.ascontiguousarray(np.moveaxis(RGB16, -1, 0))
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", compression=compression)
    assert torch.equal(read_image(tmp_path / "a.tif"), expected(RGB16, 65535))


def test_float_tiff_in_range(tmp_path: Path) -> None:
    pixels = RNG.random((7, 5), dtype=np.float32)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    assert torch.equal(read_image(tmp_path / "a.tif")[1], torch.from_numpy(pixels))


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    save(tmp_path / "a.tif", GREY16).rename(tmp_path / "a.png")
    assert torch.equal(read_image(tmp_path / "a.png"), expected(GREY16, 65535))


def test_names_that_are_not_ascii_or_very_long(tmp_path: Path) -> None:
    path = save(tmp_path / f"Größe_脳_{'x' * 200}.png", RGB16)
    assert torch.equal(read_image(str(path)), expected(RGB16, 65535))


BAD_CONTENT = {
    "text": (
        b"patient,label\nNone,0\n",
        r"found text, expected a PNG, JPEG, .* or NIfTI file\. Convert",
    ),
    "umlauts": ("größer als 脳 ".encode() * 20, "found text"),
    "empty": (b"", r"found an empty file \(0 bytes\)"),
    "zeros": (bytes(500), "found only zero bytes"),
    "dicom": (bytes(128) + b"DICM" + bytes(50), "found a DICOM file"),
    "html": (b"<!DOCTYPE html><p>not found", "found a web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "found a Git LFS pointer"),
    "gif": (b"GIF89a" + bytes(20), "found a GIF file"),
    "junk": (bytes(range(128, 250)), r"found unknown content \(first bytes 80 81"),
}


@pytest.mark.parametrize(("content", "message"), BAD_CONTENT.values(), ids=BAD_CONTENT)
@pytest.mark.parametrize("function", [read_image, read_mask, image_size])
def test_other_content(tmp_path: Path, content: bytes, message: str, function) -> None:
    path = tmp_path / "scan.png"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match=message) as error:
        function(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif"])
def test_truncated(tmp_path: Path, suffix: str) -> None:
    pixels = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
    path = save(tmp_path / f"a{suffix}", pixels)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageReadError, match=r"a damaged or truncated file \(\d+ bytes.*Copy or export the file again"):
        read_image(path)


def test_truncated_16_bit_colour(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", RGB16)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageReadError, match="damaged or truncated"):
        read_image(path)


BAD_TIFFS = {
    "nan": (np.array([[0.5, np.nan]], np.float32), r"found values that are NaN or infinite \(1\)"),
    "inf": (np.array([[np.inf, -np.inf]], np.float32), r"found values that are NaN or infinite \(2\)"),
    "range": (np.array([[-1.0, 300.0]], np.float32), r"found floating-point values from -1 to 300.*in \[0, 1\]"),
    "signed": (np.array([[-1000, 300]], np.int16), "found a TIFF of int16 values.*the window is yours"),
    "pages": (np.zeros((3, 8, 8), np.uint8), "found a TIFF of 3 pages.*Save each page"),
}


@pytest.mark.parametrize(("pixels", "message"), BAD_TIFFS.values(), ids=BAD_TIFFS)
def test_tiffs_without_a_meaning_in_0_to_1(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    with pytest.raises(ImageReadError, match=message):
        read_image(tmp_path / "a.tif")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.png"):
        read_image(tmp_path / "absent.png")


def test_the_error_travels_between_processes() -> None:
    # As a DataLoader does: the worker sends the type and the message.
    error = ImageReadError(str(ImageReadError.of(Path("a"), "b", "c", "d")))
    assert str(error) == "Cannot read the image a: found b, expected c. d"


def encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "tiff":
        tifffile.imwrite(buffer, RGB16, photometric="rgb", compression="zlib")
    elif kind == "png16":
        return bytes(imagecodecs.png_encode(RGB16))
    else:
        Image.fromarray(RGB8).save(buffer, kind)
    return buffer.getvalue()


@settings(max_examples=60)
@given(data=st.data())
def test_damage_gives_pixels_or_our_error_and_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(encoded(data.draw(st.sampled_from(["png", "jpeg", "bmp", "png16", "tiff"]))))
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "a.png"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(ImageReadError):
        image = read_image(path)
        assert image.shape[0] == 3
        assert bool(((image >= 0) & (image <= 1)).all())


@pytest.mark.parametrize("tag", [256, 257], ids=["width", "height"])
@pytest.mark.parametrize("value", [0, 0xFFFFFFF0], ids=["none", "more than memory holds"])
def test_a_tiff_of_an_impossible_size_is_a_damaged_one(tmp_path: Path, tag: int, value: int) -> None:
    content = bytearray(encoded("tiff"))
    (count,) = struct.unpack_from("<H", content, 8)
    entries = {struct.unpack_from("<H", content, offset)[0]: offset for offset in range(10, 10 + 12 * count, 12)}
    struct.pack_into("<I", content, entries[tag] + 8, value)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="damaged or truncated file"):
        read_image(path)


@settings(max_examples=20)
@given(st.integers(0, 65535), st.booleans())
def test_every_16_bit_value_survives(tmp_path: Path, value: int, colour: bool) -> None:
    pixels = np.full((2, 2, 3) if colour else (2, 2), value, dtype=np.uint16)
    image = read_image(save(tmp_path / "a.png", pixels))
    assert round(float(image[2, 1, 1]) * 65535) == value


MASK = np.array([[0, 1], [255, 0]], dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_mask_is_whatever_is_not_black(tmp_path: Path, suffix: str) -> None:
    mask = read_mask(save(tmp_path / f"m{suffix}", MASK))
    assert mask.dtype == torch.uint8
    assert mask.tolist() == [[0, 1], [1, 0]]


def test_mask_in_colour(tmp_path: Path) -> None:
    blue = np.zeros((2, 2, 3), np.uint8)
    blue[..., 2] = MASK
    assert read_mask(save(tmp_path / "m.png", blue)).tolist() == [[0, 1], [1, 0]]


def test_jpeg_mask_has_no_fringe(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[9:21, 9:21] = 255
    Image.fromarray(mask).save(tmp_path / "m.jpg", quality=60)
    assert np.array_equal(read_mask(tmp_path / "m.jpg").numpy() * 255, mask)
