"""TIFF: grey, palette, RGB and YCbCr, with their full bit depth; other colours are refused by name."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import COMPRESSION, PHOTOMETRIC

from .dicom_streams import read_stream
from .errors import ImageReadError
from .masks import halved
from .signatures import is_lossy_webp

_GREY = frozenset({PHOTOMETRIC.MINISWHITE, PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MASK})
_PLAIN = _GREY | {PHOTOMETRIC.PALETTE, PHOTOMETRIC.RGB}
# With these tifffile itself makes RGB of YCbCr; with those below it returns the stored samples.
_JPEG = frozenset({COMPRESSION.OJPEG, COMPRESSION.JPEG, COMPRESSION.ALT_JPEG, COMPRESSION.JPEG_LOSSY})
_JPEG_2000 = frozenset(
    {COMPRESSION.JPEG2000, COMPRESSION.APERIO_JP2000_YCBC, COMPRESSION.APERIO_JP2000_RGB, COMPRESSION.JPEG_2000_LOSSY}
)
_KEEPS_SAMPLES = frozenset(
    COMPRESSION[name] for name in ("NONE", "LZW", "ADOBE_DEFLATE", "DEFLATE", "LZMA", "PACKBITS", "ZSTD")
)
_PHOTOMETRIC, _COEFFICIENTS, _BLACK_WHITE = 262, 529, 532
_ASSOCIATED_ALPHA = 1


def tiff_size(path: Path) -> tuple[int, int]:
    """Return (height, width) from the header."""
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return int(page.imagelength), int(page.imagewidth)


def read_tiff(path: Path) -> NDArray[np.float32]:
    """Return the pixels in [0, 1], grey as (H, W) or colour as (H, W, 3)."""
    with tifffile.TiffFile(path) as tiff:
        if len(tiff.pages) != 1:
            found = f"a TIFF of {len(tiff.pages)} pages"
            raise ImageReadError.of(path, found, "one page", "Save each page as its own file.")
        page = tiff.pages.first
        if (colours := _colours_not_read(page)) is not None:
            expected = "a grey, palette, RGB or YCbCr picture"
            raise ImageReadError.of(path, f"a TIFF of {colours}", expected, "Save it as plain grey or RGB.")
        _check_complete(tiff.filehandle, page)
        pixels, axes = np.asarray(page.asarray()), page.axes

    if pixels.ndim != len(axes) or pixels.size == 0:
        # What tifffile makes of a damaged header.
        msg = f"pixels of shape {pixels.shape} for the axes {axes}"
        raise ValueError(msg)
    if axes == "SYX":
        pixels, axes = np.moveaxis(pixels, 0, -1), "YXS"
    if axes not in {"YX", "YXS"}:
        remedy = "Save each plane as its own file."
        raise ImageReadError.of(path, f"a TIFF with the axes {axes}", "one plane of pixels", remedy)
    samples = pixels if axes == "YXS" else pixels[..., None]
    if page.photometric == PHOTOMETRIC.PALETTE:
        return _look_up(np.asarray(page.colormap), samples[..., 0])
    scaled = _scale(path, samples, page.bitspersample)
    if page.photometric == PHOTOMETRIC.YCBCR and not _is_converted(page):
        return _ycbcr_to_rgb(page, scaled)
    return _drop_extra(page, scaled)


def tiff_numbers(path: Path, content: bytes) -> NDArray[np.generic] | None:
    """Return a mask's stored numbers, or its colours, as (H, W, 3); None where only `read_tiff` knows them."""
    with tifffile.TiffFile(io.BytesIO(content)) as tiff:
        page = tiff.pages.first
        if len(tiff.pages) != 1 or page.axes not in {"YX", "YXS", "SYX"}:
            return None
        if _is_lossy(path, page):
            return halved(path, np.rint(read_tiff(path) * 255).astype(np.uint8))
        _check_complete(tiff.filehandle, page)
        pixels = np.asarray(page.asarray())
        if page.photometric == PHOTOMETRIC.PALETTE and page.colormap is not None and page.axes == "YX":
            return palette_indices(pixels, np.moveaxis(np.asarray(page.colormap), 0, -1)[pixels])
        pixels = np.moveaxis(pixels, 0, -1) if page.axes == "SYX" else np.atleast_3d(pixels)
        is_grey = page.photometric in _GREY - {PHOTOMETRIC.MASK} and pixels.shape[-1] <= 2
        if not is_grey and (page.photometric != PHOTOMETRIC.RGB or pixels.shape[-1] < 3):
            return None
        pixels = pixels[..., 0] if is_grey else pixels[..., :3]  # without alpha
        if page.photometric == PHOTOMETRIC.MINISWHITE and pixels.dtype.kind in "bu":
            return ~pixels if pixels.dtype == np.bool_ else np.asarray(2**page.bitspersample - 1 - pixels)
        return pixels


