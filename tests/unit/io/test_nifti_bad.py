"""NIfTI files that are no picture, or only a part of one."""

from __future__ import annotations

import contextlib
import gzip
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medical.data.images import read_image, read_mask
from anomalib_medical.io import ImageReadError, image_size, list_pictures, nifti_header, nifti_voxels
from tests.helpers.nifti_files import VOLUME, save_nifti

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
    path = save_nifti(tmp_path / f"a{suffix}", voxels, sform_code=1, qform_code=0, **fields, **FREE_TEXT)
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageReadError, match=message) as error:
        function(path)
    assert str(path) in str(error.value)
    assert "JANE" not in f"{error.value}{caplog.text}{capfd.readouterr()}"


def test_nothing_finite(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii", np.full((4, 5, 6), np.nan, np.float32))
    with pytest.raises(ImageReadError, match="found a volume without a finite value, expected numbers"):
        read_image(f"{path}#axial=0")
    # A window needs no percentiles.
    assert not read_image(f"{path}#axial=0", "brain").any()


@pytest.mark.parametrize("kept", [0.3, 0.999])
def test_truncated(tmp_path: Path, kept: float) -> None:
    content = save_nifti(tmp_path / "a.nii", VOLUME).read_bytes()
    header = 352 if kept < 0.5 else 0
    (tmp_path / "a.nii").write_bytes(content[: max(header, int(kept * len(content)))])
    with pytest.raises(ImageReadError, match=r"damaged or truncated file \(\d+ bytes\), expected 592 bytes for the di"):
        read_image(f"{tmp_path / 'a.nii'}#axial=0")


@pytest.mark.parametrize("lost", [4, 8, 100])
def test_truncated_gzip(tmp_path: Path, lost: int) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (4, 5, 60), np.int16))
    path.write_bytes(path.read_bytes()[:-lost])
    assert image_size(f"{path}#axial=0") == (5, 4)
    with pytest.raises(ImageReadError, match=r"a damaged or truncated file \(\d+ bytes.*Copy or export the file again"):
        read_image(f"{path}#axial=0")


def test_gzip_that_unpacks_to_less_than_promised(tmp_path: Path) -> None:
    content = save_nifti(tmp_path / "a.nii", VOLUME).read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:-10]))
    with pytest.raises(ImageReadError, match="fewer than the 592 bytes that its header promises"):
        read_image(f"{tmp_path / 'a.nii.gz'}#axial=0")


def test_gzip_whose_checksum_is_wrong(tmp_path: Path) -> None:
    path = save_nifti(tmp_path / "a.nii.gz", VOLUME)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(ImageReadError, match="CRC check failed"):
        read_image(f"{path}#axial=0")


@given(data=st.data(), suffix=st.sampled_from([".nii", ".nii.gz"]))
def test_damage_gives_pixels_or_our_error_and_nothing_else(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    nifti_header._read_header.cache_clear()
    nifti_voxels.robust_range.cache_clear()
    content = bytearray(save_nifti(tmp_path / f"a{suffix}", VOLUME.astype(np.float32)).read_bytes())
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
