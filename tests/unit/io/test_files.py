"""Files and pictures in them: addresses, digests, and names that Unicode spells in two ways."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.io import (
    ImageAddress,
    image_size,
    list_pictures,
    on_disk,
    picture_sha256,
    read_mask_pixels,
    read_pixels,
    sha256,
)

NFC, NFD = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")


def test_a_file_of_just_this_name_is_taken_as_it_is(tmp_path):
    path = tmp_path / "scan#axial=3"
    assert ImageAddress.parse(path).selection == (("axial", 3),)
    path.touch()
    assert ImageAddress.parse(path) == ImageAddress(path)


def test_pictures_of_one_file_have_digests_of_their_own(tmp_path):
    path = tmp_path / "cine.dcm"
    path.write_bytes(b"any content")
    digest = hashlib.sha256(b"any content").hexdigest()
    assert picture_sha256(ImageAddress(path)) == sha256(path) == digest
    assert picture_sha256(ImageAddress(path, (("frame", 3),))) == f"{digest}#frame=3"


def put(path: Path, value: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5), value, np.uint8)).save(path)
    return path


@pytest.mark.parametrize(("stored", "asked"), [(NFC, NFD), (NFD, NFC)])
@pytest.mark.parametrize("function", [read_pixels, read_mask_pixels, image_size, list_pictures])
def test_a_file_is_found_under_its_other_name(tmp_path: Path, stored: str, asked: str, function) -> None:
    path = put(tmp_path / f"Müller {stored}" / f"{stored}ß.png", 9)
    assert on_disk(tmp_path / f"Müller {asked}" / f"{asked}ß.png") == path
    function(tmp_path / f"Müller {asked}" / f"{asked}ß.png")


def test_the_exact_name_wins(tmp_path: Path) -> None:
    put(tmp_path / f"{NFC}.png", 10)
    put(tmp_path / f"{NFD}.png", 20)
    assert float(read_pixels(tmp_path / f"{NFC}.png")[0, 0]) == pytest.approx(10 / 255)
    assert float(read_pixels(tmp_path / f"{NFD}.png")[0, 0]) == pytest.approx(20 / 255)


def test_a_file_that_comes_later_is_found_too(tmp_path: Path) -> None:
    asked = tmp_path / f"{NFC}.png"
    assert on_disk(asked) == asked
    os.utime(tmp_path, ns=(0, 0))
    stored = put(tmp_path / f"{NFD}.png", 1)
    assert on_disk(asked) == stored


def test_a_missing_file_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{NFC}.png"):
        read_pixels(tmp_path / f"{NFC}.png")
