"""Compressed frames: where they lie in a DICOM file, and what their own headers say."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from pydicom import uid
from pydicom.encaps import parse_basic_offsets, parse_fragments

from .dicom_file import DicomFile, PixelElement, damaged
from .errors import CORRECT_ELEMENT, ImageReadError
from .text import counted

OFFSET_TAGS = ["ExtendedOffsetTable"]
_ITEM, _DELIMITER = 0xE000FFFE, 0xE0DDFFFE
_J2K, _JP2 = b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
_SYCC = b"colr\x01\0\0\0\0\0\x12"
_JPEG = b"\xff\xd8\xff"
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\0\0\0\0"
_NO_SOF = {0xC4, 0xC8, 0xCC}

# The transfer syntaxes of streams that one decoder reads, and what they are called.
FAMILIES = {
    "JPEG": {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit},
    "lossless JPEG": {uid.JPEGLossless, uid.JPEGLosslessSV1},
    "JPEG-LS": {uid.JPEGLSLossless, uid.JPEGLSNearLossless},
    "JPEG 2000": {uid.HTJ2K, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.JPEG2000, uid.JPEG2000Lossless},
    "RLE": {uid.RLELossless},
}


@dataclass(frozen=True)
class Stream:
    """What a compressed frame says of itself."""

    family: str  # of compressions
    syntax: uid.UID  # one that decodes it
    shape: tuple[int, int, int] | None  # rows, columns and components; None for RLE, which does not say
    precision: int = 0  # bits of a component; 0 for RLE
    reversible: bool = True  # whether its compression loses nothing, as long as nothing was cut away
    transformed: bool = False  # whether it is a JPEG 2000 whose decoder makes RGB of transformed colours


def compressed_frame(path: Path, file: DicomFile, pixels: PixelElement, index: int, frames: int) -> bytes:
    """Return one frame's stream, from all of its fragments."""
    stream = file.stream
    stream.seek(pixels.start)
    starts: list[int] = parse_basic_offsets(stream)
    first = stream.tell()
    extended = file.header.get("ExtendedOffsetTable")
    if extended:
        starts = list(struct.unpack(f"<{len(extended) // 8}Q", extended))
    starts = [first + start for start in starts]
    if not starts:
        _, starts = parse_fragments(stream)
        if len(starts) != frames:
            starts = [start for start in starts if start == starts[0] or _starts_image(file, start + 8)]
    if len(starts) != frames:
        found = f"a DICOM file that holds {counted(len(starts), 'compressed frame')} and says that it holds {frames}"
        raise ImageReadError.of(path, found, "NumberOfFrames (0028,0008) to be right", CORRECT_ELEMENT)
    end = starts[index + 1] if index + 1 < frames else file.size
    fragments: list[bytes] = []
    position = starts[index]
    while position < end:
        stream.seek(position)
        tag, length = struct.unpack("<LL", stream.read(8))
        if tag == _DELIMITER and fragments:
            break
        fragments.append(stream.read(length))
        position += 8 + length
        if tag != _ITEM or position > file.size or (len(fragments) > 1 and _is_image(fragments[-1][:8])):
            raise damaged(path)
    return b"".join(fragments)


def _starts_image(file: DicomFile, position: int) -> bool:
    file.stream.seek(position)
    return _is_image(file.stream.read(8))


def _is_image(head: bytes) -> bool:
    return head.startswith((_J2K, _JP2, _JPEG)) or (head[4:] == b"\x40\0\0\0" and head[1:4] == b"\0\0\0")


