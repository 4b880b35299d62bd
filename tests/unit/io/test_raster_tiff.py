"""TIFFs of every colour space are what Pillow or the standard's formula make of them, or are refused by name."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from anomalib_medical.io import ImageReadError, read_pixels

_Y, _X = np.mgrid[0:32, 0:48]
RGB = np.stack([_Y * 8, (_X * 5) % 256, np.full_like(_Y, 40)], axis=-1).astype(np.uint8)
YCBCR = np.asarray(Image.fromarray(RGB).convert("YCbCr"))
PLANES = np.ascontiguousarray(np.moveaxis(YCBCR, -1, 0))
ALPHA = np.broadcast_to((np.arange(48) * 5).astype(np.uint8), (32, 48))
# Pillow rounds on its way to whole numbers.
TOLERANCE = 1.5 / 255


def by_pillow(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")) / 255


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd", "lzma"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
def test_ycbcr(tmp_path: Path, compression: str | None, tile: tuple[int, int] | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, YCBCR, photometric="ycbcr", compression=compression, tile=tile)
    np.testing.assert_allclose(read_pixels(path), by_pillow(path), atol=TOLERANCE)
    np.testing.assert_allclose(read_pixels(path), RGB / 255, atol=3 / 255)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "jpeg"])
def test_ycbcr_that_pillow_wrote(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).convert("YCbCr").save(path, compression=compression)
    np.testing.assert_allclose(read_pixels(path), by_pillow(path), atol=TOLERANCE)


@pytest.mark.parametrize("compression", ["zlib", "jpeg"])
def test_ycbcr_in_planes(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PLANES, photometric="ycbcr", planarconfig="separate", compression=compression)
    np.testing.assert_allclose(read_pixels(path), by_pillow(path), atol=TOLERANCE)


@pytest.mark.parametrize(("photometric", "subsampling"), [("ycbcr", None), ("ycbcr", (2, 2)), ("rgb", None)])
def test_jpeg_inside(tmp_path: Path, photometric: str, subsampling: tuple[int, int] | None) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric=photometric, subsampling=subsampling, compression="jpeg")
    np.testing.assert_allclose(read_pixels(path), by_pillow(path), atol=1e-6)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_reference_black_and_white(tmp_path: Path, compression: str | None) -> None:
    """Video's range, 16 to 235 and 240: Pillow minds it in compressed files only."""
    luma, blue, red = np.moveaxis(YCBCR.astype(float), -1, 0)
    stored = np.stack([16 + luma * 219 / 255, 128 + (blue - 128) * 112 / 127, 128 + (red - 128) * 112 / 127], axis=-1)
    limits = (16, 1, 235, 1, 128, 1, 240, 1, 128, 1, 240, 1)
    tifffile.imwrite(
        tmp_path / "a.tif",
        stored.round().clip(0, 255).astype(np.uint8),
        photometric="ycbcr",
        compression=compression,
        extratags=[(532, 5, 6, limits, True)],
    )
    np.testing.assert_allclose(read_pixels(tmp_path / "a.tif"), RGB / 255, atol=4 / 255)


