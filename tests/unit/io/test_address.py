"""Addresses of pictures, and which of them a volume has."""

import hashlib

import pytest

from anomalib_medical.io import ImageAddress, Slicing, picture_sha256, sha256


def test_a_file_of_just_this_name_is_taken_as_it_is(tmp_path):
    path = tmp_path / "scan#axial=3"
    assert ImageAddress.parse(path).selection == (("axial", 3),)
    path.touch()
    assert ImageAddress.parse(path) == ImageAddress(path)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2), (-0.1, 1), (0, 1.1)])
def test_ranges_that_hold_nothing_or_too_much_are_refused(shares):
    with pytest.raises(ValueError, match="expected two shares with 0 <= first < last <= 1"):
        Slicing(slice_range=shares)


def test_pictures_of_one_file_have_digests_of_their_own(tmp_path):
    path = tmp_path / "cine.dcm"
    path.write_bytes(b"any content")
    digest = hashlib.sha256(b"any content").hexdigest()
    assert picture_sha256(ImageAddress(path)) == sha256(path) == digest
    assert picture_sha256(ImageAddress(path, (("frame", 3),))) == f"{digest}#frame=3"
