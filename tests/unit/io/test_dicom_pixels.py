"""Frames are the stored bits that the header describes, in every transfer syntax; what contradicts it is refused."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.pixels import pack_bits

from anomalib_medical.io import ImageReadError, list_pictures, read_mask_pixels, read_mask_values, read_pixels
from tests.helpers.dicom_files import NATIVE, compress, make_dicom, write_dicom

RNG = np.random.default_rng(0)
LOSSLESS = [
    uid.HTJ2KLossless,
    uid.HTJ2K,
    uid.JPEG2000Lossless,
    uid.JPEGLSLossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.RLELossless,
]
TWELVE = {"BitsStored": 12, "HighBit": 11}
RAMP = np.linspace(0, 4095, 24 * 20).astype(np.uint16).reshape(24, 20)
by_name = {"ids": lambda value: getattr(value, "keyword", None)}


def encapsulated(path: Path, pixels: np.ndarray, syntax: uid.UID, stream: bytes | None = None, **tags) -> Path:
    stream = compress(pixels, syntax) if stream is None else stream
    return write_dicom(path, pixels, TransferSyntaxUID=syntax, PixelData=encapsulate([stream]), **tags)


def stored_values(path: Path, low: int) -> np.ndarray:
    """Read the stored values of 12 bits back, through a window that maps them to [0, 1] without a loss."""
    return np.rint(read_pixels(path, (low + 2048, 4096)).astype(float) * 4095 + low - 0.5).astype(int)


def windowed(values: np.ndarray, center: float, width: float) -> np.ndarray:
    return np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def refused(path: Path | str, message: str) -> None:
    with pytest.raises(ImageReadError, match=message):
        read_pixels(path)


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], **by_name)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", ["overlay", "unextended", "noise"])
def test_bits_above_the_stored_are_no_pixels(tmp_path: Path, syntax: uid.UID, signed: bool, kind: str) -> None:
    values = RAMP.astype(int) - 2048 * signed
    above = {"overlay": 0x5000, "unextended": 0, "noise": RNG.integers(0, 16, RAMP.shape) << 12}[kind]
    pixels = ((values & 0xFFF) | above).astype(np.uint16).view(np.int16 if signed else np.uint16)
    if syntax.is_encapsulated:
        path = encapsulated(tmp_path / "a", pixels, syntax, **TWELVE)
    else:
        path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **TWELVE)
    center = 2048 - 2048 * signed
    np.testing.assert_allclose(read_pixels(path, (center, 4096)), windowed(values, center, 4096), atol=1e-6)
    assert np.array_equal(read_mask_pixels(path), values != 0)


@pytest.mark.parametrize("syntax", LOSSLESS, **by_name)
@pytest.mark.parametrize("signed", [False, True])
def test_sign_extended_bits_are_read_too(tmp_path: Path, syntax: uid.UID, signed: bool) -> None:
    pixels = RAMP.astype(np.int16) - 2048 if signed else RAMP
    center = 2048 - 2048 * signed
    path = encapsulated(tmp_path / "a", pixels, syntax, **TWELVE)
    np.testing.assert_allclose(read_pixels(path, (center, 4096)), windowed(pixels, center, 4096), atol=1e-6)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_a_streams_own_precision_may_be_another(tmp_path: Path, bits: int) -> None:
    pixels = RAMP // 4
    stream = bytes(imagecodecs.jpeg2k_encode(pixels, 0, codecformat="j2k", reversible=True, bitspersample=bits))
    for stored in (10, 12, 16):
        tags = {"BitsStored": stored, "HighBit": stored - 1}
        path = encapsulated(tmp_path / "a", pixels, uid.JPEG2000Lossless, stream, **tags)
        np.testing.assert_allclose(read_pixels(path, (512, 1024)), windowed(pixels, 512, 1024), atol=1e-6)


@pytest.mark.parametrize("syntax", [uid.JPEG2000, uid.JPEGLSNearLossless], **by_name)
@pytest.mark.parametrize("signed", [False, True])
def test_lossy_streams_overshoot_into_white_and_black(tmp_path: Path, syntax: uid.UID, signed: bool) -> None:
    high, low = (2047, -2048) if signed else (4095, 0)
    pixels = np.full((32, 32), low, np.int16 if signed else np.uint16)
    pixels[8:24, 8:24] = high - RNG.integers(0, 3, (16, 16))
    frame = compress(pixels, syntax)
    if syntax == uid.JPEGLSNearLossless and not signed:
        frame = bytes(imagecodecs.jpegls_encode(pixels + (pixels > 100) * np.uint16(3), 2))
    path = encapsulated(tmp_path / "a", pixels, syntax, frame, **TWELVE)
    grey = read_pixels(path, ((high + low + 1) / 2, 4096))
    np.testing.assert_allclose(grey, (pixels.astype(int) - low) / 4095, atol=0.1)


def test_a_lossy_stream_with_other_bits_is_refused(tmp_path: Path) -> None:
    pixels = RAMP | np.uint16(0x5000)
    refused(
        encapsulated(tmp_path / "a", pixels, uid.JPEG2000, **TWELVE), r"above the 12 of its BitsStored \(0028,0101\)"
    )
    twelve = encapsulated(tmp_path / "b", RAMP, uid.JPEGLSNearLossless, **TWELVE)
    np.testing.assert_allclose(read_pixels(twelve, (2048, 4096)), windowed(RAMP, 2048, 4096), atol=1e-3)


@pytest.mark.parametrize("syntax", NATIVE, **by_name)
@pytest.mark.parametrize("shape", [(5, 33, 31), (3, 7, 1), (2, 5, 16), (1, 3, 5), (9, 1, 1)], ids=str)
def test_frames_of_single_bits_follow_each_other_bit_by_bit(
    tmp_path: Path, syntax: uid.UID, shape: tuple[int, int, int]
) -> None:
    bits = RNG.integers(0, 2, shape).astype(np.uint8)
    tags = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "PixelData": pack_bits(bits)}
    path = write_dicom(tmp_path / "a", bits, TransferSyntaxUID=syntax, **tags)
    for picture, frame in zip(list_pictures(path), bits, strict=True):
        assert np.array_equal(read_pixels(picture), frame)
        assert np.array_equal(read_mask_pixels(picture), frame)


def test_single_bits_in_words_of_a_big_endian_file(tmp_path: Path) -> None:
    bits = RNG.integers(0, 2, (2, 5, 7)).astype(np.uint8)
    packed = np.frombuffer(pack_bits(bits), "<u2").astype(">u2").tobytes()
    data = make_dicom(bits, TransferSyntaxUID=uid.ExplicitVRBigEndian, BitsAllocated=1, BitsStored=1, HighBit=0)
    data.PixelData = packed
    data["PixelData"].VR = "OW"
    data.save_as(tmp_path / "a", enforce_file_format=True)
    assert np.array_equal([read_pixels(picture) for picture in list_pictures(tmp_path / "a")], bits)


RGB = RNG.integers(0, 256, (3, 6, 8, 3)).astype(np.uint8)
GREY = RNG.integers(0, 256, (3, 6, 8)).astype(np.uint8)
CONTRADICTIONS = {
    "decompressed, still 4:2:2": (RGB, {"PhotometricInterpretation": "YBR_FULL_422"}),
    "4:2:2, labelled RGB": (RGB, {"PixelData": RGB.tobytes()[: RGB.size * 2 // 3]}),
    "4:2:2, labelled YBR_FULL": (
        RGB,
        {"PixelData": RGB.tobytes()[: RGB.size * 2 // 3], "PhotometricInterpretation": "YBR_FULL"},
    ),
    "RGBA": (RGB[:1], {"PixelData": RGB.tobytes()[: 6 * 8 * 4]}),
    "one frame decompressed, still 4:2:2": (RGB[0], {"PhotometricInterpretation": "YBR_FULL_422"}),
    "more frames": (GREY, {"NumberOfFrames": 2}),
    "fewer frames": (GREY, {"NumberOfFrames": 4}),
    "no number of frames": (GREY, {"NumberOfFrames": None}),
    "16 bits, labelled 8": (GREY.astype(np.uint16), {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}),
    "8 bits, labelled 16": (GREY, {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}),
    "rows left out": (GREY[0], {"Rows": 5}),
    "columns left out": (GREY[0], {"Columns": 7}),
    "more bits": (GREY, {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}),
    "rows too many": (GREY[0], {"Rows": 7}),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
@pytest.mark.parametrize("syntax", NATIVE, **by_name)
def test_a_length_that_contradicts_the_header(tmp_path: Path, case: str, syntax: uid.UID) -> None:
    pixels, tags = CONTRADICTIONS[case]
    path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **tags)
    for picture in list_pictures(path):
        refused(
            str(picture),
            r"bytes of PixelData, while \d frames? of \d rows and \d columns in .* would take \d+, expected",
        )


def test_padding_is_no_contradiction(tmp_path: Path) -> None:
    grey = RNG.integers(1, 256, (5, 5)).astype(np.uint8)
    for excess in (1, 3):
        path = write_dicom(tmp_path / "a", grey, PixelData=grey.tobytes() + bytes(excess))
        np.testing.assert_allclose(read_pixels(path), grey / 255, atol=1e-6)
    refused(write_dicom(tmp_path / "b", grey, PixelData=grey.tobytes() + b"\0\0\1"), "28 bytes of PixelData")
    refused(write_dicom(tmp_path / "c", grey, PixelData=grey.tobytes() + bytes(5)), "30 bytes of PixelData")


def test_subsampled_colours(tmp_path: Path) -> None:
    grey = RNG.integers(0, 256, (2, 4, 6)).astype(np.uint8)
    subsampled = np.full((2, 4, 3, 4), 128, np.uint8)  # Y Y B R
    subsampled[..., :2] = grey.reshape(2, 4, 3, 2)
    tags = {"PhotometricInterpretation": "YBR_FULL_422", "PixelData": subsampled.tobytes()}
    path = write_dicom(tmp_path / "a", np.stack([grey] * 3, -1), **tags)
    for index, frame in enumerate(grey):
        np.testing.assert_allclose(read_pixels(f"{path}#frame={index}"), np.stack([frame / 255] * 3, -1), atol=1e-6)
    odd = write_dicom(tmp_path / "b", RGB[0, :, :7], PhotometricInterpretation="YBR_FULL_422")
    refused(odd, r"in YBR_FULL_422 with 7 as its Columns \(0028,0011\), expected an even number")


@pytest.mark.parametrize("syntax", [*NATIVE[:2], uid.RLELossless, uid.JPEGLSLossless], **by_name)
@pytest.mark.parametrize("photometric", ["YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "HSV", "CMYK"])
def test_colour_spaces_that_are_not_converted_are_refused(tmp_path: Path, syntax: uid.UID, photometric: str) -> None:
    tags = {"TransferSyntaxUID": syntax, "PhotometricInterpretation": photometric}
    if syntax.is_encapsulated:
        tags["PixelData"] = encapsulate([compress(RGB[0], syntax)])
    refused(write_dicom(tmp_path / "a", RGB[0], **tags), rf"{photometric}.*PhotometricInterpretation \(0028,0004\)")


def test_ybr_of_16_bits_is_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", RGB[0].astype(np.uint16), PhotometricInterpretation="YBR_FULL")
    refused(path, r"in YBR_FULL with 16 as its BitsStored \(0028,0101\), expected 8")
    tags = {"PhotometricInterpretation": "YBR_FULL", "BitsStored": 8, "HighBit": 7}
    path = write_dicom(tmp_path / "b", RGB[0].astype(np.uint16), **tags)
    refused(path, r"in YBR_FULL with 16 as its BitsAllocated \(0028,0100\), expected 8")


STREAMS = [uid.JPEGBaseline8Bit, uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.JPEGLSLossless, uid.JPEGLossless]


def stream_of(pixels: np.ndarray, syntax: uid.UID) -> bytes:
    if syntax != uid.JPEGBaseline8Bit:
        return compress(pixels, syntax)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=100, subsampling=0)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", STREAMS, **by_name)
def test_a_stream_of_another_size_is_refused(tmp_path: Path, syntax: uid.UID) -> None:
    pixels = np.tile(GREY[0], (4, 4))
    frame = stream_of(pixels, syntax)
    for tags in ({"Rows": 32, "Columns": 24}, {"Rows": 12}):
        path = encapsulated(tmp_path / "a", pixels, syntax, frame, **tags)
        refused(path, r"stream of 24 rows and 32 columns, 1 x 8 bits a pixel, while the header says")
    colour = encapsulated(tmp_path / "b", np.stack([pixels] * 3, -1), syntax, frame)
    refused(colour, "1 x 8 bits a pixel, while the header says 24 and 32, 3 x 8")


@pytest.mark.parametrize("stored", [8, 12])
@pytest.mark.parametrize("syntax", STREAMS, **by_name)
def test_a_stream_of_8_bits_may_be_allocated_16(tmp_path: Path, syntax: uid.UID, stored: int) -> None:
    pixels = np.tile(np.add.outer(np.arange(24), np.arange(32)), (2, 2)).astype(np.uint8)
    tags = {"BitsAllocated": 16, "BitsStored": stored, "HighBit": stored - 1}
    path = encapsulated(tmp_path / "a", pixels, syntax, stream_of(pixels, syntax), **tags)
    np.testing.assert_allclose(read_pixels(path, (128, 256)), windowed(pixels, 128, 256), atol=0.01)


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLossless], **by_name)
def test_a_stream_of_more_bits_than_allocated_is_refused(tmp_path: Path, syntax: uid.UID) -> None:
    refused(encapsulated(tmp_path / "a", GREY[0], syntax, compress(RAMP[:6, :8].copy(), syntax)), "1 x 16 bits a pixel")


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless])
def test_the_planes_of_compressed_colours_are_the_streams_business(tmp_path: Path, syntax: uid.UID) -> None:
    colours = np.tile(np.array([250, 100, 5], np.uint8), (16, 24, 1))
    colours[:8] = 40
    path = encapsulated(tmp_path / "a", colours, syntax, stream_of(colours, syntax), PlanarConfiguration=1)
    if syntax == uid.JPEGBaseline8Bit:
        path = encapsulated(
            tmp_path / "a",
            colours,
            syntax,
            stream_of(colours, syntax),
            PlanarConfiguration=1,
            PhotometricInterpretation="YBR_FULL_422",
        )
    np.testing.assert_allclose(read_pixels(path) * 255, colours, atol=12)


def frames_of(count: int, syntax: uid.UID) -> list[bytes]:
    return [compress(np.tile(frame, (3, 3)), syntax) for frame in GREY[:count]]


BOXES = {
    "offsets": lambda frames: {"PixelData": encapsulate(frames)},
    "no offsets": lambda frames: {"PixelData": encapsulate(frames, has_bot=False)},
    "extended offsets": lambda frames: dict(
        zip(
            ("PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
            encapsulate_extended(frames),
            strict=True,
        )
    ),
    "fragments": lambda frames: {"PixelData": encapsulate(frames, fragments_per_frame=2, has_bot=False)},
}


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless], **by_name)
def test_compressed_frames_are_counted(tmp_path: Path, syntax: uid.UID, box: str) -> None:
    pixels = np.tile(GREY, (1, 3, 3))
    tags = BOXES[box](frames_of(3, syntax))
    for stated in (3, 2, 4, None):
        path = write_dicom(tmp_path / "a", pixels, TransferSyntaxUID=syntax, **tags, NumberOfFrames=stated)
        for index, picture in enumerate(list_pictures(path)):
            if stated == 3:
                np.testing.assert_allclose(read_pixels(picture), pixels[index] / 255, atol=1e-6)
            else:
                refused(
                    str(picture), rf"holds 3 compressed frames and says that it holds {stated or 1}, expected NumberOf"
                )


@pytest.mark.parametrize("syntax", [*LOSSLESS, uid.JPEGBaseline8Bit, uid.JPEGLSNearLossless], **by_name)
@pytest.mark.parametrize("meta", [None, uid.ExplicitVRLittleEndian])
def test_compressed_pixels_without_their_transfer_syntax(tmp_path: Path, syntax: uid.UID, meta: uid.UID | None) -> None:
    pixels = np.tile(GREY[0], (3, 3))
    path = encapsulated(tmp_path / "a", pixels, syntax, stream_of(pixels, syntax))
    expected = read_pixels(path)
    relabel(path, syntax, meta)
    assert np.array_equal(read_pixels(path), expected)


def relabel(path: Path, syntax: uid.UID, other: uid.UID | None) -> None:
    """Exchange a file's transfer syntax for another, or for none; pydicom would not write either."""
    content, length = path.read_bytes(), len(syntax) + len(syntax) % 2
    element = b"\x02\0\x10\0UI" + length.to_bytes(2, "little")
    assert content.count(element) == 1
    new = element + other.encode().ljust(length, b"\0") if other else b""
    path.write_bytes(content.replace(element + syntax.encode().ljust(length, b"\0"), new))


