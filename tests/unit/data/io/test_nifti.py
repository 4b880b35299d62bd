"""NIfTI slices are the same picture in whatever orientation they are stored; what is no picture gets an error."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import logging
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform

from anomalib_medical.data.io import (
    ImageAddress,
    ImageReadError,
    Slicing,
    image_size,
    list_pictures,
    nifti_header,
    nifti_voxels,
    read_image,
    read_mask,
)
from anomalib_medical.data.io.nifti import NiftiReader
from anomalib_medical.data.io.signatures import HEAD_BYTES
from anomalib_medical.data.io.volume_cache import VolumeCache

AXES = ("axial", "coronal", "sagittal")
# Right, anterior, superior; no two voxels and no two sides are alike.
VOLUME = np.random.default_rng(0).permutation(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
AFFINE = np.array([[2.0, 0, 0, -3], [0, 1.5, 0, 7], [0, 0, 3, -20], [0, 0, 0, 1]])
ORIENTATIONS = [
    "".join(codes)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*order)
]  # fmt: skip


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> VolumeCache:
    fresh = VolumeCache(limit=2**20)
    monkeypatch.setattr(nifti_voxels, "cache", fresh)
    return fresh


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = AFFINE, *, version: int = 1, **fields) -> Path:
    """Write with header fields as given, whatever nibabel would think of them."""
    image = (nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image)(voxels, affine, dtype=voxels.dtype)
    image.header.set_slope_inter(1, 0)
    content = bytearray(image.to_bytes())
    header = image.header.copy()
    header["vox_offset"] = header.single_vox_offset
    for name, value in fields.items():
        header.structarr[name] = value
    content[: header.sizeof_hdr] = header.binaryblock
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def stored_as(codes: str, volume: np.ndarray = VOLUME, affine: np.ndarray = AFFINE) -> tuple[np.ndarray, np.ndarray]:
    """Return a volume in (right, anterior, superior) order as a file of another orientation stores it."""
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    return apply_orientation(volume, change), affine @ inv_ornt_aff(change, volume.shape)


def window_of(volume: np.ndarray) -> tuple[float, float]:
    """Return the window that keeps every value apart."""
    low, high = float(volume.min()), float(volume.max())
    return (low + high) / 2, high - low


def read_values(address: str | ImageAddress, volume: np.ndarray = VOLUME) -> np.ndarray:
    """Read a slice through the widest window, and undo it."""
    grey = read_image(address, window_of(volume))[0].numpy().astype(np.float64)
    return np.rint(grey * (volume.max() - volume.min()) + volume.min())


def test_which_way_is_up(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOLUME)
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
    plain = save(tmp_path / "ras.nii", VOLUME)
    mirrored = AFFINE @ np.array([[-1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    other = save(tmp_path / "las.nii", VOLUME[::-1], mirrored)
    for axis in AXES:
        assert torch.equal(read_image(f"{plain}#{axis}=1"), read_image(f"{other}#{axis}=1"))


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_the_stored_orientation_does_not_matter(tmp_path: Path, codes: str) -> None:
    plain = save(tmp_path / "ras.nii", VOLUME)
    other = save(tmp_path / "other.nii.gz", *stored_as(codes))
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
    path = save(tmp_path / "a.nii", voxels, affine)
    plain = save(tmp_path / "ras.nii", VOLUME)
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
    assert NiftiReader.can_read(path.read_bytes()[:HEAD_BYTES])
    assert np.array_equal(read_values(f"{path}#axial=3"), VOLUME[::-1, ::-1, 3].T)
    path.rename(tmp_path / "renamed.png")
    assert image_size(f"{tmp_path / 'renamed.png'}#axial=3") == (5, 4)


@pytest.mark.parametrize("content", [b"", b"text", bytes(2000), b"\x1f\x8b", gzip.compress(b"text"), b"\x1f\x8b" * 400])
def test_other_content_is_left_to_others(content: bytes) -> None:
    assert not NiftiReader.can_read(content[:HEAD_BYTES])


def test_pairs_of_header_and_pixels_are_left_to_others(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(VOLUME, AFFINE), tmp_path / "a.hdr")
    assert not NiftiReader.can_read((tmp_path / "a.hdr").read_bytes())


@pytest.mark.parametrize(
    "dtype",
    [np.uint8, np.int8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, np.float32, np.float64],
)
def test_number_types(tmp_path: Path, dtype: type) -> None:
    path = save(tmp_path / "a.nii", VOLUME.astype(dtype), version=2)
    assert np.array_equal(read_values(f"{path}#axial=0"), VOLUME[::-1, ::-1, 0].T)


@pytest.mark.parametrize("channels", ["RGB", "RGBA"])
def test_colours(tmp_path: Path, channels: str) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    colours[0, 0, 1] = 0
    voxels = np.zeros((4, 5, 6), [(channel, np.uint8) for channel in channels])
    for index, channel in enumerate("RGB"):
        voxels[channel] = colours[..., index]
    image = read_image(f"{save(tmp_path / 'a.nii.gz', voxels)}#axial=1")
    expected = torch.from_numpy(colours[::-1, ::-1, 1].transpose(2, 1, 0).astype(np.float32) / np.float32(255))
    assert torch.equal(image, expected)
    assert torch.equal(read_mask(f"{tmp_path / 'a.nii.gz'}#axial=1"), (expected > 0).any(dim=0).to(torch.uint8))


# Pictures


@pytest.mark.parametrize(
    ("shares", "slices"),
    [((0, 1), range(10)), ((0.2, 0.8), range(2, 8)), ((0.5, 0.52), [5]), ((0.99, 1), [9]), ((0.3, 0.4), [3])],
)
def test_slice_ranges(tmp_path: Path, shares: tuple[float, float], slices) -> None:
    path = save(tmp_path / "a.nii", np.zeros((3, 10, 2), np.int16))
    pictures = list_pictures(path, Slicing("coronal", shares))
    assert pictures == [ImageAddress(path, (("coronal", index),)) for index in slices]


def test_each_volume_of_a_series(tmp_path: Path) -> None:
    series = np.stack([VOLUME, VOLUME * 100], axis=-1)
    path = save(tmp_path / "a.nii", series)
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
    path = save(tmp_path / "a.nii", VOLUME.reshape(shape))
    assert list_pictures(path)[5] == ImageAddress(path, (("axial", 5),))
    assert np.array_equal(read_values(f"{path}#axial=5"), VOLUME[::-1, ::-1, 5].T)


@pytest.mark.parametrize("codes", ["RAS", "PSR", "LIA"])
def test_what_is_flat_is_one_picture(tmp_path: Path, codes: str) -> None:
    flat = VOLUME[:, 2:3, :]
    path = save(tmp_path / "a.nii", *stored_as(codes, flat))
    for axis in AXES:
        assert list_pictures(path, Slicing(axis, (0, 0.1))) == [ImageAddress(path)]
    assert image_size(path) == (6, 4)
    assert np.array_equal(read_values(str(path)), VOLUME[::-1, 2, ::-1].T)


@pytest.mark.parametrize("srow_z", [[0, 0, 3, 0], [0, 0, 0, 0]], ids=["with a third axis", "without"])
def test_two_dimensions(tmp_path: Path, srow_z: list[float]) -> None:
    path = save(tmp_path / "a.nii", VOLUME[..., 0], sform_code=1, qform_code=0, srow_z=srow_z)
    assert list_pictures(path) == [ImageAddress(path)]
    assert np.array_equal(read_values(str(path)), VOLUME[::-1, ::-1, 0].T)


def test_a_flat_series(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOLUME[:, :, None, :])
    assert list_pictures(path)[5] == ImageAddress(path, (("volume", 5),))
    assert np.array_equal(read_values(f"{path}#volume=5"), VOLUME[::-1, ::-1, 5].T)


@pytest.mark.parametrize(
    "selection",
    ["", "#axial=6", "#frame=0", "#volume=0,axial=1", "#axial=1,coronal=1"],
)
@pytest.mark.parametrize("function", [read_image, read_mask, image_size])
def test_pictures_that_are_not_there(tmp_path: Path, selection: str, function) -> None:
    path = save(tmp_path / "a.nii", VOLUME)
    with pytest.raises(ImageReadError, match=r"found 1 volume\(s\) of 4 x 5 x 6 voxels.*expected #axial=\(0 to 5\) b"):
        function(f"{path}{selection}")


def test_volumes_that_are_not_there(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.zeros((4, 5, 1, 3), np.int16))
    with pytest.raises(ImageReadError, match=r"asked for volume=3, expected #volume=\(0 to 2\) behind the path"):
        read_image(f"{path}#volume=3")
    flat = save(tmp_path / "b.nii", np.zeros((4, 5, 1), np.int16))
    with pytest.raises(ImageReadError, match=r"asked for axial=0, expected no selection behind the path"):
        read_image(f"{flat}#axial=0")


# Grey values


def grey(tmp_path: Path, voxels: np.ndarray, index: int = 0, **fields) -> np.ndarray:
    """Return an axial slice as (right, anterior)."""
    # A file that is written again within a tick of the clock would pass for the old one.
    path = save(tmp_path / f"{len(list(tmp_path.iterdir()))}.nii", voxels, **fields)
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
    path = save(tmp_path / "a.nii", VOLUME, scl_slope=slope, scl_inter=99)
    assert np.array_equal(read_values(f"{path}#axial=1"), VOLUME[::-1, ::-1, 1].T)


@pytest.mark.parametrize("slope", [0.5, -2.0])
def test_a_window_is_in_scaled_units(tmp_path: Path, slope: float) -> None:
    path = save(tmp_path / "a.nii", VOLUME, scl_slope=slope, scl_inter=-10)
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
    labels[1, 2, 3], labels[2, 2, 3], labels[0, 0, 3], labels[0, 1, 3] = 1, -0.25, np.nan, np.inf
    mask = read_mask(f"{save(tmp_path / 'm.nii', labels)}#axial=3").numpy().T[::-1, ::-1]
    assert {(int(x), int(y)) for x, y in np.argwhere(mask)} == {(1, 2), (2, 2)}


def test_masks_whose_zero_is_stored_as_another_number(tmp_path: Path) -> None:
    labels = np.full((4, 5, 6), 3, np.int16)
    labels[1, 2, 3], labels[2, 2, 3] = 4, 0
    path = save(tmp_path / "m.nii", labels, scl_slope=0.1, scl_inter=-0.3)
    assert nibabel.load(path).get_fdata()[0, 0, 0] != 0  # but a rounding error, else this tests nothing
    mask = read_mask(f"{path}#axial=3").numpy().T[::-1, ::-1]
    assert np.array_equal(mask, labels[..., 3] != 3)


# Cache


@pytest.fixture
def unpackings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("_unpack", "_unpack_volume"):
        original = getattr(nifti_voxels, name)
        monkeypatch.setattr(nifti_voxels, name, lambda *args, f=original, n=name: calls.append(n) or f(*args))
    return calls


def test_all_slices_take_one_unpacking(tmp_path: Path, cache: VolumeCache, unpackings: list[str]) -> None:
    path = save(tmp_path / "a.nii.gz", np.stack([VOLUME, VOLUME + 1], axis=-1))
    for axis in AXES:
        for picture in list_pictures(path, Slicing(axis)):
            read_image(picture)
            read_mask(picture)
    assert unpackings == ["_unpack"]
    # int16 as stored, nothing wider.
    assert cache.bytes == 352 + 2 * VOLUME.nbytes


def test_plain_files_take_no_memory(tmp_path: Path, cache: VolumeCache, unpackings: list[str]) -> None:
    for picture in list_pictures(save(tmp_path / "a.nii", VOLUME)):
        read_image(picture)
    assert (unpackings, cache.bytes) == ([], 0)


def test_memory_stays_within_the_bound(tmp_path: Path, cache: VolumeCache, unpackings: list[str]) -> None:
    cache.limit = 3 * (352 + VOLUME.nbytes) - 1
    paths = [save(tmp_path / f"{index}.nii.gz", VOLUME + index) for index in range(4)]
    for path in paths + paths:
        read_image(f"{path}#axial=0")
        assert cache.bytes <= cache.limit
    # Two have room, so each of the four has gone when its turn comes again; then its range is already known.
    assert unpackings == ["_unpack"] * 8


def test_a_series_that_is_too_large_is_kept_volume_by_volume(
    tmp_path: Path, cache: VolumeCache, unpackings: list[str]
) -> None:
    cache.limit = 2 * VOLUME.nbytes
    path = save(tmp_path / "a.nii.gz", np.stack([VOLUME, VOLUME * 2, VOLUME * 3], axis=-1))
    for volume in range(3):
        for index in range(6):
            values = read_values(f"{path}#volume={volume},axial={index}", VOLUME * (volume + 1))
            assert np.array_equal(values, VOLUME[::-1, ::-1, index].T * (volume + 1))
    assert unpackings == ["_unpack_volume"] * 3
    assert cache.bytes == cache.limit


def test_a_volume_that_is_too_large_can_be_read(
    tmp_path: Path, cache: VolumeCache, caplog: pytest.LogCaptureFixture
) -> None:
    cache.limit = VOLUME.nbytes - 1
    path = save(tmp_path / "a.nii.gz", VOLUME)
    with caplog.at_level(logging.WARNING):
        for index in range(6):
            assert np.array_equal(read_values(f"{path}#axial={index}"), VOLUME[::-1, ::-1, index].T)
    assert cache.bytes == 0
    assert [record.getMessage().partition(" takes")[0] for record in caplog.records] == [f"A volume of {path}"]


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    # Stored and not deflated, so that both have the same size.
    contents = [
        gzip.compress(save(tmp_path / "a.nii", voxels).read_bytes(), compresslevel=0) for voxels in (VOLUME, -VOLUME)
    ]
    path.write_bytes(contents[0])
    assert read_values(f"{path}#axial=0")[0, 0] == VOLUME[-1, -1, 0]
    written = path.stat()
    path.write_bytes(contents[1])
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns + 1))
    assert path.stat().st_size == written.st_size
    assert read_values(f"{path}#axial=0", -VOLUME)[0, 0] == -VOLUME[-1, -1, 0]


def test_gzip_in_several_pieces(tmp_path: Path) -> None:
    content = save(tmp_path / "a.nii", VOLUME).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    assert np.array_equal(read_values(f"{tmp_path / 'a.nii.gz'}#axial=1"), VOLUME[::-1, ::-1, 1].T)


def test_an_offset_of_zero_means_behind_the_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", VOLUME, vox_offset=0)
    assert np.array_equal(read_values(f"{path}#axial=1"), VOLUME[::-1, ::-1, 1].T)


# Bad input

FREE_TEXT = {"descrip": b"DOE^JANE", "intent_name": b"DOE^JANE", "aux_file": b"DOE^JANE", "db_name": b"DOE^JANE"}
TWO_POINT_FIVE_D = (4, 5, 6, 1, 3)
BAD_HEADERS = {
    "vectors": (np.zeros(TWO_POINT_FIVE_D, np.int16), {}, r"dimensions 4 x 5 x 6 x 1 x 3, expected two to four"),
    "one dimension": (np.zeros(5, np.int16), {}, "dimensions 5, expected two to four"),
    "complex": (np.zeros((4, 5, 6), np.complex64), {}, "voxels of type complex64, expected integers"),
    "no voxels": (VOLUME, {"dim": [3, 4, 0, 6, 1, 1, 1, 1]}, "dimensions 4 x 0 x 6"),
    "negative": (VOLUME, {"dim": [3, 4, -5, 6, 1, 1, 1, 1]}, "dimensions 4 x -5 x 6"),
    "no dimensions": (VOLUME, {"dim": [0] * 8}, "dimensions 0, expected two"),
    "too many voxels": (
        VOLUME,
        {"dim": [3, 30000, 30000, 30000, 1, 1, 1, 1]},
        "damaged or truncated.*54000000000352 b",
    ),
    "unknown type": (VOLUME, {"datatype": 77}, "damaged or truncated.*data code 77"),
    "intercept": (VOLUME, {"scl_inter": np.nan}, "damaged or truncated.*invalid intercept"),
    "offset": (VOLUME, {"vox_offset": 20}, "damaged or truncated.*vox offset 20 too low"),
    "no orientation": (VOLUME, {"srow_x": 0, "srow_y": 0, "srow_z": 0}, "does not say how the volume lies in the body"),
    "NaN orientation": (VOLUME, {"srow_x": np.nan}, "does not say how the volume lies in the body"),
}


@pytest.mark.parametrize(("voxels", "fields", "message"), BAD_HEADERS.values(), ids=BAD_HEADERS)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("function", [read_image, read_mask, image_size, list_pictures])
def test_bad_headers(
    tmp_path: Path, suffix: str, voxels: np.ndarray, fields: dict, message: str, function, caplog, capfd
) -> None:
    path = save(tmp_path / f"a{suffix}", voxels, sform_code=1, qform_code=0, **fields, **FREE_TEXT)
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageReadError, match=message) as error:
        function(path)
    assert str(path) in str(error.value)
    assert "JANE" not in f"{error.value}{caplog.text}{capfd.readouterr()}"


def test_nothing_finite(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.full((4, 5, 6), np.nan, np.float32))
    with pytest.raises(ImageReadError, match="found a volume without a finite value, expected numbers"):
        read_image(f"{path}#axial=0")
    # A window needs no percentiles.
    assert not read_image(f"{path}#axial=0", "brain").any()


@pytest.mark.parametrize("kept", [0.3, 0.999])
def test_truncated(tmp_path: Path, kept: float) -> None:
    content = save(tmp_path / "a.nii", VOLUME).read_bytes()
    header = 352 if kept < 0.5 else 0
    (tmp_path / "a.nii").write_bytes(content[: max(header, int(kept * len(content)))])
    with pytest.raises(ImageReadError, match=r"damaged or truncated file \(\d+ bytes\), expected 592 bytes for the di"):
        read_image(f"{tmp_path / 'a.nii'}#axial=0")


@pytest.mark.parametrize("lost", [4, 8, 100])
def test_truncated_gzip(tmp_path: Path, lost: int) -> None:
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (4, 5, 60), np.int16))
    path.write_bytes(path.read_bytes()[:-lost])
    assert image_size(f"{path}#axial=0") == (5, 4)
    with pytest.raises(ImageReadError, match=r"a damaged or truncated file \(\d+ bytes.*Copy or export the file again"):
        read_image(f"{path}#axial=0")


def test_gzip_that_unpacks_to_less_than_promised(tmp_path: Path) -> None:
    content = save(tmp_path / "a.nii", VOLUME).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:-10]))
    with pytest.raises(ImageReadError, match="fewer than the 592 bytes that its header promises"):
        read_image(f"{tmp_path / 'a.nii.gz'}#axial=0")


def test_gzip_whose_checksum_is_wrong(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", VOLUME)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="CRC check failed"):
        read_image(f"{path}#axial=0")


# Properties

volumes = st.one_of(
    hnp.arrays(np.int16, st.tuples(*[st.integers(2, 4)] * 3)),
    hnp.arrays(np.float32, st.tuples(*[st.integers(2, 4)] * 3), elements=st.floats(width=32)),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    plain = f"{save(tmp_path / 'ras.nii', volume, scl_slope=slope)}#{axis}={index}"
    voxels, affine = stored_as(codes, volume)
    other = f"{save(tmp_path / 'other.nii', voxels, affine, scl_slope=slope)}#{axis}={index}"
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


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), suffix=st.sampled_from([".nii", ".nii.gz"]))
def test_damage_gives_pixels_or_our_error_and_nothing_else(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    nifti_header._read_header.cache_clear()
    nifti_voxels.robust_range.cache_clear()
    content = bytearray(save(tmp_path / f"a{suffix}", VOLUME.astype(np.float32)).read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        # The header is where damage is varied.
        content[data.draw(st.integers(0, min(360, len(content) - 1)))] = data.draw(st.integers(0, 255))
    path = tmp_path / f"b{suffix}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(ImageReadError):
        for picture in list_pictures(path)[:3]:
            image = read_image(picture)
            assert image.shape[1:] == image_size(picture)
            assert bool(((image >= 0) & (image <= 1)).all())
