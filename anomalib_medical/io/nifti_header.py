"""What a NIfTI header says of its voxels, checked before any of them is read."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from nibabel import Nifti1Header, Nifti2Header
from nibabel.orientations import io_orientation
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from .errors import DECODING_ERRORS, Errors, ImageReadError
from .signatures import head_of

_GZIP = b"\x1f\x8b"
_HEADER_BYTES = 540  # of NIfTI-2, the longer one
# No deflated byte unpacks to more: a header that promises more than this lies.
_LARGEST_RATIO = 1032
# Vectors, matrices, complex numbers and fields of bits are no intensities.
_READABLE_KINDS = frozenset("iuf")
_COLOUR_NAMES = ("R", "G", "B")
_ERRORS: Errors = (*DECODING_ERRORS, HeaderDataError)
# What nibabel users (the identity) and ITK write for an array that comes from nowhere.
_DEFAULT_AFFINES = (np.eye(4), np.diag([-1.0, -1, 1, 1]))


@contextmanager
def decoding(path: Path) -> Generator[None, None, None]:
    """Turn whatever nibabel or zlib raise into an error that names the file."""
    try:
        with np.errstate(all="ignore"):
            yield
    except (ImageReadError, FileNotFoundError, PermissionError):
        raise
    except _ERRORS as error:
        raise ImageReadError.damaged(path, "a complete NIfTI volume", error) from error


@dataclass(frozen=True)
class NiftiFile:
    """A NIfTI file as its header describes it; equal as long as the file is not written again."""

    path: Path
    modified: int  # time of its last change, in nanoseconds
    bytes: int  # its size
    compressed: bool  # whether it is gzipped
    stored_shape: tuple[int, int, int, int]  # voxels along its three stored axes, and its number of volumes
    dtype: np.dtype[np.generic]  # of the stored values, with their byte order
    offset: int  # where they start, unpacked
    slope: float  # what they are multiplied by
    intercept: float  # what is added then
    # For each stored axis the axis of the body (0 right, 1 anterior, 2 superior) and 1 or -1 for its direction, as
    # nibabel's `io_orientation` gives it.
    orientation: tuple[tuple[int, int], ...]
    affine: tuple[tuple[float, ...], ...]  # from voxels to millimetres: the sform, else the qform, else voxel sizes
    placed: bool  # whether sform or qform is given, and is not what libraries write for an array alone
    placed_twice: bool  # whether both are given and differ

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels from left to right, posterior to anterior and inferior to superior."""
        by_axis = {axis: voxels for (axis, _), voxels in zip(self.orientation, self.stored_shape[:3], strict=True)}
        return by_axis[0], by_axis[1], by_axis[2]

    @property
    def volumes(self) -> int:
        """Number of volumes; more than one in a series over time or of contrasts."""
        return self.stored_shape[3]

    @property
    def volume_bytes(self) -> int:
        """Size of one volume, unpacked."""
        return math.prod(self.stored_shape[:3]) * self.dtype.itemsize

    @property
    def unpacked_bytes(self) -> int:
        """Size of the file, unpacked."""
        return self.offset + self.volumes * self.volume_bytes

    @property
    def is_colour(self) -> bool:
        """Whether voxels are RGB or RGBA colours."""
        return self.dtype.names is not None