def test_compressed_pixels_of_no_known_kind(tmp_path: Path) -> None:
    relabel(encapsulated(tmp_path / "a", GREY[0], uid.RLELossless, b"nothing that is known"), uid.RLELossless, None)
    refused(tmp_path / "a", r"compressed pixels, of no known kind, and without the transfer syntax of such")


def test_a_transfer_syntax_that_is_not_the_pixels(tmp_path: Path) -> None:
    pixels = np.tile(GREY[0], (3, 3))
    path = encapsulated(tmp_path / "a", pixels, uid.JPEG2000Lossless, compress(pixels, uid.JPEGLSLossless))
    refused(path, "pixels are JPEG-LS and whose transfer syntax is JPEG 2000 Image Compression")
    path = write_dicom(tmp_path / "b", pixels, TransferSyntaxUID=uid.ExplicitVRLittleEndian)
    relabel(path, uid.ExplicitVRLittleEndian, uid.RLELossless)
    refused(path, "pixels are not compressed and whose transfer syntax is RLE Lossless")


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEGBaseline8Bit])
@pytest.mark.parametrize("share", [0.5, 0.9, 1])
def test_a_jpeg_without_an_end_is_refused_whatever_decodes_it(tmp_path: Path, syntax: uid.UID, share: float) -> None:
    pixels = np.tile(RNG.integers(0, 256, (40, 40)).astype(np.uint8), (2, 2))
    frame = stream_of(pixels, syntax)
    assert read_pixels(encapsulated(tmp_path / "a", pixels, syntax, frame)).shape == (80, 80)
    cut = frame[: int(share * len(frame.removesuffix(b"\xff\xd9")))]
    refused(encapsulated(tmp_path / "a", pixels, syntax, cut), "damaged or cut off")


