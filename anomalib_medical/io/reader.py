"""One way to read an image, whatever its format: numpy arrays, of which ``data/images.py`` makes tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from . import dicom, raster
from .errors import ImageReadError
from .files import ImageAddress, irregular, on_disk
from .masks import MaskRule
from .options import Slicing, Window
from .signatures import describe, head_of


class ImageReader(Protocol):
    """A module that reads one family of file formats."""

    def can_read(self, head: bytes) -> bool:
        """Tell from a file's first ``HEAD_BYTES`` bytes whether this reader is the one."""

    def pictures(self, path: Path, slicing: Slicing, *, of_mask: bool = False) -> list[ImageAddress]:
        """Return the addresses of a file's pictures, from its header; a file of one picture has no selection."""

    def size(self, address: ImageAddress) -> tuple[int, int]:
        """Return (height, width) from the header, without decoding the pixels."""

    def read(self, address: ImageAddress, window: Window | None = None) -> NDArray[np.float32]:
        """Return the pixels in [0, 1], grey as (H, W) or colour as (H, W, 3)."""

    def read_mask(self, address: ImageAddress, image: ImageAddress | None = None) -> NDArray[Any]:
        """Return the stored values, as (H, W), or colours as (H, W, 3), laid over the image where places are known."""


def _nifti_readers() -> tuple[ImageReader, ...]:
    try:
        from . import nifti
    except ModuleNotFoundError as error:
        if error.name != "nibabel":
            raise
        return ()
    return (nifti,)


FORMATS = "PNG, JPEG, TIFF, WebP, BMP, PBM, PGM, PPM, DICOM or NIfTI"
# DICOM first: its preamble may be the head of a TIFF.
_READERS: tuple[ImageReader, ...] = (dicom, raster, *_nifti_readers())
_HAS_NIFTI = len(_READERS) == 3


def require_file(path: Path) -> None:
    """Refuse pipes, devices, folders and broken links, which are not opened; what does not exist passes."""
    if (kind := irregular(path)) is not None:
        remedy = "Put the image itself there, or remove it from the data folder."
        raise ImageReadError.of(path, kind, "a file", remedy)


def _reader_of(head: bytes) -> ImageReader | None:
    return next((reader for reader in _READERS if reader.can_read(head)), None)


def _find_reader(path: Path) -> ImageReader:
    require_file(path)
    head = head_of(path)
    if (reader := _reader_of(head)) is not None:
        return reader
    if not _HAS_NIFTI and path.name.lower().endswith((".nii", ".nii.gz")):
        found = "a NIfTI file, by its name, whose reader is not installed"
        raise ImageReadError.of(path, found, "the package nibabel", "Install it with: pip install nibabel")
    remedy = "Convert the file to one of these, or remove it from the data folder."
    raise ImageReadError.of(path, describe(head), f"a {FORMATS} file", remedy)


def is_image(path: Path) -> bool:
    """Tell from a file's content whether one of the readers knows its format."""
    return _reader_of(head_of(path)) is not None


def holds_volume(path: Path) -> bool:
    """Tell from a file's content whether it holds volumes, as NIfTI does, rather than pictures."""
    return _HAS_NIFTI and _reader_of(head_of(path)) is _READERS[-1]


def list_pictures(path: str | Path, slicing: Slicing | None = None, *, of_mask: bool = False) -> list[ImageAddress]:
    """List the pictures in a file: one for a plain image, one a frame or slice for multi-frame DICOM and NIfTI.

    Args:
        path: Image file.
        slicing: How volumes become slices; all axial slices if None.
        of_mask: Whether it is a mask, which a DICOM Segmentation may be.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its header cannot be read.
        NoImageError: If it is a DICOM object that shows no patient to learn from or to score.
    """
    path = on_disk(Path(path))
    return _find_reader(path).pictures(path, slicing or Slicing(), of_mask=of_mask)


def read_pixels(
    path: str | Path | ImageAddress, window: str | Sequence[float] | Window | None = None
) -> NDArray[np.float32]:
    """Read an image.

    The content decides the format, not the file's name. 8-bit values are divided by 255, 16-bit values by 65535 and
    12-bit TIFFs by 4095, so that no depth is lost. Floating-point TIFFs must already lie in [0, 1]. An alpha channel
    is dropped: the colours under it are the measured ones, compositing would invent others. Pixels are returned as
    stored, without EXIF rotation, as anomalib does. How DICOM and NIfTI values become grey is said at their readers.

    Args:
        path: Image file, or the address of one picture in it, such as ``brain.nii.gz#axial=57``.
        window: Which values of DICOM and NIfTI files become black and white: a name (``bone``, ``brain``, ``lung``,
            ``soft_tissue``), (center, width), or None for the file's own. Other formats have no units to apply it to.

    Returns:
        Values in [0, 1], grey as (H, W) or colour as (H, W, 3).

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its content cannot be read, or it holds several pictures and the address names none.
    """
    address = ImageAddress.parse(path)
    return _find_reader(address.path).read(address, Window.of(window))


def three_planes(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """What `read_pixels` gave as (3, H, W); grey is repeated."""
    return np.stack([pixels] * 3) if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def read_mask_values(path: str | Path | ImageAddress, image: str | Path | ImageAddress | None = None) -> NDArray[Any]:
    """Read what a mask stores; `read_mask_pixels` decides what of it belongs to the mask.

    Palettes are read as indices, where index 0 is black. In a JPEG, where compression leaves faint traces around every
    edge, what is brighter than half is 255 and all else 0. Scaled NIfTI values are scaled.

    Args:
        path: Mask file, in any format that ``read_pixels`` knows, or the address of one picture in it.
        image: The picture that the mask is laid over. Slices of NIfTI volumes are found by the affines of both, and
            resampled by nearest neighbour where the grids differ.

    Returns:
        Numbers (H, W) or colours (H, W, 3).

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its content cannot be read, or where it lies in the image is not well defined.
    """
    address = ImageAddress.parse(path)
    return _find_reader(address.path).read_mask(address, None if image is None else ImageAddress.parse(image))


def read_mask_pixels(
    path: str | Path | ImageAddress, rule: MaskRule | None = None, image: str | Path | ImageAddress | None = None
) -> NDArray[np.bool_]:
    """Read a mask, see `read_mask_values`, as (H, W): what is not 0 belongs to it, or what a rule says.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its content cannot be read, where it lies in the image is not well defined, or its values are
            fractions and the rule has no threshold.
    """
    return (rule or MaskRule()).select(ImageAddress.parse(path).path, read_mask_values(path, image))


def image_size(path: str | Path | ImageAddress) -> tuple[int, int]:
    """Return an image's (height, width) from its header.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its header cannot be read.
    """
    address = ImageAddress.parse(path)
    return _find_reader(address.path).size(address)
