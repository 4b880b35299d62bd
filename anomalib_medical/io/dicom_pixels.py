"""One frame of a DICOM file as stored values, decoded by pydicom's plug-ins and checked against the header."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import convert_color_space

from . import dicom_jpeg12
from .dicom_file import DicomFile, PixelElement, damaged
from .dicom_module import PixelModule, element_error, first_number, read_module
from .dicom_streams import FAMILIES, Stream, compressed_frame, mark_colours, read_stream
from .errors import CORRECT_ELEMENT, CORRECT_HEADER, ImageReadError
from .text import counted

# One plug-in of pydicom for each compression, whatever else is installed, so that pixels are the same everywhere; and
# the package that brings it.
_PLUGINS = {
    **dict.fromkeys(FAMILIES["JPEG 2000"], ("pylibjpeg", "pylibjpeg pylibjpeg-openjpeg")),
    uid.JPEGBaseline8Bit: ("pillow", "pillow"),
    uid.JPEGExtended12Bit: (dicom_jpeg12.PLUGIN, "imagecodecs"),
    **dict.fromkeys(FAMILIES["JPEG-LS"], ("pyjpegls", "pyjpegls")),
    **dict.fromkeys(FAMILIES["lossless JPEG"], ("gdcm", "python-gdcm")),
    uid.RLELossless: ("pydicom", "pydicom"),
}
_LOSSY = {uid.HTJ2K, uid.JPEG2000, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless}
_YBR = {"YBR_FULL", "YBR_FULL_422"}
_JPEG_2000_COLOURS = {"YBR_ICT", "YBR_RCT"}
dicom_jpeg12.register()


def read_frame(path: Path, file: DicomFile, index: int) -> tuple[NDArray[Any], PixelModule, bool]:
    """Return a frame as (H, W), or as (H, W, 3) in RGB, of its stored bits alone; what says so; if it is lossy."""
    syntax = file.header.file_meta.TransferSyntaxUID
    plugin = _plugin(path, syntax, file.header)
    if file.pixels is None:
        found = "a DICOM file without pixel data (the header only, or a file cut off)"
        remedy = "Export the file again with its pixels, or remove it from the data folder."
        raise ImageReadError.of(path, found, "a DICOM file with an image", remedy)
    module = read_module(path, file)
    if file.pixels.length is None or syntax.is_encapsulated:
        frame, photometric, lossy = _decompressed(path, file, file.pixels, module, index, plugin)
    else:
        frame, photometric, lossy = _native(path, file, file.pixels, module, index), module.photometric, None
    colours = (3,) if module.samples == 3 else ()
    if frame.shape != (module.rows, module.columns, *colours):
        raise damaged(path)
    frame = _stored_bits(path, frame, module, lossy)
    if photometric in _YBR:
        for keyword, bits in (("BitsStored", module.stored), ("BitsAllocated", frame.itemsize * 8)):
            if bits != 8:
                raise element_error(path, keyword, f"in YBR_FULL with {bits} as its", "8")
        frame = convert_color_space(frame, "YBR_FULL", "RGB")
    return frame, module, lossy is not None and not lossy.reversible


def _plugin(path: Path, syntax: uid.UID, header: Dataset) -> str:
    """Return the name of pydicom's decoder plug-in, empty for uncompressed data."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        found = f"a DICOM file whose transfer syntax is {_syntax_name(syntax)}"
        expected = "one that pydicom decodes: uncompressed, deflated, RLE, JPEG, JPEG-LS or JPEG 2000"
        remedy = "Convert the file to Explicit VR Little Endian."
        raise ImageReadError.of(path, found, expected, remedy) from None
    if not syntax.is_encapsulated:
        return ""
    plugin, package = _PLUGINS[syntax]
    if syntax == uid.JPEGExtended12Bit and first_number(header, "BitsStored") == 8:
        plugin, package = _PLUGINS[uid.JPEGBaseline8Bit]
    if plugin not in decoder.available_plugins:
        found = f"a DICOM file in the transfer syntax {_syntax_name(syntax)}, whose decoder is not installed"
        expected = f"pydicom's {plugin} plug-in for it"
        raise ImageReadError.of(path, found, expected, f"Install it with: pip install {package}")
    return plugin


