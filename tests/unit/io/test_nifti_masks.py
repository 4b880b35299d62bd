"""Mask volumes lie where their affines say, however they are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomalib_medical.io import ImageReadError, Slicing, list_pictures, read_mask_values, read_pixels
from tests.helpers.nifti_files import AXES, ORIENTATIONS, save_nifti, stored_as

SHAPE = (7, 9, 5)
AFFINE = np.array([[2.0, 0, 0, -30], [0, 1.5, 0, 12], [0, 0, 3, -40], [0, 0, 0, 1]])
# Two blocks that tell left from right, front from back and top from bottom.
MASK = np.zeros(SHAPE, np.uint8)
MASK[1:3, 2:6, 1] = 1
MASK[5, 7, 2:4] = 2


def slices(mask: Path, image: Path, axis: str = "axial") -> list[np.ndarray]:
    return [read_mask_values(mask, picture) for picture in list_pictures(image, Slicing(axis))]


def expected(volume: np.ndarray, axis: str = "axial") -> list[np.ndarray]:
    body = ("sagittal", "coronal", "axial").index(axis)
    return [plane[::-1, ::-1].T for plane in np.moveaxis(volume, body, 0)]


def assert_slices(found: list[np.ndarray], volume: np.ndarray, axis: str = "axial") -> None:
    for got, want in zip(found, expected(volume, axis), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Brighter where the mask is."""
    return save_nifti(tmp_path / "image.nii", *stored_as("LPS", MASK.astype(np.int16) * 100, AFFINE))


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_any_orientation_gives_the_same_slices(image: Path, tmp_path: Path, codes: str) -> None:
    mask = save_nifti(tmp_path / "mask.nii.gz", *stored_as(codes, MASK, AFFINE))
    for axis in AXES:
        assert_slices(slices(mask, image, axis), MASK, axis)
        for picture in list_pictures(image, Slicing(axis)):
            assert np.array_equal(read_pixels(picture, (100, 200)) * 2, read_mask_values(mask, picture))


def at(origin: tuple[float, float, float], sides: tuple[float, float, float]) -> np.ndarray:
    affine = np.diag([*sides, 1.0])
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
def test_finer_voxels(image: Path, tmp_path: Path, codes: str) -> None:
    fine = MASK.repeat(2, 0).repeat(3, 1)
    affine = AFFINE @ np.diag([1 / 2, 1 / 3, 1, 1])
    affine[:3, 3] = AFFINE[:3, 3] - AFFINE[:3, :3] @ [1 / 4, 1 / 3, 0]
    mask = save_nifti(tmp_path / "mask.nii", *stored_as(codes, fine, affine))
    assert_slices(slices(mask, image), MASK)


def test_a_crop_and_a_padding(image: Path, tmp_path: Path) -> None:
    crop = MASK[1:6, 2:8, 1:4]
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ [1, 2, 1]
    for axis in AXES:
        assert_slices(slices(save_nifti(tmp_path / "crop.nii", crop, affine), image, axis), MASK, axis)
    affine[:3, 3] = AFFINE[:3, 3] - AFFINE[:3, :3] @ [2, 2, 2]
    padded = save_nifti(tmp_path / "padded.nii", np.pad(MASK, 2, constant_values=9), affine)
    assert_slices(slices(padded, image), MASK)


