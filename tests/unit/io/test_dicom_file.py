"""A header is read to its end or refused: what is damaged is never taken for a report or a file without patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset

from anomalib_medical.data.images import read_mask
from anomalib_medical.io import ImageReadError, NoImageError, dicom_facts, image_size, list_pictures, read_pixels
from tests.helpers.dicom_files import make_dicom

RAMP = np.linspace(0, 4095, 480).astype(np.uint16).reshape(24, 20)
EVERY_WAY = (read_pixels, read_mask, image_size, list_pictures, dicom_facts)
# Elements before the patient, between patient and image, among the image's, and behind those.
PLACES = {0x00081030: "LO", 0x001021B0: "LT", 0x00280034: "IS", 0x00281050: "DS", 0x00324000: "LT"}
VRS = [b"--", b"\0\0", b"??", b"  ", b"lt", b"L ", b"\xff\xff"]


def image(**tags) -> Dataset:
    data = make_dicom(RAMP, BitsStored=12, HighBit=11, PatientID="4711", PatientName="A^B", **tags)
    for tag, vr in PLACES.items():
        data.add_new(tag, vr, "7" if vr != "LT" else "what was written about it")
    data.WindowWidth = "4096"
    return data


def save(data: Dataset, path: Path) -> bytes:
    data.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def failing_or_right(path: Path, original: Path) -> None:
    for function in EVERY_WAY:
        expected = function(original)
        try:
            got = function(path)
        except ImageReadError as error:
            assert not isinstance(error, NoImageError)  # noqa: PT017  # the alternative
        else:
            assert function is list_pictures or np.array_equal(got, expected)


def failing(path: Path, functions=EVERY_WAY) -> None:
    for function in functions:
        with pytest.raises(ImageReadError) as error:
            function(path)
        assert not isinstance(error.value, NoImageError)


@pytest.mark.parametrize("rows", [24, 2400])
@pytest.mark.parametrize("vr", VRS)
@pytest.mark.parametrize("tag", PLACES, ids=lambda tag: f"{tag:08x}")
def test_an_element_whose_vr_is_none(tmp_path: Path, tag: int, vr: bytes, rows: int) -> None:
    data = image()
    # So large that the length which is then read may lie within the file, in pixels of several kinds.
    data.Rows, data.PixelData = rows, np.resize(RAMP, (rows, 20)).tobytes() if rows < 100 else bytes(rows * 40)
    content = save(data, tmp_path / "a")
    head = (tag >> 16).to_bytes(2, "little") + (tag & 0xFFFF).to_bytes(2, "little")
    assert content.count(head + PLACES[tag].encode()) == 1
    (tmp_path / "b").write_bytes(content.replace(head + PLACES[tag].encode(), head + vr))
    failing_or_right(tmp_path / "b", tmp_path / "a")
    if vr in {b"--", b"\0\0", b"??"}:
        failing(tmp_path / "b")


@pytest.mark.parametrize("pixels", [bytes, lambda size: b"\1\0" * (size // 2), np.random.default_rng(0).bytes])
def test_a_length_that_leads_into_the_pixels(tmp_path: Path, pixels) -> None:
    data = image(Rows=20000, Columns=100, PixelData=pixels(4_000_000))
    content = save(data, tmp_path / "a")
    head = b"\x10\0\xb0\x21"
    (tmp_path / "a").write_bytes(content.replace(head + b"LT", head + b"--"))
    failing(tmp_path / "a")


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian])
def test_a_header_that_is_cut_off_anywhere(tmp_path: Path, syntax: uid.UID) -> None:
    data = image(TransferSyntaxUID=syntax)
    data.SharedFunctionalGroupsSequence = [Dataset()]
    data["SharedFunctionalGroupsSequence"].is_undefined_length = True
    content = save(data, tmp_path / "a")
    start = content.index(syntax.encode()) + len(syntax) + 12
    for length in range(start, len(content) - RAMP.nbytes - 12, 3):
        (tmp_path / "b").write_bytes(content[:length])
        failing(tmp_path / "b", (read_pixels, read_mask))
        try:
            assert dicom_facts(tmp_path / "b").patient is not None or length < content.index(b"4711")
        except ImageReadError as error:
            assert not isinstance(error, NoImageError)  # noqa: PT017  # either is right, by where the cut is
        try:
            assert image_size(tmp_path / "b") == (24, 20)
        except ImageReadError as error:
            assert not isinstance(error, NoImageError)  # noqa: PT017


def test_rows_that_are_lost_are_named(tmp_path: Path) -> None:
    save(make_dicom(RAMP, Rows=None), tmp_path / "a")
    with pytest.raises(ImageReadError, match=r"of an image, damaged or cut off, without Rows \(0028,0010\)"):
        read_pixels(tmp_path / "a")
    save(make_dicom(RAMP, Rows=None, Columns=None), tmp_path / "a")
    failing(tmp_path / "a", EVERY_WAY[:-1])
    save(make_dicom(RAMP, Rows=None, Columns=None, PixelData=None), tmp_path / "a")
    failing(tmp_path / "a", EVERY_WAY[:-1])


@pytest.mark.parametrize("kind", [uid.BasicTextSRStorage, uid.RTPlanStorage, uid.UID("1.3.12.2.1107.5.9.1")])
def test_other_kinds_without_an_image_hold_none(tmp_path: Path, kind: uid.UID) -> None:
    content = save(make_dicom(RAMP, Rows=None, Columns=None, PixelData=None, SOPClassUID=kind), tmp_path / "a")
    for function in EVERY_WAY[:-1]:
        with pytest.raises(NoImageError, match="without an image"):
            function(tmp_path / "a")
    for length in (1, 5, 9):
        (tmp_path / "a").write_bytes(content[:-length])
        failing(tmp_path / "a")


@pytest.mark.parametrize("kind", [uid.EnhancedUSVolumeStorage, uid.OphthalmicThicknessMapStorage])
def test_images_whose_class_is_not_called_so_hold_one(tmp_path: Path, kind: uid.UID) -> None:
    data = image(SOPClassUID=kind)
    for keyword in ("Rows", "Columns", "PixelData"):
        del data[keyword]
    save(data, tmp_path / "a")
    failing(tmp_path / "a", EVERY_WAY[:-1])


def test_an_element_that_comes_twice_is_no_damage(tmp_path: Path) -> None:
    content = save(image(), tmp_path / "a")
    element = content[(start := content.index(b"\x10\0\x20\0LO")) :][: 8 + content[start + 6]]
    (tmp_path / "b").write_bytes(content[:start] + element + content[start:])
    assert dicom_facts(tmp_path / "b") == dicom_facts(tmp_path / "a")
    assert np.array_equal(read_pixels(tmp_path / "b"), read_pixels(tmp_path / "a"))


def test_elements_out_of_order_are_no_damage(tmp_path: Path) -> None:
    content = save(image(), tmp_path / "a")
    element = content[(start := content.index(b"\x10\0\xb0\x21LT")) :][: 8 + content[start + 6]]
    before = content.index(b"\x7f\x10\0") - 1
    moved = content[:start] + content[start + len(element) : before] + element + content[before:]
    assert len(moved) == len(content)
    expected = read_pixels(tmp_path / "a")
    (tmp_path / "a").write_bytes(moved)
    assert np.array_equal(read_pixels(tmp_path / "a"), expected)
    assert dicom_facts(tmp_path / "a").patient is not None


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_wrong_byte_of_a_vr_loses_nothing_silently(tmp_path: Path, data: st.DataObject) -> None:
    """Every element in turn: what is read has the patient and the pixels, or nothing is."""
    content = bytearray(save(image(), tmp_path / "a"))
    tags = [b"\x08\0\x16\0UI", b"\x10\0\x20\0LO", b"\x28\0\x10\0US", b"\x28\0\x11\0US", b"\x28\0\x04\0CS"]
    place = bytes(content).index(data.draw(st.sampled_from(tags)), 300) + 4 + data.draw(st.integers(0, 1))
    content[place] = data.draw(st.integers(0, 64) | st.integers(91, 255))
    (tmp_path / "b").write_bytes(content)
    failing_or_right(tmp_path / "b", tmp_path / "a")