def _syntax_name(syntax: uid.UID) -> str:
    """Name a transfer syntax, quoting only what is a UID."""
    if syntax.is_valid:
        return f"{syntax.name} ({syntax})" if syntax.is_transfer_syntax else f"unknown ({syntax})"
    return "unknown (not a UID)"


def _options(module: PixelModule, pixels: PixelElement, frames: int) -> dict[str, Any]:
    return {
        "bits_allocated": module.allocated,
        "bits_stored": module.stored,
        "columns": module.columns,
        "correct_unused_bits": False,
        "number_of_frames": frames,
        "photometric_interpretation": module.photometric,
        "pixel_keyword": pixels.keyword,
        "pixel_representation": int(module.signed),
        "pixel_vr": pixels.vr,
        "planar_configuration": module.planar,
        "raw": True,
        "rows": module.rows,
        "samples_per_pixel": module.samples,
    }


def _native(path: Path, file: DicomFile, pixels: PixelElement, module: PixelModule, index: int) -> NDArray[Any]:
    syntax = file.header.file_meta.TransferSyntaxUID
    if module.photometric == "YBR_FULL_422" and module.columns % 2:
        raise element_error(path, "Columns", f"in YBR_FULL_422 with {module.columns} as its", "an even number")
    _refuse_jpeg_2000_colours(path, module)
    _check_length(path, file, pixels, module)
    if module.allocated == 1:
        swapped = pixels.vr == "OW" and not syntax.is_little_endian
        return _one_bit(file, pixels, module, index, swapped=swapped)
    file.stream.seek(pixels.start)
    frame, _ = get_decoder(syntax).as_array(file.stream, index=index, **_options(module, pixels, module.frames))
    return np.asarray(frame)


def _one_bit(
    file: DicomFile, pixels: PixelElement, module: PixelModule, index: int, *, swapped: bool
) -> NDArray[np.uint8]:
    """Read a frame of single bits, which follow each other without regard to bytes (PS3.5, 8.1.1)."""
    bits = module.rows * module.columns
    first = index * bits
    start, end = first // 16 * 2, -(-(first + bits) // 16) * 2  # whole words
    file.stream.seek(pixels.start + start)
    words = np.frombuffer(file.stream.read(end - start).ljust(end - start, b"\0"), "<u2")
    content = (words.byteswap() if swapped else words).view(np.uint8)
    unpacked = np.unpackbits(content, bitorder="little")[first - 8 * start :]
    return unpacked[:bits].reshape(module.rows, module.columns)


def _check_length(path: Path, file: DicomFile, pixels: PixelElement, module: PixelModule) -> None:
    """Compare the length of uncompressed pixels with what the header says of them, to the byte."""
    samples = 2 if module.photometric == "YBR_FULL_422" else module.samples
    pixel = samples * module.allocated
    expected = math.ceil(module.frames * module.rows * module.columns * pixel / 8)
    length = pixels.length or 0
    if pixels.start + length > file.size:
        raise damaged(path)
    excess = length - expected
    if excess in {0, expected % 2}:
        return
    # Zeros that are fewer than a row or a column of a single frame can be nothing but padding.
    if module.frames == 1 and 0 < excess * 8 < min(module.rows, module.columns) * pixel:
        file.stream.seek(pixels.start + expected)
        if not any(file.stream.read(excess)):
            return
    found = (
        f"a DICOM file with {length} bytes of {pixels.keyword}, while {counted(module.frames, 'frame')} of "
        f"{counted(module.rows, 'row')} and {counted(module.columns, 'column')} in {module.photometric}, "
        f"{samples} x {module.allocated} bits a pixel, would take {expected}"
    )
    agreement = "its header to describe its pixels: a tool may have decompressed them and left the header as it was"
    raise ImageReadError.of(path, found, agreement, CORRECT_HEADER)


