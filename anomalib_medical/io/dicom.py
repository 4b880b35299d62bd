"""DICOM images, through pydicom and its decoder packages; the way from stored values to [0, 1] is DICOM's own.

Grey values go through the modality LUT or the rescale slope and intercept, and then through

- the window that the user names: linear by DICOM's formula, below a width of 1 by that of LINEAR_EXACT;
- else the file's VOI LUT;
- else the file's first window, by its VOI LUT function (an unknown function is taken as linear). A window that is
  inverted or no number is no window;
- else, values of up to 8 bits without modality LUT: the range that their bits can store;
- else from the smallest to the largest value of the frame.

A frame of one value without a window is black. Pixels with the padding value count for no range and are black.
MONOCHROME1 is inverted, whatever the window. Of files in the enhanced formats, rescale and window are those of the
frame. RGB, YBR_FULL and palette colours become RGB, divided by the largest value that their bits can store, and take no
window. Overlays are not burnt in, ICC profiles, presentation LUTs and supplemental palettes not applied.

Only the stored bits are pixels, in every transfer syntax. The header must have been read to its end and describe the
pixels to the byte: their length, the number of frames, a compressed stream's own size, components and bits. A file that
contradicts itself is refused, and so are HighBit other than BitsStored - 1, colour spaces other than those above, and
elements that are absent where they could mean several things; `read_module` says which could not.

Nothing of a header is quoted in warnings, logs or errors, except transfer syntax, photometric interpretation, numbers
of frames, rows, columns, samples and bits, and lengths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from .dicom_file import DicomFile, looks_like_dicom, read_header, sanitised
from .dicom_grey import GREY_TAGS, to_colour, to_grey, use_functional_groups
from .dicom_header import KIND_TAGS, is_image_class, refuse_kinds, sop_class
from .dicom_module import MODULE_TAGS, SIZE_TAGS, PixelModule, count_frames, element_error, first_number
from .dicom_pixels import read_frame
from .dicom_streams import OFFSET_TAGS
from .errors import EXPORT_AGAIN, ImageReadError, NoImageError
from .files import ImageAddress
from .masks import halved
from .options import Slicing, Window
from .text import counted


def can_read(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is DICOM, with or without preamble."""
    return looks_like_dicom(head)


def pictures(path: Path, slicing: Slicing, *, of_mask: bool = False) -> list[ImageAddress]:
    """Return one address, or one a frame: ``frame=0`` and on; a Segmentation has pictures of a mask only."""
    del slicing
    with sanitised(path), path.open("rb") as file:
        content = read_header(path, file, [*SIZE_TAGS, *KIND_TAGS])
        refuse_kinds(path, content.header, of_mask=of_mask)
        _check_size(path, content)
        frames = count_frames(path, content.header)
    if frames == 1:
        return [ImageAddress(path)]
    return [ImageAddress(path, (("frame", index),)) for index in range(frames)]


def size(address: ImageAddress) -> tuple[int, int]:
    """Return (height, width) from the header."""
    path = address.path
    with sanitised(path), path.open("rb") as file:
        content = read_header(path, file, SIZE_TAGS)
        shape = _check_size(path, content)
        _frame_index(address, content.header)
    return shape


def read(address: ImageAddress, window: Window | None = None) -> NDArray[np.float32]:
    """Return the pixels in [0, 1], grey as (H, W) or colour as (H, W, 3)."""
    path = address.path
    with sanitised(path), path.open("rb") as file:
        stored, header, module, _ = _decode(address, file)
        if stored.ndim == 3 or module.photometric == "PALETTE COLOR":
            return to_colour(path, stored, header, module)
        return to_grey(path, stored, header, module, window)


def read_mask(address: ImageAddress, image: ImageAddress | None = None) -> NDArray[Any]:
    """Return the stored values; of lossy compression 255 where they are above half, and 0 elsewhere."""
    del image
    with sanitised(address.path), address.path.open("rb") as file:
        stored, _, module, is_lossy = _decode(address, file)
        return halved(address.path, stored, module.value_range[1]) if is_lossy else stored


def _decode(address: ImageAddress, file: BinaryIO) -> tuple[NDArray[Any], Dataset, PixelModule, bool]:
    """Decode one frame, as stored except that YBR becomes RGB; with what says what it is, and whether it is lossy."""
    path = address.path
    content = read_header(path, file, [*MODULE_TAGS, *OFFSET_TAGS, *GREY_TAGS])
    _check_size(path, content)
    index = _frame_index(address, content.header)
    stored, module, is_lossy = read_frame(path, content, index)
    use_functional_groups(content.header, index)
    return stored, content.header, module, is_lossy


def _check_size(path: Path, file: DicomFile) -> tuple[int, int]:
    rows, columns = first_number(file.header, "Rows"), first_number(file.header, "Columns")
    if rows is None or columns is None:
        if rows is None and columns is None and file.pixels is None and _is_of_another_kind(file.header):
            found = "a DICOM file without an image (no rows and columns: a report or an index?)"
            remedy = "Remove it from the data folder, or export it again."
            raise NoImageError.of(path, found, "a DICOM file with an image", remedy)
        missing = "Rows" if rows is None else "Columns"
        raise element_error(path, missing, "of an image, damaged or cut off, without", "one row and column at least")
    if not (rows >= 1 and columns >= 1):
        found = f"a DICOM file of {rows:g} rows and {columns:g} columns"
        raise ImageReadError.of(path, found, "one of each at least", EXPORT_AGAIN)
    return int(rows), int(columns)


def _is_of_another_kind(header: Dataset) -> bool:
    """Tell whether a file says of itself that it is no image, as a header that was cut off in time does not."""
    name = sop_class(header)
    return name != "" and not is_image_class(name)


def _frame_index(address: ImageAddress, header: Dataset) -> int:
    frames = count_frames(address.path, header)
    if not address.selection and frames == 1:
        return 0
    names, indices = zip(*address.selection, strict=True) if address.selection else ((), ())
    if names == ("frame",) and indices[0] < frames:
        return int(indices[0])
    asked = str(address).removeprefix(str(address.path)) or "none of them by name"
    found = f"a DICOM file of {counted(frames, 'frame')}, asked for {asked}"
    expected = f"a frame from {address.path}#frame=0 to #frame={frames - 1}"
    raise ImageReadError.of(address.path, found, expected, "Name one of these.")
