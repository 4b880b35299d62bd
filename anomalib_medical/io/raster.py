"""PNG, JPEG, WebP, BMP, PBM, PGM, PPM and TIFF, with their full bit depth.

Of masks the numbers are read that a file stores, not what they look like.
"""

from __future__ import annotations

import io
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from . import signatures
from .errors import DECODING_ERRORS, Errors, ImageReadError, quiet
from .files import ImageAddress
from .masks import halved
from .options import Slicing, Window
from .raster_pnm import is_pnm, pnm_count, pnm_numbers, pnm_size, read_pnm
from .raster_tiff import palette_indices, read_tiff, tiff_numbers, tiff_size
from .signatures import head_of

_FORMATS = "PNG, JPEG, TIFF, WebP, BMP, PBM, PGM or PPM"
_ERRORS: Errors = (*DECODING_ERRORS, tifffile.TiffFileError)  # the latter is no ValueError in older versions
_PNG_BIT_DEPTH = 24  # where its header has it
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
        pixels = str(error).partition(",")[0]  # "Image size (182250000 pixels) exceeds limit of 178956970 pixels"
        found = f"a picture that Pillow takes for too large to be meant: {pixels}"
        expected = "fewer pixels, or a TIFF, for which there is no such limit"
        remedy = (
            "Cut it into tiles, save it as TIFF, or, if you trust the file, raise PIL.Image.MAX_IMAGE_PIXELS "
            "(the limit is twice that) before images are read."
        )
        raise ImageReadError.of(path, found, expected, remedy) from error
    except _ERRORS as error:
        kind = signatures.unusual_jpeg(path.read_bytes()) if head_of(path).startswith(signatures.JPEG) else None
        if kind is not None:
            remedy = "Save it as PNG or TIFF, of 16 bits where it has more than 8."
            raise ImageReadError.of(path, kind, "a baseline or progressive JPEG of 8 bits", remedy) from error
        # Pillow's own words name an object in memory.
        reason = "not even its header" if isinstance(error, UnidentifiedImageError) else error
        raise ImageReadError.damaged(path, f"a complete {_FORMATS} image", reason) from error


def can_read(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is one of these formats."""
    known = (signatures.PNG, signatures.JPEG, signatures.BMP, *signatures.TIFF)
    return head.startswith(known) or signatures.is_webp(head) or is_pnm(head)


def pictures(path: Path, slicing: Slicing, *, of_mask: bool = False) -> list[ImageAddress]:
    """Each file holds one picture."""
    del slicing, of_mask
    return [ImageAddress(path)]


def size(address: ImageAddress) -> tuple[int, int]:
    """Return (height, width) from the header."""
    path = _only_picture(address)
    with _decoding(path):
        head = head_of(path)
        if head.startswith(signatures.TIFF):
            return tiff_size(path)
        if is_pnm(head):
            return pnm_size(head)
        with Image.open(path) as image:
            return image.height, image.width


def read(address: ImageAddress, window: Window | None = None) -> NDArray[np.float32]:
    """Return the pixels in [0, 1], grey as (H, W) or colour as (H, W, 3); their values have no units to window."""
    del window
    path = _only_picture(address)
    with _decoding(path):
        head = head_of(path)
        if head.startswith(signatures.TIFF):
            return read_tiff(path)
        if is_pnm(head):
            content = path.read_bytes()
            _refuse_several(path, pnm_count(content), "netpbm file")
            return read_pnm(content)
        return _read_encoded(path, path.read_bytes())


def read_mask(address: ImageAddress, image: ImageAddress | None = None) -> NDArray[np.generic]:
    """Return the stored numbers, see `_stored_numbers`, or colours from 0 to 255."""
    del image
    path = _only_picture(address)
    with _decoding(path):
        numbers = _stored_numbers(path)
    # Rounded up, that what is not black stays so.
    return np.ceil(read(address) * 255 - 1e-4).astype(np.uint8) if numbers is None else numbers


def _only_picture(address: ImageAddress) -> Path:
    if address.selection:
        found = f"a file of one picture, asked for {str(address).rpartition('#')[2]}"
        remedy = "Leave out the # and what follows it."
        raise ImageReadError.of(address.path, found, "no selection behind the path", remedy)
    return address.path


def _scale(pixels: NDArray[np.generic], largest: int) -> NDArray[np.float32]:
    """Drop alpha and map [0, largest] to [0, 1]."""
    scaled = _without_alpha(pixels).astype(np.float32, order="C")
    scaled /= np.float32(largest)
    return scaled


def _without_alpha(pixels: NDArray[np.generic]) -> NDArray[np.generic]:
    if pixels.ndim == 2:
        return pixels
    return pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]


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
        found = f"a {kind} of several pictures (an animation?)"
        raise ImageReadError.of(path, found, "one picture", "Save each picture as its own file.")


def _is_complete_jpeg(content: bytes) -> bool:
    """Whether the last scan is followed by the end: imagecodecs would fill up what is missing, Pillow refuses it."""
    return content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")


def _stored_numbers(path: Path) -> NDArray[np.generic] | None:
    """Return the stored numbers of a mask, as (H, W), or its colours, as (H, W, 3); None where only `read` knows them.

    Palettes are read as indices if index 0 is black, and colours otherwise. JPEG and most WebP are lossy, inside
    TIFF too: what is brighter than half becomes 255, all else 0.
    """
    content = path.read_bytes()
    if content.startswith(signatures.TIFF):
        return tiff_numbers(path, content)
    if is_pnm(content[: signatures.HEAD_BYTES]):
        return pnm_numbers(content) if pnm_count(content) == 1 else None
    with Image.open(io.BytesIO(content)) as image:
        return _of_image(path, content, image)


def _of_image(path: Path, content: bytes, image: Image.Image) -> NDArray[np.generic] | None:
    if image.format == "WEBP" and getattr(image, "n_frames", 1) > 1:
        return None
    if image.mode == "P":
        return palette_indices(np.asarray(image), np.asarray(image.convert("RGB")))
    if content.startswith(signatures.JPEG) or (image.format == "WEBP" and signatures.is_lossy_webp(content)):
        return halved(path, np.asarray(image.convert("L" if image.mode == "L" else "RGB")))
    if image.format == "PNG":
        return _of_png(content)
    return np.asarray(image) if image.mode in {"1", "L", "RGB"} else None


def _of_png(content: bytes) -> NDArray[np.generic]:
    pixels = _without_alpha(imagecodecs.png_decode(content))
    bits = content[_PNG_BIT_DEPTH]
    # Fewer than 8 bits come stretched to 255.
    return np.asarray(pixels // (255 // (2**bits - 1)) if bits < 8 else pixels)
