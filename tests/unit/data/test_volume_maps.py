"""Maps of volumes from slices that come in any order, and of which some may never come."""

from types import SimpleNamespace

import nibabel
import numpy as np

from anomalib_medical.data.volume_maps import VolumeWriter
from anomalib_medical.io import Slicing, list_pictures, read_pixels
from tests.helpers.nifti_files import VOLUME, save_nifti, stored_as, window_of


def add_all(writer, addresses, folder, *, mask=True):
    for address in addresses:
        pixels = read_pixels(address, window_of(VOLUME))
        writer.add(address, folder / address.path.stem, pixels, (pixels > 0.5).astype(np.uint8) if mask else None)


def volumes(tmp_path, *names):
    files = [save_nifti(tmp_path / f"{name}.nii", *stored_as("PIL")) for name in names]
    return [list_pictures(path, Slicing("coronal")) for path in files]


def test_a_volume_is_written_when_its_last_slice_comes(tmp_path):
    first, second = volumes(tmp_path, "a", "b")
    writer = VolumeWriter(SimpleNamespace(addresses=[*first, *second]))
    assert writer.wants(first[0])
    add_all(writer, [*first[1:], *second[:2]], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    add_all(writer, first[:1], tmp_path / "out")
    values, mask = (nibabel.load(tmp_path / "out" / f"a_{what}.nii") for what in ("map", "mask"))
    original = nibabel.load(tmp_path / "a.nii")
    scaled = (original.get_fdata() - VOLUME.min()) / (VOLUME.max() - VOLUME.min())
    np.testing.assert_array_equal(values.affine, original.affine)
    np.testing.assert_allclose(values.get_fdata(), scaled, atol=1e-6)
    np.testing.assert_array_equal(mask.get_fdata(), scaled > 0.5)
    writer.finish()
    assert (nibabel.load(tmp_path / "out" / "b_map.nii").get_fdata() != 0).any(axis=(1, 2)).sum() <= 2
    assert (tmp_path / "out" / "b_mask.nii").exists()


def test_where_nobody_knows_how_many_come_the_next_file_ends_a_volume(tmp_path):
    first, second = volumes(tmp_path, "a", "b")
    writer = VolumeWriter(object())
    add_all(writer, [*first, second[0]], tmp_path / "out", mask=False)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_map.nii"]
    writer.finish()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a_map.nii", "b_map.nii"]
