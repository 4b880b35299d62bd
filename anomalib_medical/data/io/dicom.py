"""DICOM images, through pydicom and its decoder packages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array

from . import dicom_jpeg12
from .address import ImageAddress
from .dicom_grey import GREY_TAGS, to_colour, to_grey, use_functional_groups
from .dicom_header import (
    DicomFacts,
    dicom_facts,
    first_number,
    looks_like_dicom,
    read_header,
    sanitised,
    syntax_name,
)
from .dicom_kinds import KIND_TAGS, refuse_kinds
from .errors import ImageReadError, NoImageError
from .slicing import Slicing
from .windows import Window

__all__ = ["DicomFacts", "DicomReader", "dicom_facts"]

_SIZE_TAGS = ["Columns", "NumberOfFrames", "Rows"]
_HEADER_TAGS = [*_SIZE_TAGS, *GREY_TAGS]
_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")

# One plug-in of pydicom for each compression, whatever else is installed, so that pixels are the same everywhere; and
# the package that brings it.
_JPEG_2000 = ("pylibjpeg", "pylibjpeg pylibjpeg-openjpeg")
_PLUGINS = {
    uid.HTJ2K: _JPEG_2000,
    uid.HTJ2KLossless: _JPEG_2000,
    uid.HTJ2KLosslessRPCL: _JPEG_2000,
    uid.JPEG2000: _JPEG_2000,
    uid.JPEG2000Lossless: _JPEG_2000,
    uid.JPEGBaseline8Bit: ("pillow", "pillow"),
    uid.JPEGExtended12Bit: (dicom_jpeg12.PLUGIN, "imagecodecs"),
    uid.JPEGLSLossless: ("pyjpegls", "pyjpegls"),
    uid.JPEGLSNearLossless: ("pyjpegls", "pyjpegls"),
    uid.JPEGLossless: ("gdcm", "python-gdcm"),
    uid.JPEGLosslessSV1: ("gdcm", "python-gdcm"),
    uid.RLELossless: ("pydicom", "pydicom"),
}
dicom_jpeg12.register()


class DicomReader:
    """Reads DICOM, the way from stored values to [0, 1] being DICOM's own.

    Grey values go through the modality LUT or the rescale slope and intercept, and then through

    - the window that the user names: linear by DICOM's formula, below a width of 1 by that of LINEAR_EXACT;
    - else the file's VOI LUT;
    - else the file's first window, by its VOI LUT function (an unknown function is taken as linear). A window that is
      inverted or no number is no window;
    - else, values of up to 8 bits without modality LUT: the range that their bits can store;
    - else from the smallest to the largest value of the frame.

    A frame of one value without a window is black. Pixels with the padding value count for no range and are black.
    MONOCHROME1 is inverted, whatever the window. Of files in the enhanced formats, rescale and window are those of the
    frame. RGB, YBR_FULL and palette colours become RGB, divided by the largest value that their bits can store, and
    take no window. Overlays are not burnt in, ICC profiles and presentation LUTs not applied.

    Nothing of a header is quoted in warnings, logs or errors, except transfer syntax, numbers of frames and rows and
    columns.
    """

    @staticmethod
    def can_read(head: bytes) -> bool:
        """Tell from a file's first bytes whether it is DICOM, with or without preamble."""
        return looks_like_dicom(head)

    @staticmethod
    def pictures(path: Path, slicing: Slicing, *, of_mask: bool = False) -> list[ImageAddress]:
        """Return one address, or one a frame: ``frame=0`` and on; a Segmentation has pictures of a mask only."""
        del slicing
        with sanitised(path), path.open("rb") as file:
            header = read_header(file, [*_SIZE_TAGS, *KIND_TAGS])
            if not of_mask:
                refuse_kinds(path, header)
            _check_size(path, header)
            frames = _frames(path, header)
        if frames == 1:
            return [ImageAddress(path)]
        return [ImageAddress(path, (("frame", index),)) for index in range(frames)]

    @staticmethod
    def size(address: ImageAddress) -> tuple[int, int]:
        """Return (height, width) from the header."""
        path = address.path
        with sanitised(path), path.open("rb") as file:
            header = read_header(file, _SIZE_TAGS)
            size = _check_size(path, header)
            _frame_index(address, header)
        return size

    @staticmethod
    def read(address: ImageAddress, window: Window | None = None) -> NDArray[np.float32]:
        """Return the pixels in [0, 1], grey as (H, W) or colour as (H, W, 3)."""
        path = address.path
        with sanitised(path), path.open("rb") as file:
            stored, header = _decode(address, file)
            if stored.ndim == 3 or header.PhotometricInterpretation == "PALETTE COLOR":
                return to_colour(path, stored, header)
            return to_grey(path, stored, header, window)

    @staticmethod
    def read_mask(address: ImageAddress) -> NDArray[np.bool_]:
        """Return where the stored values, in a colour image those of any channel, are not zero."""
        with sanitised(address.path), address.path.open("rb") as file:
            stored, _ = _decode(address, file)
        return np.asarray(stored != 0 if stored.ndim == 2 else (stored != 0).any(axis=-1))


