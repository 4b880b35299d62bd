"""Maps come back where their slices were read from, in the coordinates of another tool."""

from itertools import cycle

import nibabel
import numpy as np
import pytest
import SimpleITK

from anomalib_medical.io import Slicing, list_pictures, read_pixels
from anomalib_medical.io.nifti_maps import VolumeMap
from tests.helpers.nifti_files import AFFINE, AXES, ORIENTATIONS, VOLUME, save_nifti, stored_as, window_of

TILTED = AFFINE.copy()
TILTED[:3, :3] = [[1.9, 0.3, 0.1], [-0.2, 1.4, 0.5], [0.1, -0.4, 2.9]]


def map_of(path, axis, dtype=np.float32):
    """The volume itself, put together from its slices."""
    made = VolumeMap(path, dtype)
    for address in list_pictures(path, Slicing(axis)):
        made.put(address, read_pixels(address, window_of(VOLUME)))
    return made


@pytest.mark.parametrize(("codes", "axis"), zip(ORIENTATIONS, cycle(AXES), strict=False))
def test_every_voxel_is_where_it_was(tmp_path, codes, axis):
    voxels, affine = stored_as(codes)
    path = save_nifti(tmp_path / "a.nii", voxels, affine)
    target = tmp_path / "map.nii"
    target.write_bytes(map_of(path, axis).content())
    made, original = nibabel.load(target), nibabel.load(path)
    assert made.shape == original.shape
    assert made.get_data_dtype() == np.float32
    np.testing.assert_array_equal(made.affine, original.affine)
    scaled = (np.asarray(original.dataobj) - VOLUME.min()) / (VOLUME.max() - VOLUME.min())
    np.testing.assert_allclose(made.get_fdata(), scaled, atol=1e-6)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("codes", ["RAS", "LPI", "SAR"])
def test_another_tool_finds_the_same_physical_point_in_the_same_voxel(tmp_path, codes, suffix):
    voxels, affine = stored_as(codes, affine=AFFINE)
    path = save_nifti(tmp_path / f"a{suffix}", voxels, affine)
    made = map_of(path, "coronal")
    target = tmp_path / f"map{made.suffix}"
    target.write_bytes(made.content())
    assert made.suffix == suffix
    original, found = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(target))
    assert found.GetSize() == original.GetSize()
    assert found.GetPixelIDValue() == SimpleITK.sitkFloat32
    for index in np.ndindex(*original.GetSize()):
        point = original.TransformIndexToPhysicalPoint(index)
        assert found.TransformPhysicalPointToIndex(point) == index
        value = (original[index] - VOLUME.min()) / (VOLUME.max() - VOLUME.min())
        assert found[index] == pytest.approx(value, abs=1e-6)


def test_a_tilted_volume_keeps_both_of_its_forms(tmp_path):
    image = nibabel.Nifti1Image(VOLUME, TILTED)
    image.header.set_sform(TILTED, 2)
    image.header.set_qform(AFFINE, 1)
    nibabel.save(image, tmp_path / "a.nii")
    (tmp_path / "map.nii").write_bytes(map_of(tmp_path / "a.nii", "axial").content())
    made, original = nibabel.load(tmp_path / "map.nii").header, nibabel.load(tmp_path / "a.nii").header
    for name in ("sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b", "qoffset_x", "pixdim"):
        np.testing.assert_array_equal(made[name], original[name])


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 6, 2), (4, 5, 6, 1, 1)])
def test_shapes_are_the_original_s(tmp_path, shape):
    path = save_nifti(tmp_path / "a.nii", np.arange(np.prod(shape), dtype=np.int16).reshape(shape))
    made = VolumeMap(path, np.uint8)
    addresses = list_pictures(path)
    for number, address in enumerate(addresses, start=1):
        made.put(address, np.full(read_pixels(address, (0.0, 1.0)).shape, number))
    (tmp_path / "map.nii").write_bytes(made.content())
    image = nibabel.load(tmp_path / "map.nii")
    assert image.shape == nibabel.load(path).shape
    assert image.get_data_dtype() == np.uint8
    assert set(np.unique(image.dataobj)) == set(range(1, len(addresses) + 1))


def test_slices_that_were_not_scored_are_zero(tmp_path):
    path = save_nifti(tmp_path / "a.nii", VOLUME)
    made = VolumeMap(path, np.float32)
    address = list_pictures(path, Slicing("axial"))[2]
    made.put(address, np.ones((5, 4), np.float32))
    (tmp_path / "map.nii").write_bytes(made.content())
    assert nibabel.load(tmp_path / "map.nii").get_fdata().sum(axis=(0, 1)).tolist() == [0, 0, 20, 0, 0, 0]


def test_texts_and_scaling_of_the_original_are_left_out(tmp_path):
    image = nibabel.Nifti1Image(VOLUME, AFFINE)
    image.header["descrip"], image.header["db_name"] = b"DOE^JANE", b"DOE^JANE"
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
    nibabel.save(image, tmp_path / "a.nii")
    assert b"DOE^JANE" in (tmp_path / "a.nii").read_bytes()
    content = map_of(tmp_path / "a.nii", "axial").content()
    assert b"DOE^JANE" not in content
