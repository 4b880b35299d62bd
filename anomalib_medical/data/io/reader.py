"""One way to read an image, whatever its format."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from anomalib_medical.data.io.errors import ImageReadError
from anomalib_medical.data.io.raster import RasterReader
from anomalib_medical.data.io.signatures import HEAD_BYTES, describe

# By these names a folder is searched; what a file is, its content decides.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"})


class ImageReader(Protocol):
    """Reads one family of file formats."""

    def can_read(self, head: bytes) -> bool:
        """Tell from a file's first ``HEAD_BYTES`` bytes whether this reader is the one."""

    def size(self, path: Path) -> tuple[int, int]:
        """Return (height, width) from the header, without decoding the pixels."""

    def read(self, path: Path) -> NDArray[np.float32]:
        """Return the pixels in [0, 1], grey as (H, W) or colour as (H, W, 3)."""

    def is_lossy(self, head: bytes) -> bool:
        """Tell whether pixel values are only approximately those that were saved."""


_READERS: tuple[ImageReader, ...] = (RasterReader(),)


def _find_reader(path: Path) -> tuple[ImageReader, bytes]:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    for reader in _READERS:
        if reader.can_read(head):
            return reader, head
    raise ImageReadError.of(
        path,
        found=describe(head),
        expected="a PNG, JPEG, TIFF or BMP file",
        remedy="Convert the file to one of these, or remove it from the data folder.",
    )


def read_image(path: str | Path) -> torch.Tensor:
    """Read an image; grey images are repeated over the three channels.

    The content decides the format, not the file's name. 8-bit values are divided by 255, 16-bit values by 65535 and
    12-bit TIFFs by 4095, so that no depth is lost. Floating-point TIFFs must already lie in [0, 1]. An alpha channel
    is dropped: the colours under it are the measured ones, compositing would invent others. Pixels are returned as
    stored, without EXIF rotation, as anomalib does.

    Args:
        path: Image file.

    Returns:
        float32 tensor in [0, 1] of shape (3, H, W).

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its content cannot be read.
    """
    path = Path(path)
    reader, _ = _find_reader(path)
    pixels = torch.from_numpy(reader.read(path))
    if pixels.ndim == 2:
        return pixels.repeat(3, 1, 1)
    return pixels.permute(2, 0, 1).contiguous()


def read_mask(path: str | Path) -> torch.Tensor:
    """Read a mask: every pixel that is not black belongs to it.

    In a JPEG only pixels brighter than half do, since compression leaves faint traces around every edge.

    Args:
        path: Mask file, in any format that ``read_image`` knows.

    Returns:
        uint8 tensor of zeros and ones of shape (H, W).

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its content cannot be read.
    """
    path = Path(path)
    reader, head = _find_reader(path)
    pixels = reader.read(path)
    mask = pixels > (0.5 if reader.is_lossy(head) else 0)
    return torch.from_numpy(mask if mask.ndim == 2 else mask.any(axis=-1)).to(torch.uint8)


def image_size(path: str | Path) -> tuple[int, int]:
    """Return an image's (height, width) from its header.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its header cannot be read.
    """
    path = Path(path)
    reader, _ = _find_reader(path)
    return reader.size(path)
