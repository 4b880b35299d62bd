"""The NIfTI files of the shared data, against nibabel's own arrays."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest

from anomalib_medical.data.images import read_image
from anomalib_medical.io import ImageAddress, Slicing, image_size, list_pictures, read_mask_values

FILES = (
    "anatomical.nii",
    "example4d.nii.gz",
    "example_nifti2.nii.gz",
    "functional.nii",
    "reoriented_anat_moved.nii",
    "someones_anatomy.nii.gz",
    "someones_epi.nii.gz",
)


@pytest.fixture(params=FILES)
def path(request: pytest.FixtureRequest) -> Path:
    root = os.environ.get("ANOMALIB_MEDICAL_DATA")
    if not root:
        pytest.skip("ANOMALIB_MEDICAL_DATA does not name the folder with formats/nifti")
    return Path(root) / "formats" / "nifti" / request.param


def canonical(path: Path) -> np.ndarray:
    """Return (right, anterior, superior, volume)."""
    voxels = nibabel.as_closest_canonical(nibabel.load(path)).get_fdata()
    return voxels if voxels.ndim == 4 else voxels[..., None]


def shown(volume: np.ndarray, axis: str, index: int) -> np.ndarray:
    """Draw a slice pixel by pixel, by where in the body each pixel is."""
    right, anterior, superior = (size - 1 for size in volume.shape)
    if axis == "axial":
        return np.array(
            [[volume[right - x, anterior - y, index] for x in range(right + 1)] for y in range(anterior + 1)]
        )
    if axis == "coronal":
        return np.array(
            [[volume[right - x, index, superior - z] for x in range(right + 1)] for z in range(superior + 1)]
        )
    return np.array(
        [[volume[index, anterior - y, superior - z] for y in range(anterior + 1)] for z in range(superior + 1)]
    )


def expected_grey(volume: np.ndarray, picture: np.ndarray) -> np.ndarray:
    corners = [volume[x, y, z] for x in (0, -1) for y in (0, -1) for z in (0, -1)]
    background = max(sorted(set(corners)), key=corners.count)
    foreground = np.sort(volume[volume != background])
    tail = int(0.005 * (len(foreground) - 1))
    low, high = foreground[tail], foreground[-1 - tail]
    return np.clip((picture - low) / (high - low), 0, 1)


@pytest.mark.parametrize("axis", ["axial", "coronal", "sagittal"])
def test_every_slice_equals_nibabels_array(path: Path, axis: str) -> None:
    voxels = canonical(path)
    pictures = list_pictures(path, Slicing(axis))
    count = voxels.shape[{"sagittal": 0, "coronal": 1, "axial": 2}[axis]]
    volumes = range(voxels.shape[3])
    selections = [((("volume", v),) if len(volumes) > 1 else ()) + ((axis, i),) for v in volumes for i in range(count)]
    assert pictures == [ImageAddress(path, selection) for selection in selections]
    # Every slice of every file would take ten times as long, to no purpose.
    for picture in pictures[:: max(1, len(pictures) // 12)]:
        chosen = dict(picture.selection)
        volume = voxels[..., chosen.get("volume", 0)]
        values = shown(volume, axis, chosen[axis])
        image = read_image(picture)
        assert image.shape == (3, *values.shape)
        assert image_size(picture) == values.shape
        np.testing.assert_allclose(image[0].numpy(), expected_grey(volume, values), atol=1e-6)
        assert np.array_equal(image[0], image[2])
        np.testing.assert_allclose(read_mask_values(picture), values, atol=1e-6)


def test_a_window_applies_to_the_values_that_nibabel_gives(path: Path) -> None:
    voxels = canonical(path)[..., 0]
    center, width = float(np.median(voxels)), float(np.ptp(voxels)) / 3
    picture = list_pictures(path)[voxels.shape[2] // 2]
    values = shown(voxels, "axial", voxels.shape[2] // 2)
    image = read_image(picture, (center, width))[0].numpy()
    np.testing.assert_allclose(image, np.clip((values - center) / width + 0.5, 0, 1), atol=1e-6)
    assert 0 < image.mean() < 1
