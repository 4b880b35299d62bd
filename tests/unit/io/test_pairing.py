"""Which picture of a mask file lies over which picture of an image file; what is said of it, see the data's tests."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.io import ImageAddress, ImageReadError, list_pictures, pair_masks
from tests.helpers.dicom_files import write_dicom
from tests.helpers.nifti_files import AFFINE, VOLUME, save_nifti, stored_as


def paired(image: Path, mask: Path) -> tuple[list[str], bool]:
    masks, resampled = pair_masks(ImageAddress(image), ImageAddress(mask), list_pictures(image))
    return [str(each).removeprefix(str(mask)) for each in masks], resampled


def test_one_picture_has_one_mask(tmp_path):
    for name in "ab":
        Image.new("L", (8, 8)).save(tmp_path / f"{name}.png")
    assert paired(tmp_path / "a.png", tmp_path / "b.png") == ([""], False)
    Image.new("L", (8, 9)).save(tmp_path / "b.png")
    with pytest.raises(ImageReadError, match=r"b\.png has 9x8 pixels .* has 8x8\. Masks are not stretched"):
        paired(tmp_path / "a.png", tmp_path / "b.png")


def test_frames_are_paired_in_their_order(tmp_path):
    for name, frames in (("a", 3), ("b", 3), ("c", 2)):
        write_dicom(tmp_path / name, np.zeros((frames, 8, 8), np.uint8))
    assert paired(tmp_path / "a", tmp_path / "b") == ([f"#frame={index}" for index in range(3)], False)
    with pytest.raises(ImageReadError, match=r"c holds 2 pictures, its image .* 3\. They must match one to one"):
        paired(tmp_path / "a", tmp_path / "c")


@pytest.mark.parametrize("codes", ["RAS", "PIR"])
def test_volumes_are_paired_by_their_affines(tmp_path, codes):
    image = save_nifti(tmp_path / "a.nii", VOLUME)
    mask = save_nifti(tmp_path / "b.nii", *stored_as(codes))
    assert paired(image, mask) == ([f"#axial={index}" for index in range(6)], False)
    moved = AFFINE.copy()
    moved[:3, 3] += AFFINE[:3, 0]
    save_nifti(mask, *stored_as(codes, VOLUME, moved))
    assert paired(image, mask) == ([""] * 6, True)