def _decompressed(
    path: Path, file: DicomFile, pixels: PixelElement, module: PixelModule, index: int, plugin: str
) -> tuple[NDArray[Any], str, Stream | None]:
    """Return a frame, its photometric interpretation and, where its compression may have changed values, its header."""
    syntax = file.header.file_meta.TransferSyntaxUID
    if pixels.length is not None:
        file.stream.seek(pixels.start)
        if file.stream.read(4) != b"\xfe\xff\x00\xe0":
            found = f"a DICOM file whose pixels are not compressed and whose transfer syntax is {syntax.name}"
            expected = "TransferSyntaxUID (0002,0010) to say how the pixels are stored"
            raise ImageReadError.of(path, found, expected, CORRECT_ELEMENT)
    encoded = compressed_frame(path, file, pixels, index, module.frames)
    stream = read_stream(path, encoded, syntax if plugin else None)
    if not plugin:
        syntax = stream.syntax
        plugin = _plugin(path, syntax, file.header)
    _check_stream(path, stream, module)
    options = _options(module, pixels, 1)
    is_rgb = False
    if plugin == _PLUGINS[uid.JPEGBaseline8Bit][0]:  # its pixels have 8 bits, whatever the header allocates
        options["bits_allocated"] = options["bits_stored"] = 8
        if module.samples == 3:
            encoded, is_rgb = mark_colours(encoded, module.photometric), True
    elif stream.family == "lossless JPEG":
        # GDCM aborts the whole process where it should clear unused bits of others than 16, which we do ourselves.
        options["bits_allocated"] = options["bits_stored"] = 8 if stream.precision <= 8 else 16
    content = encapsulate([encoded], has_bot=False)
    frame, properties = get_decoder(syntax).as_array(content, index=0, decoding_plugin=plugin, **options)
    photometric = "RGB" if is_rgb else str(properties["photometric_interpretation"])
    return np.asarray(frame), photometric, stream if syntax in _LOSSY else None


def _check_stream(path: Path, stream: Stream, module: PixelModule) -> None:
    shape = (module.rows, module.columns, module.samples)
    if stream.shape not in {None, shape} or stream.precision > module.allocated or module.allocated == 1:
        rows, columns, samples = stream.shape or shape
        found = (
            f"a DICOM file with a {stream.family} stream of {rows} rows and {columns} columns, {samples} x "
            f"{stream.precision or 8} bits a pixel, while the header says {module.rows} and {module.columns}, "
            f"{module.samples} x {module.allocated}"
        )
        raise ImageReadError.of(path, found, "its header to describe its pixels", CORRECT_HEADER)
    if stream.family != "JPEG 2000":
        _refuse_jpeg_2000_colours(path, module)
    elif module.photometric in _YBR | _JPEG_2000_COLOURS and stream.transformed == (module.photometric in _YBR):
        found = "says" if stream.transformed else "does not say"
        problem = f"with a stream that {found} that it holds transformed RGB, and {module.photometric} as its"
        raise element_error(path, "PhotometricInterpretation", problem, "the two to agree")


def _refuse_jpeg_2000_colours(path: Path, module: PixelModule) -> None:
    if module.photometric in _JPEG_2000_COLOURS:
        problem = f"with {module.photometric}, which only JPEG 2000 can undo, as its"
        raise element_error(path, "PhotometricInterpretation", problem, "RGB or YBR_FULL")


def _stored_bits(path: Path, frame: NDArray[Any], module: PixelModule, lossy: Stream | None) -> NDArray[Any]:
    """Keep the stored bits alone, and extend their sign: the others may hold overlays or anything (PS3.5, 8.1.1).

    A lossy compression may also have overshot the range by a little, which is cut.
    """
    unused = frame.itemsize * 8 - module.stored
    if frame.dtype.kind == "f" or module.allocated == 1 or unused <= 0:
        return frame
    stored: NDArray[Any] = (frame << unused) >> unused
    if lossy is None:
        return stored
    low, high = module.value_range
    margin = 2**module.stored // 8
    least, most = int(frame.min()), int(frame.max())
    if low - margin <= least and most <= high + margin:
        return np.asarray(np.clip(frame, low, high))
    unextended = module.signed and least >= 0 and most < 2**module.stored + margin
    if lossy.reversible or unextended:
        return stored
    problem = f"with bits in a lossy {lossy.family} stream above the {module.stored} of its"
    raise element_error(path, "BitsStored", problem, "none there")
