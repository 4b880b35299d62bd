"""What an image looks like in a few kilobytes: hashes, a thumbnail, and numbers that should not tell its class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from anomalib_medical.data.images import read_image
from anomalib_medical.io import ImageAddress, ImageReadError, Window

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
    """An image's fingerprint; pixel values are in [0, 1].

    Attributes:
        path: Path or address of the picture.
        file_digest: Hash of the file's bytes; "" for one of several pictures in a file.
        pixel_digest: Hash of the decoded pixels; the same for a grey image stored as RGB, and in any lossless format.
        thumbnail: Grey, (64, 64) float16.
        colours: Red, green and blue, (3, 32, 32) float16.
        file_size: Bytes.
        width: Pixels.
        height: Pixels.
        colour: Whether the channels differ anywhere.
        mean: Mean grey value.
        std: Standard deviation of the grey values.
        sharpness: Mean absolute difference of neighbouring grey values.
        border: Mean grey value of the outermost 2%.
    """

    path: str
    file_digest: str
    pixel_digest: str
    thumbnail: NDArray[np.float16]
    colours: NDArray[np.float16]
    file_size: int
    width: int
    height: int
    colour: bool
    mean: float
    std: float
    sharpness: float
    border: float


@dataclass(frozen=True)
class UnreadableImage:
    """An image that could not be read."""

    path: str  # or address of the picture
    reason: str  # without the path, which may say who it is of

    def __str__(self) -> str:
        """Return it as a sentence."""
        return f"Cannot read the image {self.path}: {self.reason}"


def fingerprint(path: str | Path | ImageAddress, window: Window | None = None) -> Fingerprint:
    """Read an image, once, and take its fingerprint.

    Args:
        path: Image file or the address of one picture in it.
        window: Which values of DICOM and NIfTI files become black and white.

    Raises:
        OSError: If the file is missing or cannot be opened.
        ImageReadError: If its content cannot be read.
    """
    address = ImageAddress.parse(path)
    channels = read_image(address, window).numpy()
    colour = not (np.array_equal(channels[0], channels[1]) and np.array_equal(channels[0], channels[2]))
    grey = np.tensordot(_LUMA, channels, axes=1) if colour else channels[0]
    height, width = grey.shape
    pixels = hashlib.blake2b(f"{width} {height}".encode(), digest_size=16)
    pixels.update(np.ascontiguousarray(channels if colour else grey).data)
    return Fingerprint(
        path=str(address),
        file_digest="" if address.selection else _digest_file(address.path),
        pixel_digest=pixels.hexdigest(),
        thumbnail=_shrink(grey, THUMBNAIL_SIZE),
        colours=_shrink_colours(channels) if colour else np.repeat(_shrink(grey, COLOUR_SIZE)[None], 3, axis=0),
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
    paths: Sequence[str],
    *,
    window: Window | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> list[Fingerprint | UnreadableImage]:
    """Take the fingerprints of many images; those that cannot be read come back as `UnreadableImage`.

    Args:
        paths: Image files or addresses of pictures. Those of one file should follow each other.
        window: Which values of DICOM and NIfTI files become black and white.
        workers: Processes; None for one a core, or none for few files.
        progress: Whether to show a bar.

    Returns:
        One record a path, in the order of ``paths``.
    """
    if workers is None:
        workers = available_cores() if len(paths) >= _ENOUGH_FOR_PROCESSES else 0
    loader = DataLoader(_Reader(paths, window), batch_size=_BATCH, num_workers=workers, collate_fn=list)
    records: list[Fingerprint | UnreadableImage] = []
    with tqdm(total=len(paths), desc="Reading images", unit="image", disable=not progress) as bar:
        for batch in loader:
            records += batch
            bar.update(len(batch))
    return records


class _Reader(Dataset[Any]):
    def __init__(self, paths: Sequence[str], window: Window | None) -> None:
        self.paths = list(paths)
        self.window = window

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Fingerprint | UnreadableImage:
        path = self.paths[index]
        try:
            return fingerprint(path, self.window)
        except (OSError, ImageReadError) as error:
            reason = error.reason if isinstance(error, ImageReadError) else error.strerror
            return UnreadableImage(path, reason or f"{type(error).__name__}.")


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _shrink(grey: NDArray[np.float32], side: int) -> NDArray[np.float16]:
    # Pillow's triangle filter widens when it shrinks an image, so that an image's size leaves little trace.
    return np.asarray(Image.fromarray(grey).resize((side, side), Image.Resampling.BILINEAR), dtype=np.float16)


def _shrink_colours(channels: NDArray[np.float32]) -> NDArray[np.float16]:
    return np.stack([_shrink(channel, COLOUR_SIZE) for channel in channels])


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