def read_stream(path: Path, frame: bytes, syntax: uid.UID | None) -> Stream:
    """Read a compressed frame's own header; the syntax is None where the file names none that is compressed."""
    try:
        stream = _parse(frame)
    except (IndexError, ValueError, struct.error):
        stream = None
    if stream is None and syntax is not None:
        raise damaged(path)
    expected = "TransferSyntaxUID (0002,0010) to name the compression"
    if stream is None:
        found = "a DICOM file with compressed pixels, of no known kind, and without the transfer syntax of such"
        raise ImageReadError.of(path, found, expected, CORRECT_ELEMENT)
    is_deep = syntax == uid.JPEGBaseline8Bit and stream.precision > 8
    if syntax is not None and (is_deep or syntax not in FAMILIES[stream.family]):
        kind = f"{stream.family} of {stream.precision} bits" if is_deep else stream.family
        found = f"a DICOM file whose pixels are {kind} and whose transfer syntax is {syntax.name}"
        raise ImageReadError.of(path, found, expected, CORRECT_ELEMENT)
    # Decoders may fill up what a stream without an end lacks.
    if frame.startswith(_JPEG) and not frame.rstrip(b"\x00\xff").endswith(b"\xff\xd9"):
        raise damaged(path)
    return stream


def _parse(frame: bytes) -> Stream | None:
    if frame.startswith(_JPEG):
        return _parse_jpeg(frame)
    if frame.startswith((_J2K, _JP2)):
        return _parse_jpeg_2000(frame)
    return Stream("RLE", uid.RLELossless, None) if _is_image(frame[:8]) else None


def _segments(stream: bytes, position: int) -> list[tuple[int, bytes]]:
    """Return markers and contents of a JPEG's or JPEG 2000's header segments, up to the first data."""
    segments = []
    while True:
        while stream[position] == stream[position + 1] == 0xFF:  # fill bytes
            position += 1
        prefix, marker, length = struct.unpack_from(">BBH", stream, position)
        if prefix != 0xFF:
            raise IndexError
        segments.append((marker, stream[position + 4 : position + 2 + length]))
        if marker in {0xDA, 0x90}:  # SOS, SOT
            return segments
        position += 2 + length


def _parse_jpeg(frame: bytes) -> Stream | None:
    segments = _segments(frame, 2)
    kinds = [marker for marker, _ in segments if (0xC0 <= marker <= 0xCF and marker not in _NO_SOF) or marker == 0xF7]
    if len(kinds) != 1:
        return None
    contents = dict(segments)
    precision, rows, columns, components = struct.unpack_from(">BHHB", contents[kinds[0]])
    shape = (rows, columns, components)
    if kinds[0] == 0xF7:
        near = contents[0xDA][1 + 2 * contents[0xDA][0]]
        return Stream("JPEG-LS", uid.JPEGLSNearLossless, shape, precision, reversible=near == 0)
    if kinds[0] == 0xC3:
        return Stream("lossless JPEG", uid.JPEGLossless, shape, precision)
    syntax = uid.JPEGBaseline8Bit if precision == 8 else uid.JPEGExtended12Bit
    return Stream("JPEG", syntax, shape, precision, reversible=False)


def mark_colours(frame: bytes, photometric: str) -> bytes:
    """Return a colour JPEG that says by Adobe's marker whether its colours are YCbCr or RGB, so that decoders agree.

    What the stream says of itself (by that marker, JFIF's, or the names of its components) goes before the header.
    """
    segments = _segments(frame, 2)
    if any(marker == 0xEE and content.startswith(b"Adobe") for marker, content in segments):
        return frame
    jfif = any(marker == 0xE0 and content.startswith(b"JFIF") for marker, content in segments)
    names = next(content[6:15:3] for marker, content in segments if 0xC0 <= marker <= 0xCF and marker not in _NO_SOF)
    is_rgb = not jfif and (photometric == "RGB" or names in {b"RGB", b"rgb"})
    return frame[:2] + _ADOBE + bytes([not is_rgb]) + frame[2:]


def _parse_jpeg_2000(frame: bytes) -> Stream:
    start = frame.index(_J2K)
    contents = dict(_segments(frame, start + 2))
    size = contents[0x51]
    right, bottom, left, top = struct.unpack_from(">4L", size, 2)
    shape = (bottom - top, right - left, struct.unpack_from(">H", size, 34)[0])
    syntax = uid.HTJ2K if 0x50 in contents else uid.JPEG2000
    style = contents[0x52]
    transformed = style[4] == 1 or _SYCC in frame[:start]
    return Stream("JPEG 2000", syntax, shape, (size[36] & 0x7F) + 1, reversible=style[9] == 1, transformed=transformed)
