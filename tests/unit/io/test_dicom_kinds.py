"""Which DICOM objects show a patient to score, by their SOP class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, UID_dictionary

from anomalib_medical.io import NoImageError, list_pictures, read_mask_pixels
from anomalib_medical.io.dicom_header import OWN_MANUFACTURER, kind_of, kind_of_file
from tests.helpers.dicom_files import make_dicom, write_dicom

PIXELS = np.eye(8, dtype=np.uint8)
STORAGE = "1.2.840.10008.5.1.4.1.1."
NO_IMAGES = {
    "9.1.1": "12-lead ECG Waveform",
    "11.1": "Grayscale Softcopy Presentation State",
    "30": "Parametric Map",
    "66": "Raw Data",
    "66.1": "Spatial Registration",
    "66.2": "Spatial Fiducials",
    "66.4": "Segmentation",
    "66.5": "Surface Segmentation",
    "66.7": "Label Map Segmentation",
    "67": "Real World Value Mapping",
    "88.11": "Basic Text SR",
    "88.59": "Key Object Selection Document",
    "104.1": "Encapsulated PDF",
    "481.2": "RT Dose",
    "481.3": "RT Structure Set",
    "481.5": "RT Plan",
}
IMAGES = [
    "1",
    "1.2",
    "2",
    "2.1",
    "4",
    "4.1",
    "6.1",
    "6.2",
    "7",
    "7.4",
    "12.1",
    "20",
    "77.1.4",
    "77.1.6",
    "128",
    "481.1",
]


@pytest.mark.parametrize("end", NO_IMAGES)
def test_other_objects_are_refused_with_their_kind(tmp_path: Path, end: str) -> None:
    path = write_dicom(tmp_path / "a", PIXELS, SOPClassUID=STORAGE + end)
    assert kind_of_file(path) == NO_IMAGES[end]
    with pytest.raises(NoImageError, match=rf"without an image to learn from.* \({NO_IMAGES[end]}\)") as error:
        list_pictures(path)
    assert error.value.kind == NO_IMAGES[end]


@pytest.mark.parametrize("end", IMAGES)
def test_images_are_images(tmp_path: Path, end: str) -> None:
    path = write_dicom(tmp_path / "a", PIXELS, SOPClassUID=STORAGE + end)
    assert kind_of_file(path) is None
    assert len(list_pictures(path)) == 1


def test_every_class_that_the_standard_calls_an_image_is_one() -> None:
    for number, (name, kind, *_) in UID_dictionary.items():
        if kind == "SOP Class" and "Image Storage" in name:
            assert kind_of(make_dicom(PIXELS, SOPClassUID=number)) is None, name


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_whatever_the_encoding(tmp_path: Path, syntax: str) -> None:
    path = write_dicom(tmp_path / "a", PIXELS, SOPClassUID=f"{STORAGE}66.4", TransferSyntaxUID=syntax)
    assert kind_of_file(path) == "Segmentation"


def test_private_and_absent_classes_may_be_images(tmp_path: Path) -> None:
    assert kind_of_file(write_dicom(tmp_path / "a", PIXELS, SOPClassUID="1.3.46.670589.11.0.0.12.1")) is None
    data = make_dicom(PIXELS)
    del data.SOPClassUID
    data.save_as(tmp_path / "b")
    assert kind_of_file(tmp_path / "b") is None


def test_own_captures_are_told_from_those_of_a_film_scanner(tmp_path: Path) -> None:
    own = write_dicom(tmp_path / "a", PIXELS, SOPClassUID=f"{STORAGE}7", Manufacturer=OWN_MANUFACTURER)
    assert kind_of_file(own) == "result of anomalib-medical"
    with pytest.raises(NoImageError, match="result of anomalib-medical"):
        list_pictures(own)
    other = write_dicom(tmp_path / "b", PIXELS, SOPClassUID=f"{STORAGE}7", Manufacturer="VIDAR")
    assert len(list_pictures(other)) == 1


def test_a_segmentation_is_a_mask(tmp_path: Path) -> None:
    frames = np.stack([PIXELS, PIXELS.T * 0])
    path = write_dicom(tmp_path / "a", frames, SOPClassUID=f"{STORAGE}66.4")
    first, second = list_pictures(path, of_mask=True)
    assert np.array_equal(read_mask_pixels(first), PIXELS.astype(bool))
    assert not read_mask_pixels(second).any()


def test_what_is_no_dicom_or_damaged_has_no_kind(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("text")
    (tmp_path / "b").write_bytes(bytes(128) + b"DICM" + bytes(7))
    assert kind_of_file(tmp_path / "a") is None
    assert kind_of_file(tmp_path / "b") is None
