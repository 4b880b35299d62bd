"""PNG, JPEG, TIFF and BMP, with their full bit depth."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from . import signatures
from .address import ImageAddress
from .errors import ImageReadError
from .quiet import quiet
from .raster_masks import stored_numbers
from .slicing import Slicing
from .windows import Window

# What Pillow, tifffile and imagecodecs raise on broken content.
_DECODING_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    EOFError,
    Image.DecompressionBombError,
    LookupError,
    MemoryError,  # a damaged header may promise more pixels than any machine holds
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_GREY_MODES = frozenset({"1", "L", "LA"})


@contextmanager
def _decoding(path: Path) -> Generator[None, None, None]:
    """Turn whatever a decoder raises into an error that names the file, and let nothing of the file into logs."""
    try:
        # Pillow warns about files that it reads all the same, tifffile logs; those they cannot read raise.
        with quiet("PIL", "tifffile"):
            yield
    except (ImageReadError, FileNotFoundError, PermissionError):
        raise
    except _DECODING_ERRORS as error:
        raise ImageReadError.of(
            path,
            found=f"a damaged or truncated file ({path.stat().st_size} bytes; decoder: {error})",
            expected="a complete PNG, JPEG, TIFF or BMP image",
            remedy="Copy or export the file again, or remove it from the data folder.",
        ) from error


class RasterReader:
    """Reads PNG, JPEG, TIFF and BMP, with Pillow, imagecodecs and tifffile."""

    @staticmethod
    def can_read(head: bytes) -> bool:
        """Tell from a file's first bytes whether it is one of the four formats."""
        return head.startswith((signatures.PNG, signatures.JPEG, signatures.BMP, *signatures.TIFF))

    @staticmethod
    def pictures(path: Path, slicing: Slicing) -> list[ImageAddress]:
        """Each file holds one picture."""
        del slicing
        return [ImageAddress(path)]

    @staticmethod
    def size(address: ImageAddress) -> tuple[int, int]:
        """Return (height, width) from the header."""
        path = _only_picture(address)
        with _decoding(path):
            if _starts_with(path, *signatures.TIFF):
                with tifffile.TiffFile(path) as tiff:
                    page = tiff.pages.first
                    return int(page.imagelength), int(page.imagewidth)
            with Image.open(path) as image:
                return image.height, image.width

    @staticmethod
    def read(address: ImageAddress, window: Window | None = None) -> NDArray[np.float32]:
        """Return the pixels in [0, 1], grey as (H, W) or colour as (H, W, 3); their values have no units to window."""
        del window
        path = _only_picture(address)
        with _decoding(path):
            if _starts_with(path, *signatures.TIFF):
                return _read_tiff(path)
            return _read_encoded(path.read_bytes())

    @classmethod
    def read_mask(cls, address: ImageAddress, image: ImageAddress | None = None) -> NDArray[np.generic]:
        """Return the stored numbers, see `stored_numbers`, or colours from 0 to 255."""
        del image
        path = _only_picture(address)
        with _decoding(path):
            numbers = stored_numbers(path)
        # Rounded up, that what is not black stays so.
        return np.ceil(cls.read(address) * 255 - 1e-4).astype(np.uint8) if numbers is None else numbers


def _only_picture(address: ImageAddress) -> Path:
    if address.selection:
        raise ImageReadError.of(
            address.path,
            found=f"a file of one picture, asked for {str(address).rpartition('#')[2]}",
            expected="no selection behind the path",
            remedy="Leave out the # and what follows it.",
        )
    return address.path