def palette_indices(indices: NDArray[np.generic], colours: NDArray[np.generic]) -> NDArray[np.generic] | None:
    """Return a palette's indices if index 0 is black; of those that are black in colour 0."""
    visible = (colours != 0).any(axis=-1)
    return None if (visible & (indices == 0)).any() else np.where(visible, indices, 0)


def _check_complete(file: tifffile.FileHandle, page: tifffile.TiffPage) -> None:
    """Refuse strips and tiles that are absent or cut off, which tifffile and its decoders fill up."""
    for offset, length in zip(page.dataoffsets, page.databytecounts, strict=True):
        is_whole = offset > 0 and length > 0 and offset + length <= file.size
        if is_whole and page.compression in _JPEG - {COMPRESSION.OJPEG}:
            file.seek(offset)
            stream = file.read(length)
            is_whole = stream.rfind(b"\xff\xd9") > stream.rfind(b"\xff\xda")
        if not is_whole:
            msg = "a strip or tile that is absent or cut off"
            raise ValueError(msg)


def _is_lossy(path: Path, page: tifffile.TiffPage) -> bool:
    """Whether a page's compression may have changed values."""
    if page.compression not in _JPEG_2000 | {COMPRESSION.WEBP}:
        return page.compression in _JPEG
    file = page.parent.filehandle
    file.seek(page.dataoffsets[0])
    piece = file.read(page.databytecounts[0])
    if page.compression == COMPRESSION.WEBP:
        return is_lossy_webp(piece)
    return not read_stream(path, piece, None).reversible


def _colours_not_read(page: tifffile.TiffPage) -> str | None:
    """Name the colours of a page if they are none that we read right."""
    photometric, samples = page.photometric, page.samplesperpixel
    named = f"colours {getattr(photometric, 'name', photometric)}"
    if photometric == PHOTOMETRIC.YCBCR:
        return _ycbcr_not_read(page, named)
    if photometric == PHOTOMETRIC.MINISWHITE and _PHOTOMETRIC not in page.tags:
        return "colours that it does not name (no PhotometricInterpretation)"
    if photometric not in _PLAIN:
        return named
    if page.compression == COMPRESSION.APERIO_JP2000_YCBC:
        return "colours YCBCR in JPEG 2000"
    if photometric == PHOTOMETRIC.RGB:
        return f"{named} with {samples} samples a pixel" if samples < 3 else None
    return f"{samples} grey channels" if photometric in _GREY and samples > 2 else None


def _ycbcr_not_read(page: tifffile.TiffPage, named: str) -> str | None:
    if _is_converted(page):
        return None
    if page.compression not in _KEEPS_SAMPLES | _JPEG:
        return f"{named} compressed as {getattr(page.compression, 'name', page.compression)}"
    if page.is_subsampled:
        return f"{named}, of which some are stored for several pixels together and not in one JPEG"
    if (page.samplesperpixel, page.bitspersample) != (3, 8):
        return f"{named} with {page.samplesperpixel} samples of {page.bitspersample} bits a pixel"
    return None


def _is_converted(page: tifffile.TiffPage) -> bool:
    """Whether tifffile makes RGB of YCbCr: where a JPEG holds all three."""
    return page.compression in _JPEG and page.planarconfig == tifffile.PLANARCONFIG.CONTIG and page.samplesperpixel == 3


