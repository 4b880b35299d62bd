"""What an image looks like in a few kilobytes: hashes, a thumbnail, and numbers that should not tell its class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from anomalib_medical.io import ImageAddress, ImageReadError, Window, read_pixels, sha256, three_planes

THUMBNAIL_SIZE = 64
COLOUR_SIZE = 32
# The mean colour of the outermost 2% shows frames, collimators and padding.
_BORDER_SHARE = 0.02
_BATCH = 64
# Starting processes takes longer than reading this many files.
_ENOUGH_FOR_PROCESSES = 256
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Fingerprint:
    """An image's fingerprint; pixel values are in [0, 1]."""

    path: str  # or address of the picture
    file_digest: str  # of the file's bytes; "" for one of several pictures in a file
    pixel_digest: str  # of the decoded pixels: the same for a grey image stored as RGB, and in any lossless format
    thumbnail: NDArray[np.float16]  # grey, (64, 64)
    colours: NDArray[np.float16]  # red, green and blue, (3, 32, 32)
    file_size: int  # bytes
    width: int
    height: int
    colour: bool  # whether the channels differ anywhere
    mean: float  # of the grey values, as the next
    std: float
    sharpness: float  # mean absolute difference of neighbouring grey values
    border: float  # mean grey value of the outermost 2%


@dataclass(frozen=True)
class UnreadableImage:
    """An image that could not be read."""

    path: str  # or address of the picture
    reason: str  # without the path, which may say who it is of

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"Cannot read the image {self.path}: {self.reason}"


def fingerprint(path: str | Path | ImageAddress, window: Window | None = None) -> Fingerprint:
    """Read an image, once, and take its fingerprint; an OSError or ImageReadError if that cannot be done."""
    address = ImageAddress.parse(path)
    channels = three_planes(read_pixels(address, window))
    colour = not (np.array_equal(channels[0], channels[1]) and np.array_equal(channels[0], channels[2]))
    grey = np.tensordot(_LUMA, channels, axes=1) if colour else channels[0]
    height, width = grey.shape
    pixels = hashlib.blake2b(f"{width} {height}".encode(), digest_size=16)
    pixels.update(np.ascontiguousarray(channels if colour else grey).data)
    small = [_shrink(channel, COLOUR_SIZE) for channel in (channels if colour else channels[:1])]
    return Fingerprint(
        path=str(address),
        file_digest="" if address.selection else sha256(address.path),
        pixel_digest=pixels.hexdigest(),
        thumbnail=_shrink(grey, THUMBNAIL_SIZE),
        colours=np.stack(small if colour else small * 3),
        file_size=address.path.stat().st_size,
        width=width,
        height=height,
        colour=colour,
        mean=float(grey.mean()),
        std=float(grey.std()),
        sharpness=_sharpness(grey),
        border=_border(grey),
    )


def fingerprint_all(
    paths: Sequence[str], *, window: Window | None = None, workers: int | None = None, progress: bool = True
) -> list[Fingerprint | UnreadableImage]:
    """Take the fingerprints of many images, in their order; those that cannot be read are `UnreadableImage`.

    Pictures of one file should follow each other. Without a number of processes it is one a core, none for few files.
    """
    if workers is None:
        workers = available_cores() if len(paths) >= _ENOUGH_FOR_PROCESSES else 0
    # The list is the dataset: its paths are read where a batch of them is put together.
    loader: DataLoader[Any] = DataLoader(
        list(paths),  # type: ignore[arg-type]
        batch_size=_BATCH,
        num_workers=workers,
        collate_fn=partial(_read, window=window),
    )
    records: list[Fingerprint | UnreadableImage] = []
    with tqdm(total=len(paths), desc="Reading images", unit="image", disable=None if progress else True) as bar:
        for batch in loader:
            records += batch
            bar.update(len(batch))
    return records


def _read(paths: Sequence[str], window: Window | None) -> list[Fingerprint | UnreadableImage]:
    records: list[Fingerprint | UnreadableImage] = []
    for path in paths:
        try:
            records.append(fingerprint(path, window))
        except (OSError, ImageReadError) as error:
            reason = error.reason if isinstance(error, ImageReadError) else error.strerror
            records.append(UnreadableImage(path, reason or f"{type(error).__name__}."))
    return records


def _shrink(grey: NDArray[np.float32], side: int) -> NDArray[np.float16]:
    # Pillow's triangle filter widens when it shrinks an image, so that an image's size leaves little trace.
    return np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BILINEAR), dtype=np.float16)


def _sharpness(grey: NDArray[np.float32]) -> float:
    differences = [np.abs(np.diff(grey, axis=axis)) for axis in (0, 1)]
    count = sum(difference.size for difference in differences)
    return float(sum(float(difference.sum()) for difference in differences) / count) if count else 0.0


def _border(grey: NDArray[np.float32]) -> float:
    width = max(1, round(min(grey.shape) * _BORDER_SHARE))
    inside = grey[width:-width, width:-width]
    return float((grey.sum() - inside.sum()) / (grey.size - inside.size))


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