def is_nifti(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is a single-file NIfTI-1 or NIfTI-2, plain or gzipped."""
    return _header_class(_unpack_head(head)) is not None


def is_nifti_file(path: Path) -> bool:
    """Tell from its content whether a file is NIfTI."""
    return is_nifti(head_of(path))


def read_header(path: Path) -> NiftiFile:
    """Read and check a header."""
    stat = path.stat()
    return _read_header(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _read_header(path: Path, modified: int, size: int) -> NiftiFile:
    with decoding(path):
        with path.open("rb") as file:
            compressed = file.read(2) == _GZIP
        with gzip.open(path) if compressed else path.open("rb") as file:
            block = file.read(_HEADER_BYTES)
        kind = _header_class(block)
        if kind is None:
            msg = "no NIfTI header"
            raise ValueError(msg)
        header: Any = kind(block[: kind.sizeof_hdr])
        slope, intercept = header.get_slope_inter()
        affine = header.get_best_affine()
        shape = _volume_shape(path, header.get_data_shape())
        result = NiftiFile(
            path=path,
            modified=modified,
            bytes=size,
            compressed=compressed,
            stored_shape=shape,
            dtype=_readable_dtype(path, header.get_data_dtype()),
            # An offset of 0 stands for "right behind the header", as other tools read it.
            offset=header.get_data_offset() or kind.single_vox_offset,
            slope=1.0 if slope is None else slope,
            intercept=0.0 if intercept is None else intercept,
            orientation=_orientation(path, affine, shape),
            affine=tuple(map(tuple, affine.tolist())),
            placed=_is_placed(header, affine),
            placed_twice=_is_placed_twice(header),
        )
        _check_length(result)
        return result


def _unpack_head(head: bytes) -> bytes:
    if not head.startswith(_GZIP):
        return head
    try:
        return zlib.decompressobj(wbits=31).decompress(head, _HEADER_BYTES)
    except zlib.error:
        return b""


def _header_class(head: bytes) -> type[Nifti1Header] | type[Nifti2Header] | None:
    for kind in (Nifti1Header, Nifti2Header):
        block = head[: kind.sizeof_hdr]
        if kind.may_contain_header(block):  # type: ignore[no-untyped-call]
            # Pairs of .hdr and .img have another.
            magic = np.frombuffer(block, kind.template_dtype)["magic"].item()
            return kind if magic.startswith(kind.single_magic) else None
    return None


def _volume_shape(path: Path, dims: tuple[int, ...]) -> tuple[int, int, int, int]:
    shape = list(dims)
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if not 2 <= len(shape) <= 4 or min(shape) < 1:
        found = f"dimensions {' x '.join(map(str, dims))}"
        expected = "two to four dimensions of at least one voxel: a picture, a volume or a series of volumes"
        remedy = "Save each component of vectors and matrices as its own volume, or export the file again."
        raise ImageReadError.of(path, found, expected, remedy)
    shape += [1] * (4 - len(shape))
    return shape[0], shape[1], shape[2], shape[3]


def _readable_dtype(path: Path, dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    if dtype.kind in _READABLE_KINDS or (dtype.names or ())[:3] == _COLOUR_NAMES:
        return dtype
    expected = "integers, floating-point numbers or RGB colours"
    remedy = "Save the part that you want to look at (such as the magnitude) as numbers of one of these types."
    raise ImageReadError.of(path, f"voxels of type {dtype.name}", expected, remedy)


def _orientation(
    path: Path, affine: NDArray[np.float64], shape: tuple[int, int, int, int]
) -> tuple[tuple[int, int], ...]:
    axes: NDArray[np.float64] = np.full((3, 2), np.nan)
    if np.isfinite(affine).all() and affine.any():
        axes = io_orientation(affine)  # type: ignore[no-untyped-call]
    missing = np.flatnonzero(np.isnan(axes[:, 0]))
    if len(missing) == 1 and shape[missing[0]] == 1:
        # The third axis of a flat picture may have no direction: it is the one that the other two leave.
        axes[missing[0]] = 3 - np.nansum(axes[:, 0]), 1
    elif len(missing):
        found = "a header that does not say how the volume lies in the body (its affine is singular)"
        expected = "a qform, an sform or voxel sizes above 0"
        raise ImageReadError.of(path, found, expected, "Export the file again with its orientation.")
    return tuple((int(axis), int(direction)) for axis, direction in axes)


def _is_placed(header: Nifti1Header, affine: NDArray[np.float64]) -> bool:
    if not (header["sform_code"] or header["qform_code"]):
        return False
    return not any(np.array_equal(affine, default) for default in _DEFAULT_AFFINES)


def _is_placed_twice(header: Nifti1Header) -> bool:
    if not (header["sform_code"] and header["qform_code"]):
        return False
    try:
        sform, qform = header.get_sform(), header.get_qform()  # type: ignore[no-untyped-call]
        return not np.allclose(sform, qform, atol=0.1)
    except (HeaderDataError, ValueError):  # no quaternion; the sform is what counts
        return False


def _check_length(file: NiftiFile) -> None:
    promised = file.unpacked_bytes
    if promised > file.bytes * (_LARGEST_RATIO if file.compressed else 1):
        unpacked = ", unpacked," if file.compressed else ""
        raise ImageReadError.damaged(file.path, f"{promised} bytes{unpacked} for the dimensions in its header")
