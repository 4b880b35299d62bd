"""Gzipped NIfTI volumes are unpacked once, within a bounded memory."""

from __future__ import annotations

import gzip
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.io import Slicing, list_pictures, nifti_voxels
from anomalib_medical.io.nifti_voxels import VolumeCache
from tests.helpers.nifti_files import AXES, VOLUME, read_values, save_nifti


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch) -> VolumeCache:
    fresh = VolumeCache(limit=2**20)
    monkeypatch.setattr(nifti_voxels, "cache", fresh)
    return fresh


@pytest.fixture
def unpackings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []
    for name in ("_unpack", "_unpack_volume"):
        original = getattr(nifti_voxels, name)
        monkeypatch.setattr(nifti_voxels, name, lambda *args, f=original, n=name: calls.append(n) or f(*args))
    return calls


def test_all_slices_take_one_unpacking(tmp_path: Path, cache: VolumeCache, unpackings: list[str]) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", np.stack([VOLUME, VOLUME + 1], axis=-1))
    for axis in AXES:
        for picture in list_pictures(path, Slicing(axis)):
            read_image(picture)
            read_mask(picture)
    assert unpackings == ["_unpack"]
    # int16 as stored, nothing wider.
    assert cache.bytes == 352 + 2 * VOLUME.nbytes


def test_plain_files_take_no_memory(tmp_path: Path, cache: VolumeCache, unpackings: list[str]) -> None:
    for picture in list_pictures(save_nifti(tmp_path / "a.nii", VOLUME)):
        read_image(picture)
    assert (unpackings, cache.bytes) == ([], 0)


def test_memory_stays_within_the_bound(tmp_path: Path, cache: VolumeCache, unpackings: list[str]) -> None:
    cache.limit = 3 * (352 + VOLUME.nbytes) - 1
    paths = [save_nifti(tmp_path / f"{index}.nii.gz", VOLUME + index) for index in range(4)]
    for path in paths + paths:
        read_image(f"{path}#axial=0")
        assert cache.bytes <= cache.limit
    # Two have room, so each of the four has gone when its turn comes again; then its range is already known.
    assert unpackings == ["_unpack"] * 8


def test_a_series_that_is_too_large_is_kept_volume_by_volume(
    tmp_path: Path, cache: VolumeCache, unpackings: list[str]
) -> None:
    cache.limit = 2 * VOLUME.nbytes
    path = save_nifti(tmp_path / "a.nii.gz", np.stack([VOLUME, VOLUME * 2, VOLUME * 3], axis=-1))
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
    path = save_nifti(tmp_path / "a.nii.gz", VOLUME)
    with caplog.at_level(logging.WARNING):
        for index in range(6):
            assert np.array_equal(read_values(f"{path}#axial={index}"), VOLUME[::-1, ::-1, index].T)
    assert cache.bytes == 0
    assert [record.getMessage().partition(" takes")[0] for record in caplog.records] == [f"A volume of {path}"]


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    # Stored and not deflated, so that both have the same size.
    contents = [
        gzip.compress(save_nifti(tmp_path / "a.nii", voxels).read_bytes(), compresslevel=0)
        for voxels in (VOLUME, -VOLUME)
    ]
    path.write_bytes(contents[0])
    assert read_values(f"{path}#axial=0")[0, 0] == VOLUME[-1, -1, 0]
    written = path.stat()
    path.write_bytes(contents[1])
    os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns + 1))
    assert path.stat().st_size == written.st_size
    assert read_values(f"{path}#axial=0", -VOLUME)[0, 0] == -VOLUME[-1, -1, 0]
