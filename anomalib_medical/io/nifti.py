"""NIfTI: slices of volumes, the same way up in whatever order they are stored.

Single-file NIfTI-1 and NIfTI-2 (``.nii``, ``.nii.gz``) of up to four dimensions are read.

**Pictures.** Each slice across the chosen axis is one, such as ``brain.nii.gz#axial=57``, counted from inferior,
posterior or left. Of a series (4-D) every slice of every volume is one: ``#volume=0,axial=57``. What is flat along
just one axis (2-D files, single slices) is one picture without a selection, whatever the chosen axis. Trailing
dimensions of one voxel do not count; vectors and matrices (5-D) are refused.

**Which way is up.** Axes are reordered and flipped to the closest right-anterior-superior order and not resampled:
a voxel is a pixel, whatever its size in millimetres. Then, as radiologists look at them:

======== ======== =======================
axis     top      left side of the picture
======== ======== =======================
axial    anterior the patient's right
coronal  superior the patient's right
sagittal superior anterior
======== ======== =======================

**Grey values.** A given window applies to the scaled values (``scl_slope``, ``scl_inter``; a slope of 0 means
none). Without one, black is the 0.5th and white the 99.5th percentile of the whole volume's foreground, the same
for all its slices; each volume of a series has its own. Foreground is every finite voxel that differs from the
value most common in the volume's eight corners: else the zeros around a skull-stripped brain would decide. If the
two percentiles are one value, the smallest and the largest finite voxel take their place; a constant volume is
black. NaN and infinite voxels are black. RGB voxels are divided by 255, their alpha dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ImageReadError
from .files import ImageAddress
from .nifti_header import NiftiFile, decoding, is_nifti, is_nifti_file, read_header
from .nifti_masks import grid_change, take_slice
from .nifti_voxels import robust_range, scale, stored_voxels
from .options import Slicing, Window
from .text import counted

# The axis of the body (0 right, 1 anterior, 2 superior) that slices lie across.
_AXES = {"sagittal": 0, "coronal": 1, "axial": 2}


@dataclass(frozen=True)
class _Place:
    """Where a picture is: its volume, the axis of the body that it lies across, and its index along that axis."""

    volume: int
    axis: int
    index: int


def can_read(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is NIfTI, plain or gzipped."""
    return is_nifti(head)


def pictures(path: Path, slicing: Slicing, *, of_mask: bool = False) -> list[ImageAddress]:
    """Return one address a slice; those belong to the range whose middle lies in it."""
    del of_mask
    file = read_header(path)
    volumes = [(("volume", volume),) for volume in range(file.volumes)] if file.volumes > 1 else [()]
    slices: list[tuple[tuple[str, int], ...]] = [()]
    if _flat_axis(file) is None:
        count = file.shape[_AXES[slicing.axis]]
        slices = [((slicing.axis, index),) for index in _slices_in(count, slicing.slice_range)]
    return [ImageAddress(path, (*volume, *place)) for volume in volumes for place in slices]


def size(address: ImageAddress) -> tuple[int, int]:
    """Return (height, width) from the header."""
    file = read_header(address.path)
    width, height = np.delete(file.shape, find_place(file, address).axis).tolist()
    return height, width


def read(address: ImageAddress, window: Window | None = None) -> NDArray[np.float32]:
    """Return a slice in [0, 1], grey as (H, W) or colour as (H, W, 3)."""
    file = read_header(address.path)
    place = find_place(file, address)
    with decoding(file.path):
        stored = _slice(file, place)
        if file.is_colour:
            return _colours(stored).astype(np.float32) / np.float32(255)
        if window is None:
            low, high = robust_range(file, place.volume)
        else:
            low, high = window.center - window.width / 2, window.center + window.width / 2
        return _stretch(scale(file, stored), low, high)


def read_mask(address: ImageAddress, image: ImageAddress | None = None) -> NDArray[Any]:
    """Return the scaled values of a slice, as (H, W), or its colours as (H, W, 3).

    The slice is that which lies over the image, if that is one of a NIfTI volume, see `grid_change`.
    """
    file = read_header(address.path)
    if image is not None and is_nifti_file(image.path):
        image_file = read_header(image.path)
        change = grid_change(file, image_file)
        if change is not None:
            return _resampled(file, change, image_file, find_place(image_file, image))
        address = replace(address, selection=image.selection)
    place = find_place(file, address)
    with decoding(file.path):
        return _numbers(file, _slice(file, place))


