"""Elements of the image pixel module that are absent or odd: taken where they can mean one thing only, else named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import config, uid
from pydicom.encaps import encapsulate

from anomalib_medical.io import ImageReadError, image_size, list_pictures, read_mask_pixels, read_pixels
from tests.helpers.dicom_files import compress, make_dicom, write_dicom

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 8)).astype(np.uint8)
RAMP = np.linspace(0, 4095, 48).astype(np.uint16).reshape(6, 8)
RGB = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)
TWELVE = {"BitsStored": 12, "HighBit": 11}
ABSENT = {"absent": None, "empty": ""}
absent = pytest.mark.parametrize("how", ABSENT)


def without(path: Path, pixels: np.ndarray, keyword: str, how: str, **tags) -> Path:
    return write_dicom(path, pixels, **tags, **{keyword: ABSENT[how]})


def test_nothing_else_is_taken_for_it(tmp_path: Path) -> None:
    np.testing.assert_allclose(read_pixels(write_dicom(tmp_path / "a", RGB)), RGB / 255, atol=1e-6)


@absent
def test_colours_need_neither_planes_nor_samples_nor_a_sign(tmp_path: Path, how: str) -> None:
    for keyword in ("PlanarConfiguration", "SamplesPerPixel", "PixelRepresentation", "BitsStored", "HighBit"):
        path = without(tmp_path / keyword, RGB, keyword, how)
        np.testing.assert_allclose(read_pixels(path), RGB / 255, atol=1e-6)


@absent
@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless])
def test_compressed_colours_need_no_planes(tmp_path: Path, how: str, syntax: uid.UID) -> None:
    colours = np.tile(RGB, (4, 4, 1))
    tags = {"TransferSyntaxUID": syntax, "PixelData": encapsulate([compress(colours, syntax)])}
    path = without(tmp_path / "a", colours, "PlanarConfiguration", how, **tags)
    np.testing.assert_allclose(read_pixels(path), colours / 255, atol=1e-6)


@absent
def test_grey_of_8_bits_needs_no_bits_stored(tmp_path: Path, how: str) -> None:
    for keyword in ("SamplesPerPixel", "BitsStored", "HighBit"):
        np.testing.assert_allclose(read_pixels(without(tmp_path / "a", GREY, keyword, how)), GREY / 255, atol=1e-6)


@absent
def test_the_high_bit_says_how_many_are_stored(tmp_path: Path, how: str) -> None:
    path = without(tmp_path / "a", RAMP | np.uint16(0x5000), "BitsStored", how, HighBit=11)
    np.testing.assert_allclose(read_pixels(path), RAMP / 4095, atol=1e-6)


@absent
@pytest.mark.parametrize(
    ("keyword", "tag", "expected"),
    [
        ("PhotometricInterpretation", "0028,0004", "one of MONOCHROME1, MONOCHROME2"),
        ("BitsAllocated", "0028,0100", "1, 8, 16, 32, 64"),
        ("PixelRepresentation", "0028,0103", "0 to 1"),
        ("Rows", "0028,0010", "one row and column at least"),
        ("Columns", "0028,0011", "one row and column at least"),
    ],
)
def test_what_cannot_be_guessed_is_named(tmp_path: Path, how: str, keyword: str, tag: str, expected: str) -> None:
    path = without(tmp_path / "a", RAMP, keyword, how, **TWELVE)
    for function in (read_pixels, read_mask_pixels):
        with pytest.raises(ImageReadError, match=rf"without {keyword} \({tag}\), expected {expected}") as error:
            function(path)
        assert ("cut off" in str(error.value)) == (keyword in {"Rows", "Columns"})


@absent
def test_bits_stored_of_more_than_8_are_not_guessed(tmp_path: Path, how: str) -> None:
    data = make_dicom(RAMP, BitsStored=ABSENT[how], HighBit=None)
    data.save_as(tmp_path / "a", enforce_file_format=True)
    with pytest.raises(ImageReadError, match=r"without BitsStored \(0028,0101\), expected 1 to 16"):
        read_pixels(tmp_path / "a")


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"BitsStored": 17}, r"with 17 as its BitsStored \(0028,0101\), expected 1 to 16"),
        ({"BitsStored": 0}, r"with 0 as its BitsStored \(0028,0101\)"),
        ({"BitsAllocated": 12}, r"with 12 as its BitsAllocated \(0028,0100\), expected 1, 8, 16, 32, 64"),
        ({"PixelRepresentation": 2}, r"with 2 as its PixelRepresentation \(0028,0103\), expected 0 to 1"),
        ({"SamplesPerPixel": 3}, r"with 3 as its SamplesPerPixel \(0028,0002\), expected 1"),
        ({"SamplesPerPixel": 4}, r"with 4 as its SamplesPerPixel"),
        ({"BitsStored": [12, 16]}, r"with no single number as its BitsStored"),
        ({"PhotometricInterpretation": ["MONOCHROME1", "MONOCHROME2"]}, r"by its PhotometricInterpretation"),
        ({"PhotometricInterpretation": "monochrome2"}, r"small letters in its Photometric.*, expected MONOCHROME2"),
        ({"PhotometricInterpretation": "GREY"}, r"by its PhotometricInterpretation \(0028,0004\)"),
        ({"PhotometricInterpretation": "RGB"}, r"with 1 as its SamplesPerPixel \(0028,0002\), expected 3"),
        ({"NumberOfFrames": "-1"}, r"with -1 as its NumberOfFrames \(0028,0008\)"),
        ({"BitsStored": 12, "HighBit": 15}, r"with 15 as its HighBit \(0028,0102\), expected 11"),
        ({"BitsStored": 12, "HighBit": 7}, r"with 7 as its HighBit \(0028,0102\), expected 11"),
    ],
    ids=str,
)
def test_values_that_cannot_be_are_named(tmp_path: Path, tags: dict[str, object], message: str) -> None:
    with config.disable_value_validation():
        path = write_dicom(tmp_path / "a", RAMP, **tags)
    with pytest.raises(ImageReadError, match=f"found a DICOM file .*{message}"):
        read_pixels(path)


def test_the_planes_of_colours_must_be_0_or_1(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"with 2 as its PlanarConfiguration \(0028,0006\), expected 0 to 1"):
        read_pixels(write_dicom(tmp_path / "a", RGB, PlanarConfiguration=2))


def test_subsampled_colours_have_no_planes(tmp_path: Path) -> None:
    tags = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": bytes(2 * GREY.size)}
    with pytest.raises(ImageReadError, match=r"with 1 as its PlanarConfiguration \(0028,0006\), expected 0"):
        read_pixels(write_dicom(tmp_path / "a", RGB, PlanarConfiguration=1, **tags))


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_are_not_negative(tmp_path: Path, photometric: str) -> None:
    path = write_dicom(tmp_path / "a", RGB, PixelRepresentation=1, PhotometricInterpretation=photometric)
    with pytest.raises(ImageReadError, match=r"with 1 as its PixelRepresentation \(0028,0103\), expected 0"):
        read_pixels(path)


def test_single_bits_are_not_negative(tmp_path: Path) -> None:
    tags = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelRepresentation": 1, "PixelData": bytes(6)}
    with pytest.raises(ImageReadError, match=r"with 1 as its PixelRepresentation \(0028,0103\), expected 0"):
        read_pixels(write_dicom(tmp_path / "a", GREY, **tags))


@pytest.mark.parametrize("values", [np.float32, np.float64])
@pytest.mark.parametrize("photometric", ["RGB", "PALETTE COLOR"])
def test_floats_are_grey(tmp_path: Path, values: type, photometric: str) -> None:
    pixels = (RGB if photometric == "RGB" else GREY).astype(values)
    path = write_dicom(tmp_path / "a", pixels, PhotometricInterpretation=photometric)
    with pytest.raises(ImageReadError, match=rf"floating-point values with {photometric} as its Photometric.*MONO"):
        read_pixels(path)


@pytest.mark.parametrize("value", [["MONOCHROME2 "], " MONOCHROME2"])
def test_blanks_around_a_value_are_none(tmp_path: Path, value: object) -> None:
    path = write_dicom(tmp_path / "a", GREY, PhotometricInterpretation=value)
    np.testing.assert_allclose(read_pixels(path), GREY / 255, atol=1e-6)


def test_several_values_that_are_one(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", RAMP, BitsStored=[12, 12], HighBit=[11, 11])
    np.testing.assert_allclose(read_pixels(path), RAMP / 4095, atol=1e-6)


def test_the_high_bit_of_values_that_use_all_bits_is_not_asked(tmp_path: Path) -> None:
    np.testing.assert_allclose(read_pixels(write_dicom(tmp_path / "a", GREY, HighBit=15)), GREY / 255, atol=1e-6)


def test_floats_have_no_bits_stored(tmp_path: Path) -> None:
    pixels = RNG.random((6, 8)).astype(np.float32)
    path = write_dicom(tmp_path / "a", pixels, BitsAllocated=None)
    np.testing.assert_allclose(read_pixels(path), (pixels - pixels.min()) / np.ptp(pixels), atol=1e-6)
    with pytest.raises(ImageReadError, match=r"with 64 as its BitsAllocated \(0028,0100\), expected 32"):
        read_pixels(write_dicom(tmp_path / "b", pixels, BitsAllocated=64))


@pytest.mark.parametrize("frames", [None, "", 0])
def test_no_number_of_frames_is_one(tmp_path: Path, frames: object) -> None:
    path = write_dicom(tmp_path / "a", GREY, NumberOfFrames=1) if frames is None else tmp_path / "a"
    data = make_dicom(GREY)
    if frames is not None:
        data.add_new("NumberOfFrames", "IS", frames)
    data.save_as(path, enforce_file_format=True)
    assert len(list_pictures(path)) == 1
    assert image_size(path) == (6, 8)
    np.testing.assert_allclose(read_pixels(path), GREY / 255, atol=1e-6)
