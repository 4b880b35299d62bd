"""Which values of a mask belong to it, in every format."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from anomalib_medical.io import ImageReadError, MaskRule, labels_in, read_mask_pixels, read_mask_values
from tests.helpers.dicom_files import compress, write_dicom
from tests.helpers.nifti_files import save_nifti

# A background, two labels, and a row that tells top from bottom.
LABELS = np.array([[0, 1, 2], [0, 0, 2], [1, 0, 0], [0, 0, 0]], np.uint8)
SECOND = MaskRule(labels=(2,))


def png_of(bits: int, transparent: bytes = b"") -> bytes:
    """Encode LABELS as a grey PNG of fewer than 8 bits."""
    rows = [int("".join(f"{value:0{bits}b}" for value in row).ljust(8 * bits, "0"), 2) for row in LABELS]
    data = zlib.compress(b"".join(b"\0" + (row >> (4 * bits)).to_bytes((4 * bits + 7) // 8, "big") for row in rows))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", 3, 4, bits, 0, 0, 0, 0)
    transparent = chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparent + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def write(path: Path, kind: str) -> Path:
    """Write LABELS in a format."""
    if kind == "palette":
        image = Image.fromarray(LABELS, "P")
        image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
        image.save(path, "PNG")
    elif kind == "grey in colour":
        Image.fromarray(np.stack([LABELS] * 3, -1)).save(path, "PNG")
    elif kind == "grey and alpha":
        Image.fromarray(np.stack([LABELS, np.full_like(LABELS, 255)], -1), "LA").save(path, "PNG")
    elif kind == "4 bits":
        path.write_bytes(png_of(4))
    elif kind == "2 bits, one hidden":
        path.write_bytes(png_of(2, b"\0\1"))
    elif kind == "4 bits, one transparent":
        path.write_bytes(png_of(4, b"\0\0"))
    elif kind == "deep grey in colour":
        tifffile.imwrite(path, np.stack([LABELS.astype(np.uint16)] * 3, -1), photometric="rgb")
    elif kind == "deep grey in planes":
        planes = np.stack([LABELS.astype(np.uint16)] * 3)
        tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
    elif kind == "deep grey and alpha":
        pixels = np.stack([LABELS.astype(np.uint16), np.full(LABELS.shape, 65535, np.uint16)], -1)
        tifffile.imwrite(path, pixels, photometric="minisblack", planarconfig="contig", extrasamples=["unassalpha"])
    elif kind == "16 bits":
        Image.fromarray(LABELS.astype(np.uint16)).save(path, "PNG")
    elif kind == "dicom":
        write_dicom(path, LABELS.astype(np.uint16))
    elif kind == "float dicom":
        write_dicom(path, LABELS.astype(np.float32) + np.float32(1e-5))
    elif kind == "nifti":
        save_nifti(path.with_suffix(".nii"), LABELS.T[::-1, ::-1, None].astype(np.int8)).rename(path)
    elif kind == "bmp":
        Image.fromarray(LABELS).save(path, "BMP")
    else:
        tifffile.imwrite(path, LABELS.astype(kind), photometric="minisblack")
    return path


KINDS = ("palette", "grey in colour", "grey and alpha", "4 bits", "16 bits", "dicom", "float dicom", "nifti", "bmp")
KINDS += ("4 bits, one transparent", "2 bits, one hidden")
KINDS += ("deep grey in colour", "deep grey in planes", "deep grey and alpha")
KINDS += ("uint8", "uint16", "int32", "float32", "float64")


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_the_stored_numbers(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "mask", kind)
    assert labels_in(path, read_mask_values(path)) == {1, 2}
    assert np.array_equal(read_mask_pixels(path), LABELS != 0)
    assert np.array_equal(read_mask_pixels(path, SECOND), LABELS == 2)
    assert np.array_equal(read_mask_pixels(path, MaskRule(threshold=1.5)), LABELS == 2)


def test_a_palette_whose_first_colour_is_not_black_has_colours(tmp_path: Path) -> None:
    image = Image.fromarray(LABELS.clip(0, 1), "P")
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask_pixels(tmp_path / "m.png"), LABELS == 0)


def test_colours_have_no_labels(tmp_path: Path) -> None:
    colours = np.zeros((4, 3, 3), np.uint8)
    colours[LABELS == 1] = (255, 0, 0)
    colours[LABELS == 2] = (0, 0, 1)
    Image.fromarray(colours).save(tmp_path / "m.png")
    assert np.array_equal(read_mask_pixels(tmp_path / "m.png"), LABELS != 0)
    assert labels_in(tmp_path / "m.png", read_mask_values(tmp_path / "m.png")) == {(255, 0, 0), (0, 0, 1)}
    for rule in (SECOND, MaskRule(threshold=0)):
        with pytest.raises(ImageReadError, match="a mask of colours, expected one number a pixel"):
            read_mask_pixels(tmp_path / "m.png", rule)


@pytest.mark.parametrize("kind", ["nii", "nii.gz", "tif", "dcm"])
def test_noise_around_whole_numbers_is_no_mask(tmp_path: Path, kind: str) -> None:
    values = LABELS.astype(np.float32) + np.where(LABELS == 1, 1e-6, -1e-6).astype(np.float32)
    values[3, 0], values[3, 1] = np.nan, np.inf
    path = tmp_path / f"m.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, values)
    elif kind == "dcm":
        write_dicom(path, values)
    else:
        save_nifti(path, np.ascontiguousarray(values.T[::-1, ::-1, None]))
    assert np.array_equal(read_mask_pixels(path), LABELS != 0)
    assert np.array_equal(read_mask_pixels(path, SECOND), LABELS == 2)


@pytest.mark.parametrize("kind", ["nii", "tif", "dcm", "scaled"])
def test_fractions_are_refused_unless_there_is_a_threshold(tmp_path: Path, kind: str) -> None:
    values = np.zeros((4, 3), np.float32)
    values[1] = 0.25, 0.5, 0.75
    path = tmp_path / f"m.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, values)
    elif kind == "dcm":
        write_dicom(path, values)
    elif kind == "scaled":
        path = save_nifti(tmp_path / "s.nii", (4 * values).astype(np.uint8).T[::-1, ::-1, None], scl_slope=0.25)
    else:
        save_nifti(path, np.ascontiguousarray(values.T[::-1, ::-1, None]))
    with pytest.raises(ImageReadError, match=r"3 of 12 values are fractions, from 0\.25 to 0\.75.*mask_threshold"):
        read_mask_pixels(path)
    assert read_mask_pixels(path, MaskRule(threshold=0.5)).sum() == 1
    assert read_mask_pixels(path, MaskRule(threshold=0.3)).sum() == 2


def test_a_quantized_mask_of_zeros_and_ones(tmp_path: Path) -> None:
    """What nibabel writes for floating-point zeros and ones stored as int16."""
    stored = np.where(LABELS > 0, 32767, -32768).astype(np.int16).T[::-1, ::-1, None]
    path = save_nifti(tmp_path / "m.nii", stored, scl_slope=1 / 65535, scl_inter=32768 / 65535)
    assert np.array_equal(read_mask_pixels(path), LABELS != 0)


@pytest.mark.parametrize("colours", ["minisblack", "rgb"])
def test_a_jpeg_inside_a_tiff_has_no_fringe(tmp_path: Path, colours: str) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[9:21, 13:30] = 255
    pixels = mask if colours == "minisblack" else np.stack([mask] * 3, -1)
    options = {"photometric": colours, "compression": "jpeg", "compressionargs": {"level": 60}}
    tifffile.imwrite(tmp_path / "a.tif", pixels, **options)
    assert np.array_equal(read_mask_pixels(tmp_path / "a.tif"), mask > 0)


def test_a_mask_without_one_of_its_strips_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, LABELS, photometric="minisblack", rowsperstrip=1)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages.first.tags["StripByteCounts"].valueoffset
    content = bytearray(path.read_bytes())
    content[place : place + 1] = b"\0"
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="absent or cut off"):
        read_mask_pixels(path)


def test_a_dark_jpeg_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.kron(LABELS, np.ones((16, 16), np.uint8))).save(tmp_path / "m.jpg", quality=100)
    with pytest.raises(ImageReadError, match=r"a lossy mask with values up to .*as PNG"):
        read_mask_pixels(tmp_path / "m.jpg")
    stream = io.BytesIO()
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(stream, "JPEG")
    (tmp_path / "empty.jpg").write_bytes(stream.getvalue())
    assert not read_mask_pixels(tmp_path / "empty.jpg").any()


@pytest.mark.parametrize("kind", ["tif JPEG", "tif JPEG in colour", "tif JPEG 2000", "dcm JPEG", "dcm JPEG 2000"])
def test_lossy_traces_around_edges_are_no_mask_in_any_container(tmp_path: Path, kind: str) -> None:
    white = np.zeros((64, 64), np.uint8)
    white[21:43, 19:50] = 255
    path = tmp_path / "m"
    if kind.startswith("tif"):
        compression, options = ("jpeg", {"level": 60}) if "2000" not in kind else ("jpeg2000", {"level": 30})
        pixels = np.stack([white] * 3, -1) if "colour" in kind else white
        photometric = "rgb" if "colour" in kind else "minisblack"
        options |= {"reversible": False} if "2000" in kind else {}
        tifffile.imwrite(path, pixels, photometric=photometric, compression=compression, compressionargs=options)
        faint = tifffile.imread(path)
    else:
        syntax = uid.JPEG2000 if "2000" in kind else uid.JPEGBaseline8Bit
        stream = compress(white, syntax) if "2000" in kind else bytes(imagecodecs.jpeg8_encode(white, 60))
        write_dicom(path, white, TransferSyntaxUID=syntax, PixelData=encapsulate([stream]))
        faint = pydicom.dcmread(path).pixel_array
    assert (faint > 0).sum() != (faint > 127).sum()
    assert np.array_equal(read_mask_pixels(path), white > 0)


@pytest.mark.parametrize("kind", ["tif", "dcm"])
def test_labels_survive_reversible_jpeg_2000(tmp_path: Path, kind: str) -> None:
    labels = np.kron(LABELS, np.ones((16, 16), np.uint8))
    if kind == "tif":
        options = {"level": 0, "reversible": True}
        tifffile.imwrite(tmp_path / "m", labels, compression="jpeg2000", compressionargs=options)
    else:
        syntax = uid.JPEG2000Lossless
        write_dicom(tmp_path / "m", labels, TransferSyntaxUID=syntax, PixelData=encapsulate([compress(labels, syntax)]))
    assert np.array_equal(read_mask_pixels(tmp_path / "m", SECOND), labels == 2)


def test_white_is_zero(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", 255 - LABELS, photometric="miniswhite")
    assert np.array_equal(read_mask_pixels(tmp_path / "m.tif", SECOND), LABELS == 2)


def test_faint_16_bit_colours_are_not_black(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.stack([LABELS.astype(np.uint16)] * 2 + [LABELS * 0], -1), photometric="rgb")
    assert np.array_equal(read_mask_pixels(tmp_path / "m.tif"), LABELS != 0)


@pytest.mark.parametrize(
    ("labels", "threshold", "message"),
    [([1], 0.5, "expected one of the two"), ([0, 1], None, "0, which is the background"), (None, np.nan, "a number")],
)
def test_rules_that_mean_nothing(labels, threshold, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MaskRule.of(labels, threshold)