def test_outside_is_0_though_the_file_stores_it_as_another_number(image: Path, tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ [1, 2, 1]
    mask = save_nifti(tmp_path / "m.nii", MASK[1:6, 2:8, 1:4] + np.uint8(5), affine, scl_slope=1, scl_inter=-5)
    assert_slices(slices(mask, image), MASK)


def test_a_turned_grid(image: Path, tmp_path: Path) -> None:
    """A mask on a grid that is turned by 20 degrees: each pixel is the mask's value at that place in the body."""
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ at((0, 0, 0), (0.5, 0.5, 3))
    middle = AFFINE @ [3, 4, 2, 1]
    affine[:3, 3] += (middle - affine @ [40, 40, 2, 1])[:3]
    x, y, z = np.indices((81, 81, 5))
    body = affine @ np.stack([x.ravel(), y.ravel(), z.ravel(), np.ones(x.size)])
    ball = np.linalg.norm((body - middle[:, None])[:2], axis=0).reshape(x.shape) < 4
    mask = save_nifti(tmp_path / "m.nii", ball.astype(np.uint8), affine)
    i, j = np.indices(SHAPE[:2])
    distance = np.hypot((i - 3) * 2.0, (j - 4) * 1.5)
    found = slices(mask, image)[2].T[::-1, ::-1]
    assert np.array_equal(found[distance < 3.6], np.ones_like(found[distance < 3.6]))
    assert not found[distance > 4.4].any()


@pytest.mark.parametrize("share", [-0.4, -0.15, 0.15, 0.4])
def test_less_than_half_a_voxel_changes_nothing(image: Path, tmp_path: Path, share: float) -> None:
    affine = AFFINE.copy()
    affine[:3, 3] += share * np.diag(AFFINE)[:3]
    assert_slices(slices(save_nifti(tmp_path / "m.nii", MASK, affine), image), MASK)


def test_halfway_between_two_voxels_all_pixels_go_to_one_side(image: Path, tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 3] += 1.0
    found = np.stack([plane.T[::-1, ::-1] for plane in slices(save_nifti(tmp_path / "m.nii", MASK, affine), image)], -1)
    assert np.array_equal(found, MASK) or np.array_equal(found[1:], MASK[:-1])


def test_volumes_of_a_series(tmp_path: Path) -> None:
    series = np.stack([MASK, MASK[::-1]], -1)
    image = save_nifti(tmp_path / "image.nii", series.astype(np.int16), AFFINE)
    shifted = AFFINE.copy()
    shifted[:3, 3] -= AFFINE[:3, :3] @ [2, 0, 0]
    for mask in (
        save_nifti(tmp_path / "a.nii", *stored_as("LPI", series, AFFINE)),
        save_nifti(tmp_path / "b.nii.gz", np.pad(series, ((2, 2), (0, 0), (0, 0), (0, 0))), shifted),
    ):
        found = slices(mask, image)
        assert_slices(found[:5], series[..., 0])
        assert_slices(found[5:], series[..., 1])


@pytest.mark.parametrize("affine", [None, np.eye(4), np.diag([-1.0, -1, 1, 1])], ids=["none", "identity", "ITK's"])
def test_arrays_without_a_place_match_by_their_order(tmp_path: Path, affine: np.ndarray | None) -> None:
    mask = save_nifti(tmp_path / "mask.nii", MASK, affine)
    image = save_nifti(tmp_path / "image.nii", MASK.astype(np.float32), affine)
    for found, shown in zip(slices(mask, image), list_pictures(image), strict=True):
        assert np.array_equal(found / 2, read_pixels(shown, (1, 2)))


MOVED = AFFINE.copy()
MOVED[2, 3] += 100
SHIFTED = AFFINE.copy()
SHIFTED[0, 3] += 6
TURNED = np.diag([-1.0, -1, 1, 1]) @ AFFINE


@pytest.mark.parametrize(
    ("affine", "reason"),
    [
        (np.eye(4), r"image\.nii says where it lies in the body and .*mask\.nii does not"),
        (np.diag([-1.0, -1, 1, 1]), r"mask\.nii does not"),
        (None, r"mask\.nii does not"),
        (MOVED, "up to 100 mm apart, each reaching where the other ends"),
        (SHIFTED, "up to 6 mm apart"),
        (TURNED, r"up to 1?\d\d?(\.\d+)? mm apart"),
    ],
    ids=["identity", "ITK's", "none", "100 mm away", "three voxels away", "turned"],
)
def test_what_is_elsewhere_is_refused(image: Path, tmp_path: Path, affine: np.ndarray | None, reason: str) -> None:
    mask = save_nifti(tmp_path / "mask.nii", MASK, affine)
    with pytest.raises(ImageReadError, match=rf"mask\.nii cannot be laid over its image .*image\.nii: .*{reason}"):
        slices(mask, image)


def test_an_image_without_a_place_takes_no_mask_that_has_one(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"mask\.nii says where it lies in the body and .*image\.nii does not"):
        slices(save_nifti(tmp_path / "mask.nii", MASK, AFFINE), save_nifti(tmp_path / "image.nii", MASK, None))


def test_other_shapes_without_a_place_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"neither says.* 7 x 9 x 4 voxels of 1 x 1 x 1 mm and 7 x 9 x 5 voxels"):
        slices(save_nifti(tmp_path / "mask.nii", MASK[..., 1:], None), save_nifti(tmp_path / "image.nii", MASK, None))


def test_two_places_are_refused_where_they_matter(tmp_path: Path) -> None:
    """The sform puts the image elsewhere than its qform, and the mask has the qform only."""
    image = save_nifti(tmp_path / "image.nii", MASK, AFFINE, qform_code=1)
    other = AFFINE.copy()
    other[0, 3] += 1.0
    twice = save_nifti(tmp_path / "twice.nii", MASK, other, qform_code=1, qoffset_x=AFFINE[0, 3])
    with pytest.raises(ImageReadError, match=r"1 mm apart, and the sform and the qform of .*twice\.nii disagree"):
        slices(image, twice)
    assert_slices(slices(twice, twice), MASK)
