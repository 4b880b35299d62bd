"""Masks in PNG, JPEG, WebP, TIFF and their like: the numbers that a file stores, not what they look like."""

from __future__ import annotations

import io
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from . import signatures
from .masks import halved
from .raster_pnm import is_pnm, pnm_count, pnm_numbers
from .raster_tiff import check_complete, is_lossy, read_tiff

_GREY_TIFF = frozenset({tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE})
_PNG_BIT_DEPTH = 24  # where its header has it


def stored_numbers(path: Path) -> NDArray[np.generic] | None:
    """Return the stored numbers of a mask, as (H, W), or its colours, as (H, W, 3); None where only `read` knows them.

    Palettes are read as indices if index 0 is black, and colours otherwise. JPEG and most WebP are lossy, inside
    TIFF too: what is brighter than half becomes 255, all else 0.
    """
    content = path.read_bytes()
    if content.startswith(signatures.TIFF):
        return _of_tiff(path, content)
    if is_pnm(content[: signatures.HEAD_BYTES]):
        return pnm_numbers(content) if pnm_count(content) == 1 else None
    with Image.open(io.BytesIO(content)) as image:
        return _of_image(path, content, image)


def _of_image(path: Path, content: bytes, image: Image.Image) -> NDArray[np.generic] | None:
    if image.format == "WEBP" and getattr(image, "n_frames", 1) > 1:
        return None
    if image.mode == "P":
        return _indices(np.asarray(image), np.asarray(image.convert("RGB")))
    if content.startswith(signatures.JPEG) or (image.format == "WEBP" and signatures.is_lossy_webp(content)):
        return halved(path, np.asarray(image.convert("L" if image.mode == "L" else "RGB")))
    if image.format == "PNG":
        return _of_png(content)
    return np.asarray(image) if image.mode in {"1", "L", "RGB"} else None


def _of_tiff(path: Path, content: bytes) -> NDArray[np.generic] | None:
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        page = tiff.pages.first
        if len(tiff.pages) != 1 or page.axes not in {"YX", "YXS", "SYX"}:
            return None
        if is_lossy(path, page):
            return halved(path, np.rint(read_tiff(path) * 255).astype(np.uint8))
        check_complete(tiff.filehandle, page)
        pixels = np.asarray(page.asarray())
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None and page.axes == "YX":
            return _indices(pixels, np.moveaxis(np.asarray(page.colormap), 0, -1)[pixels])
        pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else np.atleast_3d(pixels)
        is_grey = page.photometric in _GREY_TIFF and pixels.shape[-1] <= 2
        if not is_grey and (page.photometric != tifffile.PHOTOMETRIC.RGB or pixels.shape[-1] < 3):
            return None
        pixels = pixels[..., 0] if is_grey else pixels[..., :3]  # without alpha
        if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
            return ~pixels if pixels.dtype == np.bool_ else np.asarray(2**page.bitspersample - 1 - pixels)
        return pixels


def _indices(indices: NDArray[np.generic], colours: NDArray[np.generic]) -> NDArray[np.generic] | None:
    visible = (colours != 0).any(axis=-1)
    return None if (visible & (indices == 0)).any() else np.where(visible, indices, 0)


def _of_png(content: bytes) -> NDArray[np.generic]:
    pixels = imagecodecs.png_decode(content)
    if pixels.ndim == 3:  # without alpha
        pixels = pixels[..., :3] if pixels.shape[-1] >= 3 else pixels[..., 0]
    bits = content[_PNG_BIT_DEPTH]
    # Fewer than 8 bits come stretched to 255.
    return np.asarray(pixels // (255 // (2**bits - 1)) if bits < 8 else pixels)
