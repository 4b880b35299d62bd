"""Which NIfTI values become black, which white, and which belong to a mask."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from anomalib_medical.data.images import read_image, read_mask
from tests.helpers.nifti_files import VOLUME, read_values, save_nifti


def grey(tmp_path: Path, voxels: np.ndarray, index: int = 0, **fields) -> np.ndarray:
    """Return an axial slice as (right, anterior)."""
    # A file that is written again within a tick of the clock would pass for the old one.
    path = save_nifti(tmp_path / f"{len(list(tmp_path.iterdir()))}.nii", voxels, **fields)
    return read_image(f"{path}#axial={index}")[0].numpy().T[::-1, ::-1]


def test_background_does_not_decide_and_all_slices_share_one_scale(tmp_path: Path) -> None:
    volume = np.zeros((40, 40, 40), np.int16)
    volume[15:25, 15:25, 15:25] = np.arange(1000).reshape(10, 10, 10) + 500
    low, high = 500 + 4, 1499 - 4
    for index in (15, 24):
        expected = np.clip((volume[..., index] - low) / (high - low), 0, 1)
        np.testing.assert_allclose(grey(tmp_path, volume, index), expected, atol=1e-6)


def test_background_that_is_not_zero(tmp_path: Path) -> None:
    volume = np.full((20, 20, 20), -1024, np.int16)
    volume[0, 0, 0], volume[0, 0, -1] = -3000, -2000
    volume[5:15, 5:15, 5:15] = np.arange(1000).reshape(10, 10, 10)
    # Of 1002 voxels that are left, five are darker than black: the two corners and 0, 1, 2.
    expected = np.clip((volume[..., 9] - 3.0) / (994 - 3), 0, 1)
    np.testing.assert_allclose(grey(tmp_path, volume, 9), expected, atol=1e-6)


def test_few_values_keep_their_order(tmp_path: Path) -> None:
    labels = np.zeros((6, 6, 2), np.uint8)
    labels[2:4, 2:4] = 1
    assert np.array_equal(grey(tmp_path, labels), labels[..., 0])


@pytest.mark.parametrize("value", [0, 7, -3])
def test_a_constant_volume_is_black(tmp_path: Path, value: int) -> None:
    assert not grey(tmp_path, np.full((4, 4, 2), value, np.int16)).any()


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_no_slope_means_no_scaling(tmp_path: Path, slope: float) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME, scl_slope=slope, scl_inter=99)
    assert np.array_equal(read_values(f"{path}#axial=1"), VOLUME[::-1, ::-1, 1].T)


@pytest.mark.parametrize("slope", [0.5, -2.0])
def test_a_window_is_in_scaled_units(tmp_path: Path, slope: float) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME, scl_slope=slope, scl_inter=-10)
    values = VOLUME[::-1, ::-1, 1].T * slope - 10
    image = read_image(f"{path}#axial=1", (0.0, 40.0))[0].numpy()
    np.testing.assert_allclose(image, np.clip((values + 20) / 40, 0, 1), atol=1e-6)


def test_a_negative_slope_turns_black_into_white(tmp_path: Path) -> None:
    plain = grey(tmp_path, VOLUME)
    np.testing.assert_allclose(grey(tmp_path, VOLUME, scl_slope=-3), 1 - plain, atol=1e-6)


def test_voxels_that_are_no_numbers_are_black_and_count_for_nothing(tmp_path: Path) -> None:
    volume = VOLUME.astype(np.float32)
    plain = grey(tmp_path, volume)
    holes = np.concatenate([volume, np.full((4, 5, 3), np.nan, np.float32)], axis=2)
    holes[..., 7], holes[..., 8] = np.inf, -np.inf
    # The corners keep their values, so that the background stays the same.
    holes = np.concatenate([holes, volume[..., -1:]], axis=2)
    for index in (6, 7, 8):
        assert not grey(tmp_path, holes, index).any()
    foreground = np.sort(np.unique(VOLUME))
    assert np.array_equal(grey(tmp_path, holes) > 0, plain > 0)
    assert len(foreground) == VOLUME.size


def test_values_whose_difference_overflows(tmp_path: Path) -> None:
    volume = np.linspace(-1.7e308 / 119, 1.7e308 / 119, 120).reshape(4, 5, 6) * 119
    image = grey(tmp_path, volume, 3)
    np.testing.assert_allclose(image, np.arange(120).reshape(4, 5, 6)[..., 3] / 119, atol=0.02)


def test_masks_are_what_is_not_zero(tmp_path: Path) -> None:
    labels = np.zeros((4, 5, 6), np.float32)
    labels[1, 2, 3], labels[2, 2, 3], labels[0, 0, 3], labels[0, 1, 3] = 1, -2, np.nan, np.inf
    mask = read_mask(f"{save_nifti(tmp_path / 'm.nii', labels)}#axial=3").numpy().T[::-1, ::-1]
    assert {(int(x), int(y)) for x, y in np.argwhere(mask)} == {(1, 2), (2, 2)}


def test_masks_whose_zero_is_stored_as_another_number(tmp_path: Path) -> None:
    labels = np.full((4, 5, 6), 3, np.int16)
    labels[1, 2, 3], labels[2, 2, 3] = 13, 23
    path = save_nifti(tmp_path / "m.nii", labels, scl_slope=0.1, scl_inter=-0.3)
    assert nibabel.load(path).get_fdata()[0, 0, 0] != 0  # but a rounding error, else this tests nothing
    mask = read_mask(f"{path}#axial=3").numpy().T[::-1, ::-1]
    assert np.array_equal(mask, labels[..., 3] != 3)
