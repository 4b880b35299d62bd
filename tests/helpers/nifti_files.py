"""Small NIfTI files, written in any orientation and with any header."""

from __future__ import annotations

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from anomalib_medical.data.images import read_image
from anomalib_medical.io import ImageAddress

AXES = ("axial", "coronal", "sagittal")
# Right, anterior, superior; no two voxels and no two sides are alike.
VOLUME = np.random.default_rng(0).permutation(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
AFFINE = np.array([[2.0, 0, 0, -3], [0, 1.5, 0, 7], [0, 0, 3, -20], [0, 0, 0, 1]])
ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*order)
]  # fmt: skip


def save_nifti(
    path: Path, voxels: np.ndarray, affine: np.ndarray | None = AFFINE, *, version: int = 1, **fields
) -> Path:
    """Write with header fields as given, whatever nibabel would think of them."""
    image = (nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image)(voxels, affine, dtype=voxels.dtype)
    image.header.set_slope_inter(1, 0)
    content = bytearray(image.to_bytes())
    header = image.header.copy()
    header["vox_offset"] = header.single_vox_offset
    for name, value in fields.items():
        header.structarr[name] = value
    content[: header.sizeof_hdr] = header.binaryblock
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def stored_as(codes: str, volume: np.ndarray = VOLUME, affine: np.ndarray = AFFINE) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume in (right, anterior, superior) order as a file of another orientation stores it."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return apply_orientation(volume, change), affine @ inv_ornt_aff(change, volume.shape)


def window_of(volume: np.ndarray) -> tuple[float, float]:
    """Return the window that keeps every value apart."""
    low, high = float(volume.min()), float(volume.max())
    return (low + high) / 2, high - low


def read_values(address: str | ImageAddress, volume: np.ndarray = VOLUME) -> np.ndarray:
    """Read a slice through the widest window, and undo it."""
    grey = read_image(address, window_of(volume))[0].numpy().astype(np.float64)
    return np.rint(grey * (volume.max() - volume.min()) + volume.min())
