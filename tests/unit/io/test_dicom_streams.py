"""Whether a compressed frame's colours are RGB is said by the stream, before the header."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from anomalib_medical.io import ImageReadError, read_pixels
from tests.helpers.dicom_files import write_dicom

_Y, _X = np.mgrid[0:32, 0:48]
RGB = np.stack([_Y * 8, _X * 5, np.full_like(_Y, 60)], axis=-1).astype(np.uint8)
JFIF, ADOBE = 0xE0, 0xEE


def jpeg(colours: str, marker: bytes = b"", names: bytes = b"") -> bytes:
    """Encode RGB as a JPEG of these colours, with one marker instead of the encoder's, and names of components."""
    stream = imagecodecs.jpeg8_encode(RGB, level=98, outcolorspace=colours, subsampling="444")
    header, position = b"\xff\xd8" + marker, 2
    while (kind := stream[position + 1]) != 0xDA:
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
        header += b"" if kind in {JFIF, ADOBE} else stream[position:end]
        position = end
    scan = bytearray(stream[position:])
    if names:
        frame = header.index(b"\xff\xc0")
        named = bytearray(header)
        named[frame + 10 : frame + 19 : 3] = scan[5:11:2] = names
        header = bytes(named)
    return header + bytes(scan)


def adobe(transform: int) -> bytes:
    return b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0" + bytes([transform])


JPEGS = {
    "YCbCr by JFIF": jpeg("YCBCR", b"\xff\xe0\x00\x10JFIF\0\1\1\0\0\1\0\1\0\0"),
    "YCbCr by Adobe": jpeg("YCBCR", adobe(1)),
    "RGB by Adobe": jpeg("RGB", adobe(0), b"\1\2\3"),
    "RGB by Adobe and names": jpeg("RGB", adobe(0)),
    "RGB by names": jpeg("RGB"),
}


def write(path: Path, syntax: uid.UID, stream: bytes, photometric: str) -> Path:
    return write_dicom(
        path,
        RGB,
        TransferSyntaxUID=syntax,
        PixelData=encapsulate([stream]),
        PhotometricInterpretation=photometric,
    )


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("stream", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_says_what_its_colours_are(tmp_path: Path, stream: bytes, photometric: str) -> None:
    path = write(tmp_path / "a", uid.JPEGBaseline8Bit, stream, photometric)
    np.testing.assert_allclose(read_pixels(path), RGB / 255, atol=5 / 255)


@pytest.mark.parametrize(("colours", "photometric"), [("RGB", "RGB"), ("YCBCR", "YBR_FULL"), ("YCBCR", "YBR_FULL_422")])
def test_of_a_jpeg_that_does_not_the_header_says_it(tmp_path: Path, colours: str, photometric: str) -> None:
    path = write(tmp_path / "a", uid.JPEGBaseline8Bit, jpeg(colours, names=b"\1\2\3"), photometric)
    np.testing.assert_allclose(read_pixels(path), RGB / 255, atol=5 / 255)


def jpeg_2000(colours: str, transform: int, *, boxes: bool = False) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).convert(colours).save(buffer, "JPEG2000", irreversible=False, no_jp2=not boxes, mct=transform)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("colours", "transform", "photometric"),
    [("RGB", 1, "YBR_RCT"), ("RGB", 1, "YBR_ICT"), ("RGB", 1, "RGB"), ("RGB", 0, "RGB"), ("YCbCr", 0, "YBR_FULL")],
)
def test_a_jpeg_2000_that_agrees_with_its_header(
    tmp_path: Path, colours: str, transform: int, photometric: str
) -> None:
    path = write(tmp_path / "a", uid.JPEG2000Lossless, jpeg_2000(colours, transform), photometric)
    np.testing.assert_allclose(read_pixels(path), RGB / 255, atol=3 / 255)


@pytest.mark.parametrize(
    ("stream", "photometric", "says"),
    [
        (jpeg_2000("RGB", 1), "YBR_FULL", "says"),
        (jpeg_2000("RGB", 1), "YBR_FULL_422", "says"),
        (jpeg_2000("YCbCr", 0, boxes=True), "YBR_FULL", "says"),  # of which decoders make RGB
        (jpeg_2000("RGB", 0), "YBR_RCT", "does not say"),
        (jpeg_2000("YCbCr", 0), "YBR_ICT", "does not say"),
    ],
    ids=["mct", "mct 422", "boxes", "none, RCT", "none, ICT"],
)
def test_a_jpeg_2000_that_contradicts_its_header_is_refused(
    tmp_path: Path, stream: bytes, photometric: str, says: str
) -> None:
    path = write(tmp_path / "a", uid.JPEG2000Lossless, stream, photometric)
    message = rf"that {says} that it holds transformed RGB, and {photometric} as its PhotometricInter.* \(0028,0004\)"
    with pytest.raises(ImageReadError, match=message):
        read_pixels(path)
