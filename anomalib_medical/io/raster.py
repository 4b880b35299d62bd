"""PNG, JPEG, WebP, BMP, PBM, PGM, PPM and TIFF, with their full bit depth."""

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
from PIL import Image, UnidentifiedImageError

from . import signatures
from .address import ImageAddress
from .errors import ImageReadError
from .quiet import quiet
from .raster_masks import stored_numbers
from .raster_pnm import is_pnm, pnm_count, pnm_size, read_pnm
from .raster_tiff import read_tiff, tiff_size
from .slicing import Slicing
from .windows import Window

# What Pillow, tifffile and imagecodecs raise on broken content.
_DECODING_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,  # a damaged header may promise more pixels than any machine holds
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    tifffile.TiffFileError,  # no ValueError in older versions
    zlib.error,
)
_FORMATS = "PNG, JPEG, TIFF, WebP, BMP, PBM, PGM or PPM"

_GREY_MODES = frozenset({"1", "L", "LA"})
# A JPEG of two views of one scene: the first is the picture.
_SEVERAL_ALLOWED = frozenset({"MPO"})


@contextmanager
def _decoding(path: Path) -> Generator[None, None, None]:
    """Turn whatever a decoder raises into an error that names the file, and let nothing of the file into logs."""
    try:
        # Pillow warns about files that it reads all the same, tifffile logs; those they cannot read raise.
        with quiet("PIL", "tifffile"):
            yield
    except (ImageReadError, FileNotFoundError, PermissionError):
        raise
    except Image.DecompressionBombError as error:
        size = str(error).partition(",")[0]  # "Image size (182250000 pixels) exceeds limit of 178956970 pixels"
        raise ImageReadError.of(
            path,
            found=f"a picture that Pillow takes for too large to be meant: {size}",
            expected="fewer pixels, or a TIFF, for which there is no such limit",
            remedy="Cut it into tiles, save it as TIFF, or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS "
            "(the limit is twice that) before images are read.",
        ) from error
    except _DECODING_ERRORS as error:
        kind = signatures.unusual_jpeg(path.read_bytes()) if _head(path).startswith(signatures.JPEG) else None
        if kind is not None:
            raise ImageReadError.of(
                path,
                found=kind,
                expected="a baseline or progressive JPEG of 8 bits",
                remedy="Save it as PNG or TIFF, of 16 bits where it has more than 8.",
            ) from error
        # Pillow's own words name an object in memory.
        reason = "not even its header" if isinstance(error, UnidentifiedImageError) else error
        raise ImageReadError.of(
            path,
            found=f"a damaged or truncated file ({path.stat().st_size} bytes; decoder: {reason})",
            expected=f"a complete {_FORMATS} image",
            remedy="Copy or export the file again, or remove it from the data folder.",
        ) from error


class RasterReader:
    """Reads PNG, JPEG, WebP, BMP, PBM, PGM, PPM and TIFF, with Pillow, imagecodecs, tifffile and numpy."""

    @staticmethod
    def can_read(head: bytes) -> bool:
        """Tell from a file's first bytes whether it is one of these formats."""
        known = (signatures.PNG, signatures.JPEG, signatures.BMP, *signatures.TIFF)
        return head.startswith(known) or signatures.is_webp(head) or is_pnm(head)

    @staticmethod
    def pictures(path: Path, slicing: Slicing, *, of_mask: bool = False) -> list[ImageAddress]:
        """Each file holds one picture."""
        del slicing, of_mask
        return [ImageAddress(path)]

    @staticmethod
    def size(address: ImageAddress) -> tuple[int, int]:
        """Return (height, width) from the header."""
        path = _only_picture(address)
        with _decoding(path):
            head = _head(path)
            if head.startswith(signatures.TIFF):
                return tiff_size(path)
            if is_pnm(head):
                return pnm_size(head)
            with Image.open(path) as image:
                return image.height, image.width

    @staticmethod
    def read(address: ImageAddress, window: Window | None = None) -> NDArray[np.float32]:
        """Return the pixels in [0, 1], grey as (H, W) or colour as (H, W, 3); their values have no units to window."""
        del window
        path = _only_picture(address)
        with _decoding(path):
            head = _head(path)
            if head.startswith(signatures.TIFF):
                return read_tiff(path)
            if is_pnm(head):
                content = path.read_bytes()
                _refuse_several(path, pnm_count(content), "netpbm file")
                return read_pnm(content)
            return _read_encoded(path, path.read_bytes())

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


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(signatures.HEAD_BYTES)


def _scale(pixels: NDArray[np.generic], largest: int) -> NDArray[np.float32]:
    """Drop alpha and map [0, largest] to [0, 1]."""
    if pixels.ndim == 3:
        colours = 3 if pixels.shape[-1] >= 3 else 1
        pixels = pixels[..., :colours] if colours == 3 else pixels[..., 0]
    scaled = pixels.astype(np.float32, order="C")
    scaled /= np.float32(largest)
    return scaled


def _read_encoded(path: Path, content: bytes) -> NDArray[np.float32]:
    """Read a PNG, JPEG, WebP or BMP file."""
    with Image.open(io.BytesIO(content)) as image:
        if image.format not in _SEVERAL_ALLOWED:
            _refuse_several(path, getattr(image, "n_frames", 1), f"{image.format} file")
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


def _refuse_several(path: Path, pictures: int, kind: str) -> None:
    if pictures > 1:
        raise ImageReadError.of(
            path,
            found=f"a {kind} of several pictures (an animation?)",
            expected="one picture",
            remedy="Save each picture as its own file.",
        )


def _is_complete_jpeg(content: bytes) -> bool:
    """Whether the last scan is followed by the end: imagecodecs would fill up what is missing, Pillow refuses it."""
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")