def test_other_coefficients(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    coefficients = (2126, 10000, 7152, 10000, 722, 10000)
    tifffile.imwrite(path, YCBCR, photometric="ycbcr", compression="zlib", extratags=[(529, 5, 3, coefficients, True)])
    np.testing.assert_allclose(read_pixels(path), by_pillow(path), atol=TOLERANCE)
    assert np.abs(read_pixels(path) - RGB / 255).max() > 0.05


REFUSED = {
    "CIELAB": ({"photometric": "cielab"}, YCBCR),
    "ICCLAB": ({"photometric": "icclab"}, YCBCR),
    "SEPARATED": ({"photometric": "separated"}, np.dstack([RGB, ALPHA])),
    "LINEAR_RAW": ({"photometric": "linear_raw"}, RGB),
    "DEPTH_MAP": ({"photometric": 51177}, RGB[..., 0]),
    "YCBCR with 3 samples of 16 bits": ({"photometric": "ycbcr"}, YCBCR.astype(np.uint16)),
    "YCBCR compressed as JPEG2000": ({"photometric": "ycbcr", "compression": "jpeg2000"}, YCBCR),
    "3 grey channels": ({"photometric": "minisblack", "planarconfig": "contig"}, RGB),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_colours_are_refused_by_name(tmp_path: Path, name: str) -> None:
    options, pixels = REFUSED[name]
    tifffile.imwrite(tmp_path / "a.tif", np.ascontiguousarray(pixels), **options)
    with pytest.raises(ImageReadError, match=rf"found a TIFF of .*{name}.*Save it as plain grey or RGB"):
        read_pixels(tmp_path / "a.tif")


def test_lab_that_pillow_wrote_is_refused(tmp_path: Path) -> None:
    Image.fromarray(RGB).convert("LAB").save(tmp_path / "a.tif")
    with pytest.raises(ImageReadError, match="found a TIFF of colours CIELAB"):
        read_pixels(tmp_path / "a.tif")


def change_tag(path: Path, old: int, new: int, value: int | None = None) -> None:
    """Give a tag of a little-endian TIFF another number, and another short value."""
    content = bytearray(path.read_bytes())
    (first,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, first)
    for offset in range(first + 2, first + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, offset)[0] == old:
            struct.pack_into("<H", content, offset, new)
            if value is not None:
                struct.pack_into("<I", content, offset + 8, value)
    path.write_bytes(content)


def test_colours_without_a_name_are_refused(tmp_path: Path) -> None:
    """Readers take an absent PhotometricInterpretation for "0 is white": a negative of most such files."""
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    change_tag(tmp_path / "a.tif", 262, 65000)
    with pytest.raises(ImageReadError, match="does not name"):
        read_pixels(tmp_path / "a.tif")


def test_subsampled_ycbcr_without_jpeg_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", YCBCR, photometric="ycbcr")
    change_tag(tmp_path / "a.tif", 530, 530, 2 | 2 << 16)
    with pytest.raises(ImageReadError, match="stored for several pixels together"):
        read_pixels(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["unassalpha", "unspecified"])
def test_an_extra_channel_is_dropped(tmp_path: Path, kind: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.dstack([RGB, ALPHA]), photometric="rgb", extrasamples=[kind])
    np.testing.assert_allclose(read_pixels(tmp_path / "a.tif"), RGB / 255, atol=1e-6)
    grey = np.dstack([RGB[..., 0], ALPHA])
    tifffile.imwrite(tmp_path / "b.tif", grey, photometric="minisblack", planarconfig="contig", extrasamples=[kind])
    np.testing.assert_allclose(read_pixels(tmp_path / "b.tif"), RGB[..., 0] / 255, atol=1e-6)


def test_colours_that_were_multiplied_by_their_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    multiplied = (RGB * (ALPHA[..., None] / 255)).astype(np.uint8)
    tifffile.imwrite(path, np.dstack([multiplied, ALPHA]), photometric="rgb", extrasamples=["assocalpha"])
    np.testing.assert_allclose(read_pixels(path), by_pillow(path), atol=TOLERANCE)


def test_a_palette_with_alpha(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(RGB).quantize(16).convert("PA").save(path)
    np.testing.assert_allclose(read_pixels(path), by_pillow(path), atol=1e-6)


def test_a_palette_of_16_bit_indices_and_one_that_holds_8_bit_colours(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 65536, (8, 6)).astype(np.uint16)
    table = rng.integers(0, 256, (3, 65536)).astype(np.uint16)
    for name, stored in (("deep", table * 257), ("low", table)):
        tifffile.imwrite(tmp_path / f"{name}.tif", indices, photometric="palette", colormap=stored)
        expected = np.moveaxis(table, 0, -1)[indices] / 255
        np.testing.assert_allclose(read_pixels(tmp_path / f"{name}.tif"), expected, atol=1e-6)


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("lost", [3, 30, 100])
def test_a_jpeg_inside_that_is_cut_off_is_not_filled_up(
    tmp_path: Path, lost: int, tile: tuple[int, int] | None
) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", compression="jpeg", tile=tile, rowsperstrip=None if tile else 8)
    with tifffile.TiffFile(path) as tiff:
        end = tiff.pages.first.dataoffsets[-1] + tiff.pages.first.databytecounts[-1]
        counts = tiff.pages.first.tags["TileByteCounts" if tile else "StripByteCounts"]
    content = path.read_bytes()
    path.write_bytes(content[: end - lost])
    with pytest.raises(ImageReadError, match="damaged or truncated"):
        read_pixels(path)
    shorter = [count - lost for count in counts.value]
    kind = {3: "H", 4: "L"}[counts.dtype]
    changed = bytearray(content)
    struct.pack_into(f"<{len(shorter)}{kind}", changed, counts.valueoffset, *shorter)
    path.write_bytes(changed)
    with pytest.raises(ImageReadError, match="damaged or truncated"):
        read_pixels(path)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "jpeg"])
@pytest.mark.parametrize("tag", ["StripByteCounts", "StripOffsets"])
def test_a_strip_that_is_absent_is_not_black(tmp_path: Path, compression: str | None, tag: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", compression=compression, rowsperstrip=8)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags[tag].valueoffset
        size = {3: 2, 4: 4}[tiff.pages.first.tags[tag].dtype]
    content = bytearray(path.read_bytes())
    content[place : place + size] = bytes(size)
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="a strip or tile that is absent or cut off"):
        read_pixels(path)