def _decode(address: ImageAddress, file: BinaryIO) -> tuple[NDArray[Any], Dataset]:
    """Decode one frame, as stored except that YBR becomes RGB, and return it with its header."""
    path = address.path
    header = read_header(file, _HEADER_TAGS)
    syntax = header.file_meta.TransferSyntaxUID
    _check_size(path, header)
    index = _frame_index(address, header)
    plugin = _plugin(path, header)
    pixels_head = file.read(8)
    explicit = pixels_head[4:6].isalpha()
    # pydicom decodes one frame straight from the file, but not where the data set is deflated or, as some software
    # writes it, not encoded as its transfer syntax says.
    if syntax.is_deflated or (pixels_head and explicit == syntax.is_implicit_VR):
        file.seek(0)
        whole = dcmread(file, force=True)
        _check_pixels(path, present=any(keyword in whole for keyword in _PIXEL_KEYWORDS))
        available = len(whole.get("PixelData", b""))
        stored = pixel_array(whole, index=index, decoding_plugin=plugin)
    else:
        _check_pixels(path, present=len(pixels_head) == 8)
        available = path.stat().st_size - file.tell() - (4 if explicit else 0)
        stored = pixel_array(file, index=index, transfer_syntax_uid=syntax, decoding_plugin=plugin)
    if header.get("BitsAllocated") == 1 and available < math.ceil((index + 1) * stored.size / 8):
        msg = "pydicom takes missing bits for zeros."
        raise ValueError(msg)
    use_functional_groups(header, index)
    return stored, header


def _check_size(path: Path, header: Dataset) -> tuple[int, int]:
    rows, columns = first_number(header, "Rows"), first_number(header, "Columns")
    if rows is None or columns is None:
        raise NoImageError.of(
            path,
            found="a DICOM file without an image (no rows and columns: a report, an index or a file cut off?)",
            expected="a DICOM file with an image",
            remedy="Remove it from the data folder, or export it again.",
        )
    if not (rows >= 1 and columns >= 1):
        raise ImageReadError.of(
            path,
            found=f"a DICOM file of {rows:g} rows and {columns:g} columns",
            expected="one of each at least",
            remedy="Export the file again, or remove it from the data folder.",
        )
    return int(rows), int(columns)


def _check_pixels(path: Path, *, present: bool) -> None:
    if not present:
        raise ImageReadError.of(
            path,
            found="a DICOM file without pixel data (the header only, or a file cut off)",
            expected="a DICOM file with an image",
            remedy="Export the file again with its pixels, or remove it from the data folder.",
        )


def _frames(path: Path, header: Dataset) -> int:
    frames = first_number(header, "NumberOfFrames")
    if frames is None or frames == 0:  # pydicom reads 0 as 1 as well
        return 1
    if not 1 <= frames < 2**31:
        raise ImageReadError.of(
            path,
            found="a DICOM file whose number of frames is no positive number",
            expected="one frame or more",
            remedy="Export the file again, or remove it from the data folder.",
        )
    return int(frames)


def _frame_index(address: ImageAddress, header: Dataset) -> int:
    frames = _frames(address.path, header)
    if not address.selection and frames == 1:
        return 0
    names, indices = zip(*address.selection, strict=True) if address.selection else ((), ())
    if names == ("frame",) and indices[0] < frames:
        return int(indices[0])
    asked = str(address).removeprefix(str(address.path)) or "none of them by name"
    raise ImageReadError.of(
        address.path,
        found=f"a DICOM file of {frames} frames, asked for {asked}",
        expected=f"a frame from {address.path}#frame=0 to #frame={frames - 1}",
        remedy="Name one of these.",
    )


def _plugin(path: Path, header: Dataset) -> str:
    """Return the name of pydicom's decoder plug-in, empty for uncompressed data."""
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        decoder = None
    if decoder is None:
        raise ImageReadError.of(
            path,
            found=f"a DICOM file whose transfer syntax is {syntax_name(syntax)}",
            expected="one that pydicom decodes: uncompressed, deflated, RLE, JPEG, JPEG-LS or JPEG 2000",
            remedy="Convert the file to Explicit VR Little Endian.",
        )
    if not syntax.is_encapsulated:
        return ""
    plugin, package = _PLUGINS[syntax]
    if syntax == uid.JPEGExtended12Bit and first_number(header, "BitsStored") == 8:
        plugin, package = _PLUGINS[uid.JPEGBaseline8Bit]
    if plugin not in decoder.available_plugins:
        raise ImageReadError.of(
            path,
            found=f"a DICOM file in the transfer syntax {syntax_name(syntax)}, whose decoder is not installed",
            expected=f"pydicom's {plugin} plug-in for it",
            remedy=f"Install it with: pip install {package}",
        )
    return plugin
