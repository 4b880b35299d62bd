"""The voxels of a NIfTI file, one volume of it at a time, in the order right, anterior, superior.

Unpacked volumes are kept, so that one is not unpacked again for each of its slices.
"""

from __future__ import annotations

import gzip
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from threading import Lock
from typing import Any

import imagecodecs
import numpy as np
from nibabel.orientations import apply_orientation
from numpy.typing import NDArray

from .errors import EXPORT_AGAIN, ImageReadError
from .nifti_header import NiftiFile

logger = logging.getLogger(__name__)

# Room for two of the larger CTs. Each process has its own: with DataLoader workers, each of them.
_DEFAULT_LIMIT = 512 * 2**20
# Share of the foreground that may be darker than black, and as much brighter than white.
_CLIPPED = 0.005


class VolumeCache:
    """Unpacked files, up to a limit in bytes; those used longest ago make room before it is passed.

    One is unpacked at a time, by whichever thread comes first. A forked process (a DataLoader worker) starts empty.
    """

    def __init__(self, limit: int = _DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.clear()
        if hasattr(os, "register_at_fork"):
            # The fork may come while another thread holds the lock or moves entries.
            os.register_at_fork(after_in_child=self.clear)

    def clear(self) -> None:
        """Forget everything."""
        self._lock = Lock()
        self._buffers: OrderedDict[Hashable, bytearray] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What is taken now."""
        return sum(len(buffer) for buffer in self._buffers.values())

    def get(self, key: Hashable, size: int, unpack: Callable[[], bytearray]) -> bytearray:
        """Return what belongs to a key; room is made for its bytes first, and what no limit holds is not kept."""
        with self._lock:
            if key in self._buffers:
                self._buffers.move_to_end(key)
                return self._buffers[key]
            if size > self.limit:
                return unpack()
            while self.bytes + size > self.limit:
                self._buffers.popitem(last=False)
            return self._buffers.setdefault(key, unpack())


cache = VolumeCache()


def stored_voxels(file: NiftiFile, volume: int) -> NDArray[Any]:
    """Return one volume as (right, anterior, superior), a view of the values that the file stores.

    Gzipped files stay unpacked in memory: whole if they fit into the cache, else one volume of a series at a time.
    """
    if not file.compressed:
        # Mapped: the system keeps what was read, and gives it back when memory is short.
        series: NDArray[Any] = np.memmap(
            file.path, file.dtype, "r", offset=file.offset, shape=file.stored_shape, order="F"
        )
        stored = series[..., volume]
    elif file.unpacked_bytes <= cache.limit:
        unpacked = cache.get(file, file.unpacked_bytes, lambda: _unpack(file))
        stored = np.ndarray(file.stored_shape, file.dtype, unpacked, file.offset, order="F")[..., volume]
    else:
        unpacked = cache.get((file, volume), file.volume_bytes, lambda: _unpack_volume(file, volume))
        stored = np.ndarray(file.stored_shape[:3], file.dtype, unpacked, order="F")
    return np.asarray(apply_orientation(stored, file.orientation))  # type: ignore[no-untyped-call]


def scale(file: NiftiFile, stored: NDArray[Any]) -> NDArray[np.float64]:
    """Return stored values in the file's units."""
    return np.asarray(stored.astype(np.float64) * file.slope + file.intercept)


@lru_cache(maxsize=4096)
def robust_range(file: NiftiFile, volume: int) -> tuple[float, float]:
    """Return the values between which all but 0.5% of a volume's foreground lies, on either side.

    Foreground is what is finite and not the value most common in the volume's eight corners. Where those two are one
    value, the smallest and the largest finite one are returned.
    """
    voxels = stored_voxels(file, volume)
    corners = _finite(voxels[np.ix_(*[[0, -1]] * 3)])
    found = _finite(voxels)
    if corners.size:
        values, counts = np.unique(corners, return_counts=True)
        low, high = _without_tails(found[found != values[counts.argmax()]])
    else:
        low, high = _without_tails(found)
    if not low < high and found.size:
        low, high = found.min(), found.max()
    black, white = sorted(scale(file, np.asarray([low, high])).tolist())
    if not np.isfinite([black, white]).all():
        problem = "values too large for 64 bits" if found.size else "a volume without a finite value"
        raise ImageReadError.of(file.path, problem, "numbers", EXPORT_AGAIN)
    return black, white


def _finite(voxels: NDArray[Any]) -> NDArray[Any]:
    flat = voxels.ravel(order="K")
    return flat[np.isfinite(flat)] if voxels.dtype.kind == "f" else flat


def _without_tails(values: NDArray[Any]) -> tuple[Any, Any]:
    """Return two of the values, which are put into another order: interpolating would overflow some types."""
    if not values.size:
        return np.nan, np.nan
    tail = int(_CLIPPED * (len(values) - 1))
    ends = (tail, len(values) - 1 - tail)
    values.partition(ends)
    return values[ends[0]], values[ends[1]]


def _unpack(file: NiftiFile) -> bytearray:
    """Unpack a whole file, header included, and check its checksum."""
    buffer = bytearray(file.unpacked_bytes)
    try:
        # Three times as fast as Python's own.
        if len(imagecodecs.gzip_decode(file.path.read_bytes(), out=buffer)) == len(buffer):
            return buffer
    except imagecodecs.DeflateError:
        # Damaged, or longer than its header says, or written in several pieces: that one reads these, too.
        pass
    with gzip.open(file.path) as unpacked:
        _fill(buffer, unpacked)
        while unpacked.read(2**20):
            pass
    return buffer


def _unpack_volume(file: NiftiFile, volume: int) -> bytearray:
    if file.volume_bytes > cache.limit:
        _warn_of_size(file)
    buffer = bytearray(file.volume_bytes)
    with gzip.open(file.path) as unpacked:
        unpacked.seek(file.offset + volume * file.volume_bytes)
        _fill(buffer, unpacked)
    return buffer


def _fill(buffer: bytearray, unpacked: gzip.GzipFile) -> None:
    # In pieces, since a GzipFile makes a copy of what it reads.
    for start in range(0, len(buffer), 2**24):
        piece = memoryview(buffer)[start : start + 2**24]
        if unpacked.readinto(piece) < len(piece):
            msg = f"it unpacks to fewer than the {len(buffer)} bytes that its header promises"
            raise EOFError(msg)


@lru_cache(maxsize=4096)
def _warn_of_size(file: NiftiFile) -> None:
    logger.warning(
        "A volume of %s takes %d MiB, more than the %d MiB that are kept in memory: it is unpacked again for every "
        "slice. Unpack the file (gunzip) to read it quickly.",
        file.path,
        file.volume_bytes // 2**20,
        cache.limit // 2**20,
    )
