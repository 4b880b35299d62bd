"""Maps of a NIfTI volume, laid back into the grid of the file that its slices were read from."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.nifti1 import Nifti1Extensions
from nibabel.orientations import apply_orientation
from numpy.typing import DTypeLike, NDArray

from .files import ImageAddress
from .nifti import find_place, upright
from .nifti_header import read_header

# Texts of the original's header may say who it is of.
_TEXTS = ("aux_file", "db_name", "descrip", "intent_name")


class VolumeMap:
    """An array in the grid of a NIfTI file, all 0 at first, that is filled slice by slice.

    Args:
        path: The file that slices are read from.
        dtype: Of the values.
    """

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self._file = read_header(path)
        self._stored: NDArray[Any] = np.zeros(self._file.stored_shape, dtype, order="F")

    @property
    def suffix(self) -> str:
        """The file's: of gzipped originals, gzipped."""
        return ".nii.gz" if self._file.compressed else ".nii"

    def put(self, address: ImageAddress, plane: NDArray[Any]) -> None:
        """Lay a map ``(H, W)`` where the slice of this address was read from, the same way up as it was read."""
        place = find_place(self._file, address)
        voxels = apply_orientation(self._stored[..., place.volume], self._file.orientation)  # type: ignore[no-untyped-call]
        voxels[(slice(None),) * place.axis + (place.index,)] = upright(plane.T).T

    def content(self) -> bytes:
        """The file: shape, sform and qform are the original's, and so is whether it is gzipped; texts are left out."""
        original: Any = nibabel.load(self._file.path)
        header = original.header.copy()
        header.extensions = Nifti1Extensions()
        for name in _TEXTS:
            header[name] = b""
        header["cal_min"] = header["cal_max"] = 0
        header.set_intent("none")
        header.set_data_dtype(self._stored.dtype)
        header.set_slope_inter(1, 0)
        # Without an affine, those of the header stay as they are.
        content = type(original)(self._stored.reshape(original.shape, order="F"), None, header).to_bytes()
        return gzip.compress(content, 1, mtime=0) if self._file.compressed else bytes(content)