def _ycbcr_to_rgb(page: tifffile.TiffPage, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convert 8-bit (H, W, 3) by the formulas of TIFF 6.0, section 21, in units of the largest value."""
    limits = np.asarray(_numbers(page, _BLACK_WHITE, [0, 255, 128, 255, 128, 255]), np.float32) / 255
    red, green, blue = _numbers(page, _COEFFICIENTS, [0.299, 0.587, 0.114])
    black, white = limits[0::2], limits[1::2]
    if (white <= black).any() or green <= 0:
        msg = "ReferenceBlackWhite or YCbCrCoefficients that mean nothing"
        raise ValueError(msg)
    ranges = np.array([1, 127 / 255, 127 / 255], np.float32)
    luma, blueness, redness = np.moveaxis((samples - black) / (white - black) * ranges, -1, 0)
    reds, blues = luma + (2 - 2 * red) * redness, luma + (2 - 2 * blue) * blueness
    greens = (luma - blue * blues - red * reds) / green
    colours = np.stack([reds, greens, blues], axis=-1).clip(0, 1)
    return np.asarray(colours, np.float32)


def _numbers(page: tifffile.TiffPage, tag: int, absent: list[float]) -> list[float]:
    """Return a tag's numbers, which may be fractions."""
    values: tuple[float, ...] | None = page.tags.valueof(tag)
    if values is None or len(values) == len(absent):
        return absent if values is None else list(values)
    return [top / bottom for top, bottom in zip(values[0::2], values[1::2], strict=True)]


def _look_up(colormap: NDArray[np.uint16], indices: NDArray[np.generic]) -> NDArray[np.float32]:
    # Some writers store an 8-bit colour times 256, others times 257: the upper byte is right for both. Those who store
    # it as it is mean the lower one.
    table = colormap if colormap.max() < 256 else colormap >> 8
    return np.asarray(np.moveaxis(table, 0, -1)[indices] / np.float32(255), np.float32)


def _drop_extra(page: tifffile.TiffPage, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep grey as (H, W) or RGB; colours that were multiplied by their alpha are divided by it."""
    colours = 3 if page.photometric in {PHOTOMETRIC.RGB, PHOTOMETRIC.YCBCR} else 1
    kept = samples[..., :colours] if colours == 3 else samples[..., 0]
    if page.photometric == PHOTOMETRIC.MINISWHITE:
        return np.float32(1) - kept
    if _ASSOCIATED_ALPHA in page.extrasamples:
        alpha = samples[..., colours + page.extrasamples.index(_ASSOCIATED_ALPHA)]
        alpha = alpha[..., None] if colours == 3 else alpha
        kept = np.divide(kept, alpha, out=np.zeros_like(kept), where=alpha > 0)
        kept = np.minimum(kept, 1)
    return np.ascontiguousarray(kept)


def _scale(path: Path, pixels: NDArray[np.generic], bits: int) -> NDArray[np.float32]:
    """Map the values to [0, 1]."""
    if pixels.dtype == np.bool_:
        return pixels.astype(np.float32)
    if pixels.dtype.kind == "u" and bits <= 16:
        scaled = pixels.astype(np.float32, order="C")
        scaled /= np.float32(2**bits - 1)
        return scaled
    to_map = "Map the values to that range (the window is yours to choose) and save again."
    if pixels.dtype.kind != "f":
        expected = "unsigned integers of up to 16 bits, or floating point in [0, 1]"
        raise ImageReadError.of(path, f"a TIFF of {pixels.dtype.name} values", expected, to_map)
    if not np.isfinite(pixels).all():
        count = int((~np.isfinite(pixels)).sum())
        remedy = "Replace them (for instance by 0) and save again."
        raise ImageReadError.of(path, f"values that are NaN or infinite ({count})", "finite values in [0, 1]", remedy)
    low, high = float(pixels.min()), float(pixels.max())
    if low < 0 or high > 1:
        raise ImageReadError.of(path, f"floating-point values from {low:g} to {high:g}", "values in [0, 1]", to_map)
    return pixels.astype(np.float32, order="C")