@pytest.mark.parametrize("allocated", [8, 16])
@pytest.mark.parametrize("stored", [6, 7])
@pytest.mark.parametrize("signed", [False, True])
def test_a_lossless_jpeg_of_few_bits(tmp_path: Path, allocated: int, stored: int, signed: bool) -> None:
    low = -(2 ** (stored - 1)) * signed
    values = np.arange(48).reshape(6, 8) + low
    pixels = (values % 2**stored).astype(f"u{allocated // 8}")
    tags = {"BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": int(signed)}
    path = encapsulated(tmp_path / "a", pixels, uid.JPEGLossless, **tags)
    np.testing.assert_array_equal(read_mask_values(path), values)


def test_a_jpeg_of_more_bits_than_its_transfer_syntax_has(tmp_path: Path) -> None:
    stream = imagecodecs.jpeg8_encode(RAMP, level=98, bitspersample=12)
    path = encapsulated(tmp_path / "a", RAMP, uid.JPEGBaseline8Bit, bytes(stream), **TWELVE)
    refused(path, "whose pixels are JPEG of 12 bits and whose transfer syntax is JPEG Baseline")


@pytest.mark.parametrize("value", [4000, 65436, -100])
def test_padding_values_are_compared_by_their_stored_bits(tmp_path: Path, value: int) -> None:
    pixels = np.array([[-100, 0], [500, 1000]], np.int16)
    wrapped = (pixels & 0xFFF).astype(np.int16)
    data = make_dicom(wrapped, **TWELVE)
    data.add_new("PixelPaddingValue", "SS" if value < 0 else "US", 3996 if value == 4000 else value)
    data.save_as(tmp_path / "a", enforce_file_format=True)
    np.testing.assert_allclose(read_pixels(tmp_path / "a"), [[0, 0], [0.5, 1]], atol=1e-6)
