"""Where a mask volume lies in its image volume: by their affines, never by the order of their arrays alone."""

from __future__ import annotations

from functools import lru_cache, reduce

import numpy as np
from nibabel.orientations import inv_ornt_aff
from numpy.typing import NDArray

from .errors import ImageReadError
from .nifti_header import NiftiFile

# Two grids are one if none of their corners is farther apart than this share of the smallest voxel side.
_SAME_GRID = 0.1
# What lies halfway between two voxels goes to one side, whatever the last digits say.
_TIE = 1e-6


@lru_cache(maxsize=4096)
def grid_change(mask: NiftiFile, image: NiftiFile) -> NDArray[np.float64] | None:
    """Return the affine map (4, 4) from an image's voxels to its mask's, both in the order right, anterior, superior.

    None if both have the same grid. Refused where the place is not well defined: one of the two headers does not say
    where its volume lies, or says it twice, or each volume reaches where the other ends.
    """
    affines = [_canonical(file) for file in (mask, image)]
    apart = _corners_apart(mask, image, affines)
    sides = np.linalg.norm([affine[:3, :3] for affine in affines], axis=1)
    smallest = float(sides[sides > 0].min())
    same = mask.shape == image.shape and apart <= _SAME_GRID * smallest
    if mask.placed != image.placed:
        placed, other = (image, mask) if image.placed else (mask, image)
        raise _refusal(mask, image, f"{placed.path} says where it lies in the body and {other.path} does not")
    if same:
        return None
    if not mask.placed:
        sizes = " and ".join(_size(file, affine) for file, affine in zip((mask, image), affines, strict=True))
        raise _refusal(mask, image, f"neither says where it lies in the body, and their grids are {sizes}")
    for file in (mask, image):
        if file.placed_twice:
            raise _refusal(
                mask, image, f"they lie up to {apart:.3g} mm apart, and the sform and the qform of {file.path} disagree"
            )
    if min(abs(np.linalg.det(affine)) for affine in affines) < 1e-12:
        raise _refusal(mask, image, f"they lie up to {apart:.3g} mm apart, and one is flat without a direction")
    change = np.asarray(np.linalg.inv(affines[0]) @ affines[1])
    _require_overlap(mask, image, np.asarray(np.linalg.inv(change)), apart)
    return change


def take_slice(
    voxels: NDArray[np.generic], change: NDArray[np.float64], shape: tuple[int, ...], axis: int, index: int
) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Resample a mask's voxels to one slice of its image's grid, of that shape, and say which of it lie inside."""
    places = [np.arange(count) for count in shape]
    places[axis] = np.array([index])
    x, y, z = np.ix_(*places)
    nearest = [np.floor(a * x + b * y + c * z + d + (0.5 + _TIE)).astype(np.int64) for a, b, c, d in change[:3]]
    inside = reduce(np.logical_and, ((i >= 0) & (i < count) for i, count in zip(nearest, voxels.shape, strict=True)))
    values = voxels[tuple(np.clip(i, 0, count - 1) for i, count in zip(nearest, voxels.shape, strict=True))]
    return values.squeeze(axis), inside.squeeze(axis)


def _canonical(file: NiftiFile) -> NDArray[np.float64]:
    """Return the affine of the volume in the order right, anterior, superior."""
    back = inv_ornt_aff(np.array(file.orientation), file.stored_shape[:3])  # type: ignore[no-untyped-call]
    return np.asarray(np.array(file.affine) @ back)


def _corners(file: NiftiFile) -> NDArray[np.float64]:
    """Return the outer corners of a volume, in its voxels, as (4, 8)."""
    ends = [(-0.5, count - 0.5) for count in file.shape]
    return np.array([[x, y, z, 1.0] for x in ends[0] for y in ends[1] for z in ends[2]]).T


def _corners_apart(mask: NiftiFile, image: NiftiFile, affines: list[NDArray[np.float64]]) -> float:
    """Return the largest distance between corresponding corners, in mm."""
    first, second = (affine @ _corners(file) for affine, file in zip(affines, (mask, image), strict=True))
    return float(np.linalg.norm((first - second)[:3], axis=0).max())


def _require_overlap(mask: NiftiFile, image: NiftiFile, to_image: NDArray[np.float64], apart: float) -> None:
    """Refuse a mask that sticks out of its image on one side and leaves the other side free: it has been moved.

    A mask that holds its image, or lies in it, may have been cropped or padded. Up to a voxel is let pass.
    """
    corners = (to_image @ _corners(mask))[:3]
    slack = np.maximum(1, np.abs(to_image[:3, :3]).sum(axis=1))
    before = corners.min(axis=1) + 0.5
    behind = corners.max(axis=1) - (np.array(image.shape) - 0.5)
    moved = ((before < -slack) & (behind < -slack)) | ((before > slack) & (behind > slack))
    if moved.any():
        raise _refusal(mask, image, f"they lie up to {apart:.3g} mm apart, each reaching where the other ends")


def _size(file: NiftiFile, affine: NDArray[np.float64]) -> str:
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    return f"{' x '.join(map(str, file.shape))} voxels of {' x '.join(f'{side:.3g}' for side in sides)} mm"


def _refusal(mask: NiftiFile, image: NiftiFile, found: str) -> ImageReadError:
    return ImageReadError(
        f"The mask {mask.path} cannot be laid over its image {image.path}: {found}. Array order alone is not trusted, "
        "since lesions might land elsewhere: save the mask with its image's affine (sform or qform) if they share "
        "their voxels, or resample it onto the image."
    )