def _flat_axis(file: NiftiFile) -> int | None:
    """Return the only axis that is one voxel long."""
    flat = [axis for axis, voxels in enumerate(file.shape) if voxels == 1]
    return flat[0] if len(flat) == 1 else None


def _slices_in(count: int, shares: tuple[float, float]) -> list[int]:
    start, stop = shares
    inside = [index for index in range(count) if start <= (index + 0.5) / count <= stop]
    # A range thinner than a slice may lie between two middles.
    return inside or [min(int((start + stop) / 2 * count), count - 1)]


def find_place(file: NiftiFile, address: ImageAddress) -> _Place:
    """Check a picture's address against the file."""
    chosen = dict(address.selection)
    flat = _flat_axis(file)
    name = next((name for name in chosen if name in _AXES), "axial")
    counts = {"volume": file.volumes} if file.volumes > 1 else {}
    if flat is None:
        counts[name] = file.shape[_AXES[name]]
    if set(chosen) != set(counts) or any(chosen[key] >= count for key, count in counts.items()):
        selection = str(address).rpartition("#")[2] if chosen else "none of its pictures"
        valid = ",".join(f"{key}=(0 to {count - 1})" for key, count in counts.items())
        held = f"{counted(file.volumes, 'volume')} of {' x '.join(map(str, file.shape))} voxels"
        expected = f"#{valid} behind the path" if valid else "no selection behind the path"
        remedy = "list_pictures names the pictures in a file; instead of axial, coronal and sagittal work too."
        raise ImageReadError.of(file.path, f"{held}, asked for {selection}", expected, remedy)
    volume = chosen.get("volume", 0)
    return _Place(volume, _AXES[name], chosen[name]) if flat is None else _Place(volume, flat, 0)


def _slice(file: NiftiFile, place: _Place) -> NDArray[Any]:
    """Return the stored values of a slice, the right way up."""
    voxels = stored_voxels(file, place.volume)
    return upright(voxels[(slice(None),) * place.axis + (place.index,)])


def upright(plane: NDArray[Any]) -> NDArray[Any]:
    """Turn a plane of voxels into a picture."""
    # Its axes grow rightwards (of sagittal slices: forwards) and upwards, as the patient has it; a picture starts at
    # the top, and with the patient's right (the front).
    return plane[::-1, ::-1].T


def _resampled(file: NiftiFile, change: NDArray[np.float64], image: NiftiFile, place: _Place) -> NDArray[Any]:
    with decoding(file.path):
        voxels = stored_voxels(file, place.volume if file.volumes > 1 else 0)
        stored, inside = take_slice(voxels, change, image.shape, place.axis, place.index)
        values = _numbers(file, upright(stored))
        return np.where(upright(inside) if values.ndim == 2 else upright(inside)[..., None], values, 0)


def _numbers(file: NiftiFile, stored: NDArray[Any]) -> NDArray[Any]:
    if file.is_colour:
        return _colours(stored)
    if (file.slope, file.intercept) == (1, 0):
        return stored
    values = scale(file, stored)
    # Scaled integers may store their 0 as any integer, and miss it by a rounding error.
    return values if file.dtype.kind == "f" else np.where(np.abs(values) > abs(file.slope) / 2, values, 0)


def _colours(stored: NDArray[Any]) -> NDArray[Any]:
    return np.stack([stored[name] for name in ("R", "G", "B")], axis=-1)


def _stretch(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float32]:
    """Map [low, high] to [0, 1], with what is not finite at 0."""
    if low == high:
        return np.zeros(values.shape, np.float32)
    if not np.isfinite(high - low):
        values, low, high = values / 4, low / 4, high / 4
    grey = (np.clip(values, low, high) - low) / (high - low)
    return np.where(np.isfinite(values), grey, 0).astype(np.float32)