def _starts_with(path: Path, *marks: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(8).startswith(marks)


def _scale(pixels: NDArray[np.generic], largest: int) -> NDArray[np.float32]:
    """Drop alpha and map [0, largest] to [0, 1]."""
    if pixels.ndim == 3:
        colours = 3 if pixels.shape[-1] >= 3 else 1
        pixels = pixels[..., :colours] if colours == 3 else pixels[..., 0]
    scaled = pixels.astype(np.float32, order="C")
    scaled /= np.float32(largest)
    return scaled


def _read_encoded(content: bytes) -> NDArray[np.float32]:
    """Read a PNG, JPEG or BMP file."""
    with Image.open(io.BytesIO(content)) as image:
        # Pillow refuses sizes that no memory holds, imagecodecs decodes: the same pixels in about half the time, and
        # 16 bits where Pillow would cut colours down to 8.
        if image.format == "PNG":
            pixels = imagecodecs.png_decode(content)
            return _scale(pixels, np.iinfo(pixels.dtype).max)
        if image.format == "JPEG" and image.mode in {"L", "RGB"} and _is_complete_jpeg(content):
            return _scale(imagecodecs.jpeg8_decode(content), 255)
        # A palette may hold colours whatever its file is used for, and CMYK has four channels: both go through RGB.
        mode = "L" if image.mode in _GREY_MODES else "RGB"
        return _scale(np.asarray(image.convert(mode)), 255)


def _is_complete_jpeg(content: bytes) -> bool:
    """Whether the last scan is followed by the end: imagecodecs would fill up what is missing, Pillow refuses it."""
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")


def _read_tiff(path: Path) -> NDArray[np.float32]:
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) != 1:
            raise ImageReadError.of(
                path,
                found=f"a TIFF of {len(tiff.pages)} pages",
                expected="one page",
                remedy="Save each page as its own file.",
            )
        page = tiff.pages.first
        pixels = np.asarray(page.asarray())
        axes = page.axes
        photometric = page.photometric
        bits = page.bitspersample
        colormap = page.colormap

    if pixels.ndim != len(axes) or pixels.size == 0:
        # What tifffile makes of a damaged header.
        msg = f"pixels of shape {pixels.shape} for the axes {axes}"
        raise ValueError(msg)
    if axes == "SYX":
        pixels, axes = np.moveaxis(pixels, 0, -1), "YXS"
    if axes not in {"YX", "YXS"} or photometric == tifffile.PHOTOMETRIC.SEPARATED:
        raise ImageReadError.of(
            path,
            found=f"a TIFF with axes {axes} and colours {tifffile.PHOTOMETRIC(photometric).name}",
            expected="a grey or RGB picture",
            remedy="Save it as a plain grey or RGB image.",
        )
    if photometric == tifffile.PHOTOMETRIC.PALETTE and colormap is not None:
        # Some writers store an 8-bit colour times 256, others times 257: the upper byte is right for both.
        return _scale(np.moveaxis(np.asarray(colormap) >> 8, 0, -1)[pixels], 255)
    scaled = _scale_tiff(path, pixels, bits)
    return np.float32(1) - scaled if photometric == tifffile.PHOTOMETRIC.MINISWHITE else scaled


def _scale_tiff(path: Path, pixels: NDArray[np.generic], bits: int) -> NDArray[np.float32]:
    if pixels.dtype == np.bool_ or (pixels.dtype.kind == "u" and bits <= 16):
        return _scale(pixels, 1 if pixels.dtype == np.bool_ else 2**bits - 1)
    if pixels.dtype.kind != "f":
        raise ImageReadError.of(
            path,
            found=f"a TIFF of {pixels.dtype.name} values",
            expected="unsigned integers of up to 16 bits, or floating point in [0, 1]",
            remedy="Map the values to that range (the window is yours to choose) and save again.",
        )
    if not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        raise ImageReadError.of(
            path,
            found=f"{count} values that are NaN or infinite",
            expected="finite values in [0, 1]",
            remedy="Replace them (for instance by 0) and save again.",
        )
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise ImageReadError.of(
            path,
            found=f"floating-point values from {low:g} to {high:g}",
            expected="values in [0, 1]",
            remedy="Map the values to that range (the window is yours to choose) and save again.",
        )
    return _scale(pixels, 1)
