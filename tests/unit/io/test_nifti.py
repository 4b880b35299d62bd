"""NIfTI slices are the same picture in whatever orientation they are stored."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.io import (
    ImageAddress,
    ImageReadError,
    Slicing,
    image_size,
    list_pictures,
    nifti,
    nifti_header,
    nifti_voxels,
)
from anomalib_medical.io.signatures import HEAD_BYTES
from tests.helpers.nifti_files import AFFINE, AXES, ORIENTATIONS, VOLUME, read_values, save_nifti, stored_as


def test_which_way_is_up(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME)
    right, anterior, superior = (size - 1 for size in VOLUME.shape)
    axial = read_values(f"{path}#axial=2")
    assert axial.shape == (5, 4)
    assert axial[0, 0] == VOLUME[right, anterior, 2]
    assert axial[0, -1] == VOLUME[0, anterior, 2]
    assert axial[-1, 0] == VOLUME[right, 0, 2]
    coronal = read_values(f"{path}#coronal=1")
    assert coronal.shape == (6, 4)
    assert coronal[0, 0] == VOLUME[right, 1, superior]
    assert coronal[0, -1] == VOLUME[0, 1, superior]
    assert coronal[-1, 0] == VOLUME[right, 1, 0]
    sagittal = read_values(f"{path}#sagittal=3")
    assert sagittal.shape == (6, 5)
    assert sagittal[0, 0] == VOLUME[3, anterior, superior]
    assert sagittal[0, -1] == VOLUME[3, 0, superior]
    assert sagittal[-1, 0] == VOLUME[3, anterior, 0]


def test_a_file_stored_from_right_to_left_by_hand(tmp_path: Path) -> None:
    plain = save_nifti(tmp_path / "ras.nii", VOLUME)
    mirrored = AFFINE @ np.array([[-1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    other = save_nifti(tmp_path / "las.nii", VOLUME[::-1], mirrored)
    for axis in AXES:
        assert torch.equal(read_image(f"{plain}#{axis}=1"), read_image(f"{other}#{axis}=1"))


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_stored_orientation_does_not_matter(tmp_path: Path, codes: str) -> None:
    plain = save_nifti(tmp_path / "ras.nii", VOLUME)
    other = save_nifti(tmp_path / "other.nii.gz", *stored_as(codes))
    for axis in AXES:
        slicing = Slicing(axis)
        pairs = list(zip(list_pictures(plain, slicing), list_pictures(other, slicing), strict=True))
        assert len(pairs) == VOLUME.shape[("sagittal", "coronal", "axial").index(axis)]
        for one, two in pairs:
            assert one.selection == two.selection
            assert image_size(one) == image_size(two) == tuple(read_image(one).shape[1:])
            assert torch.equal(read_image(one), read_image(two))
            assert torch.equal(read_mask(one), read_mask(two))


@pytest.mark.parametrize("degrees", [-40, 25])
def test_oblique_volumes_take_the_closest_axes(tmp_path: Path, degrees: float) -> None:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]])
    voxels, affine = stored_as("PIR", affine=turn @ np.diag([2.0, 2, 2, 1]))
    path = save_nifti(tmp_path / "a.nii", voxels, affine)
    plain = save_nifti(tmp_path / "ras.nii", VOLUME)
    assert torch.equal(read_image(f"{path}#axial=2"), read_image(f"{plain}#axial=2"))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "IM0001"])
def test_versions_byte_orders_and_names(tmp_path: Path, version: int, order: str, name: str) -> None:
    kind = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    content = kind(VOLUME, AFFINE, header).to_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert nifti.can_read(path.read_bytes()[:HEAD_BYTES])
    assert np.array_equal(read_values(f"{path}#axial=3"), VOLUME[::-1, ::-1, 3].T)
    path.rename(tmp_path / "renamed.png")
    assert image_size(f"{tmp_path / 'renamed.png'}#axial=3") == (5, 4)


@pytest.mark.parametrize(
    "content", [b"", b"text", bytes(2000), b"\x1f\x8b", gzip.compress(b"text", mtime=0), b"\x1f\x8b" * 400]
)
def test_other_content_is_left_to_others(content: bytes) -> None:
    assert not nifti.can_read(content[:HEAD_BYTES])


def test_pairs_of_header_and_pixels_are_left_to_others(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(VOLUME, AFFINE), tmp_path / "a.hdr")
    assert not nifti.can_read((tmp_path / "a.hdr").read_bytes())


@pytest.mark.parametrize(
    "dtype",
    [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64],
)
def test_number_types(tmp_path: Path, dtype: type) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME.astype(dtype), version=2)
    assert np.array_equal(read_values(f"{path}#axial=0"), VOLUME[::-1, ::-1, 0].T)


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_colours(tmp_path: Path, channels: str) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    colours[0, 0, 1] = 0
    voxels = np.zeros((4, 5, 6), [(channel, np.uint8) for channel in channels])
    for index, channel in enumerate("RGB"):
        voxels[channel] = colours[..., index]
    image = read_image(f"{save_nifti(tmp_path / 'a.nii.gz', voxels)}#axial=1")
    expected = torch.from_numpy(colours[::-1, ::-1, 1].transpose(2, 1, 0).astype(np.float32) / np.float32(255))
    assert torch.equal(image, expected)
    assert torch.equal(read_mask(f"{tmp_path / 'a.nii.gz'}#axial=1"), (expected > 0).any(dim=0).to(torch.uint8))


def test_gzip_in_several_pieces(tmp_path: Path) -> None:
    content = save_nifti(tmp_path / "a.nii", VOLUME).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert np.array_equal(read_values(f"{tmp_path / 'a.nii.gz'}#axial=1"), VOLUME[::-1, ::-1, 1].T)


def test_an_offset_of_zero_means_behind_the_header(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME, vox_offset=0)
    assert np.array_equal(read_values(f"{path}#axial=1"), VOLUME[::-1, ::-1, 1].T)


@pytest.mark.parametrize(
    ("shares", "slices"),
    [((0, 1), range(10)), ((0.2, 0.8), range(2, 8)), ((0.5, 0.52), [5]), ((0.99, 1), [9]), ((0.3, 0.4), [3])],
)
def test_slice_ranges(tmp_path: Path, shares: tuple[float, float], slices) -> None:
    path = save_nifti(tmp_path / "a.nii", np.zeros((3, 10, 2), np.int16))
    pictures = list_pictures(path, Slicing("coronal", shares))
    assert pictures == [ImageAddress(path, (("coronal", index),)) for index in slices]


def test_each_volume_of_a_series(tmp_path: Path) -> None:
    series = np.stack([VOLUME, VOLUME * 100], axis=-1)
    path = save_nifti(tmp_path / "a.nii", series)
    pictures = list_pictures(path, Slicing("sagittal"))
    assert [str(picture).rpartition("#")[2] for picture in (pictures[0], pictures[-1])] == [
        "volume=0,sagittal=0",
        "volume=1,sagittal=3",
    ]
    assert len(pictures) == 8
    first, second = read_image(f"{path}#volume=0,axial=2"), read_image(f"{path}#volume=1,axial=2")
    # Each volume has its own scale.
    torch.testing.assert_close(first, second)
    assert np.array_equal(read_values(f"{path}#volume=1,axial=2", VOLUME * 100), 100 * VOLUME[::-1, ::-1, 2].T)


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1)])
def test_trailing_dimensions_of_one_do_not_count(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME.reshape(shape))
    assert list_pictures(path)[5] == ImageAddress(path, (("axial", 5),))
    assert np.array_equal(read_values(f"{path}#axial=5"), VOLUME[::-1, ::-1, 5].T)


@pytest.mark.parametrize("codes", ["RAS", "PSR", "LIA"])
def test_what_is_flat_is_one_picture(tmp_path: Path, codes: str) -> None:
    flat = VOLUME[:, 2:3, :]
    path = save_nifti(tmp_path / "a.nii", *stored_as(codes, flat))
    for axis in AXES:
        assert list_pictures(path, Slicing(axis, (0, 0.1))) == [ImageAddress(path)]
    assert image_size(path) == (6, 4)
    assert np.array_equal(read_values(str(path)), VOLUME[::-1, 2, ::-1].T)


@pytest.mark.parametrize("srow_z", [[0, 0, 3, 0], [0, 0, 0, 0]], ids=["with a third axis", "without"])
def test_two_dimensions(tmp_path: Path, srow_z: list[float]) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME[..., 0], sform_code=1, qform_code=0, srow_z=srow_z)
    assert list_pictures(path) == [ImageAddress(path)]
    assert np.array_equal(read_values(str(path)), VOLUME[::-1, ::-1, 0].T)


def test_a_flat_series(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME[:, :, None, :])
    assert list_pictures(path)[5] == ImageAddress(path, (("volume", 5),))
    assert np.array_equal(read_values(f"{path}#volume=5"), VOLUME[::-1, ::-1, 5].T)


@pytest.mark.parametrize(
    "selection",
    ["", "#axial=6", "#frame=0", "#volume=0,axial=1", "#axial=1,coronal=1"],
)
@pytest.mark.parametrize("function", [read_image, read_mask, image_size])
def test_pictures_that_are_not_there(tmp_path: Path, selection: str, function) -> None:
    path = save_nifti(tmp_path / "a.nii", VOLUME)
    with pytest.raises(ImageReadError, match=r"found 1 volume of 4 x 5 x 6 voxels.*expected #axial=\(0 to 5\) b"):
        function(f"{path}{selection}")


def test_volumes_that_are_not_there(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", np.zeros((4, 5, 1, 3), np.int16))
    with pytest.raises(ImageReadError, match=r"asked for volume=3, expected #volume=\(0 to 2\) behind the path"):
        read_image(f"{path}#volume=3")
    flat = save_nifti(tmp_path / "b.nii", np.zeros((4, 5, 1), np.int16))
    with pytest.raises(ImageReadError, match=r"asked for axial=0, expected no selection behind the path"):
        read_image(f"{flat}#axial=0")


volumes = st.one_of(
    hnp.arrays(np.int16, st.tuples(*[st.integers(2, 4)] * 3)),
    hnp.arrays(np.float32, st.tuples(*[st.integers(2, 4)] * 3), elements=st.floats(width=32)),
)


@settings(max_examples=60)
@given(volume=volumes, codes=st.sampled_from(ORIENTATIONS), axis=st.sampled_from(AXES), data=st.data())
def test_any_volume_gives_the_same_ordered_grey_in_any_orientation(
    tmp_path: Path, volume: np.ndarray, codes: str, axis: str, data: st.DataObject
) -> None:
    # The same names are written again, within a tick of the clock.
    nifti_header._read_header.cache_clear()
    nifti_voxels.robust_range.cache_clear()
    count = volume.shape[("sagittal", "coronal", "axial").index(axis)]
    index = data.draw(st.integers(0, count - 1))
    slope = data.draw(st.sampled_from([1.0, 0.25, 1e10]))
    plain = f"{save_nifti(tmp_path / 'ras.nii', volume, scl_slope=slope)}#{axis}={index}"
    voxels, affine = stored_as(codes, volume)
    other = f"{save_nifti(tmp_path / 'other.nii', voxels, affine, scl_slope=slope)}#{axis}={index}"
    if not np.isfinite(volume).any():
        with pytest.raises(ImageReadError, match="without a finite value"):
            read_image(plain)
        return
    image = read_image(plain)[0].numpy()
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.max() <= 1
    assert np.array_equal(image, read_image(other)[0].numpy())
    values = np.moveaxis(volume, ("sagittal", "coronal", "axial").index(axis), 0)[index, ::-1, ::-1].T
    finite = np.isfinite(values)
    assert not image[~finite].any()
    order = np.argsort(values[finite], kind="stable")
    assert (np.diff(image[finite][order]) >= 0).all()
