"""What a header says of an image's origin: pseudonyms and codes, never who it is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from anomalib_medical.io import ImageReadError, dicom_facts
from tests.helpers.dicom_files import STUDY, make_dicom, write_dicom

PIXELS = np.zeros((4, 6), np.uint16)
NAME = "Doe^John"


@pytest.mark.filterwarnings("ignore:The value length")
def test_metadata(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a",
        PIXELS,
        BodyPartExamined="CHEST",
        ImageLaterality="L",
        Manufacturer="ACME é",
        ManufacturerModelName="x" * 64 + "y",
        PatientSex="F",
        SpecificCharacterSet="ISO_IR 192",
        ViewPosition="PA",
    )
    assert dicom_facts(path).metadata == {
        "body_part": "CHEST",
        "columns": "6",
        "laterality": "L",
        "manufacturer": "ACME é",
        "modality": "CT",
        "model": "x" * 64,
        "photometric": "MONOCHROME2",
        "rows": "4",
        "sex": "F",
        "transfer_syntax": "Explicit VR Little Endian",
        "view": "PA",
    }


@pytest.mark.parametrize("keyword", ["BodyPartExamined", "Laterality", "Modality", "PatientSex", "ViewPosition"])
@pytest.mark.parametrize("typed", [NAME, "JOHN\\\\DOE", "1955-02-02"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_is_no_code_is_other(tmp_path: Path, keyword: str, typed: str) -> None:
    metadata = dicom_facts(write_dicom(tmp_path / "a", PIXELS, **{keyword: typed})).metadata
    assert [value for value in metadata.values() if value == "other"] == ["other"]
    assert not {"Doe", "JOHN", "1955"} & set(" ".join(metadata.values()).replace("^", " ").split())


@pytest.mark.parametrize("keyword", ["Laterality", "PatientSex"])
def test_sex_and_side_are_one_letter(tmp_path: Path, keyword: str) -> None:
    assert "other" in dicom_facts(write_dicom(tmp_path / "a", PIXELS, **{keyword: "JOHN DOE"})).metadata.values()


def test_pseudonyms(tmp_path: Path) -> None:
    one = dicom_facts(write_dicom(tmp_path / "1", PIXELS, PatientID="4711", PatientName=NAME))
    same = dicom_facts(write_dicom(tmp_path / "2", PIXELS + 1, PatientID="4711 ", PatientName="Other^Jane"))
    other = dicom_facts(write_dicom(tmp_path / "3", PIXELS, PatientID="4712"))
    elsewhere = dicom_facts(write_dicom(tmp_path / "4", PIXELS, PatientID="4711", IssuerOfPatientID="clinic"))
    assert one == same
    assert len({one.patient, other.patient}) == 2
    assert elsewhere.patient == one.patient
    assert elsewhere.issuer != one.issuer is None
    assert one.study != one.series
    for value in (one.patient, one.study, one.series):
        assert value is not None
        assert len(value) == 16
        int(value, 16)
    for secret in ("4711", "Doe", STUDY):
        assert secret not in repr(one)


def test_no_id_gives_no_pseudonym(tmp_path: Path) -> None:
    for name, tags in (("a", {"PatientID": ""}), ("b", {"PatientID": "  "}), ("c", {})):
        facts = dicom_facts(write_dicom(tmp_path / name, PIXELS, StudyInstanceUID=None, **tags))
        assert facts.patient is None
        assert facts.study is None


def test_deflated(tmp_path: Path) -> None:
    plain = dicom_facts(write_dicom(tmp_path / "a", PIXELS, PatientID="4711"))
    deflated = write_dicom(tmp_path / "b", PIXELS, PatientID="4711", TransferSyntaxUID=DeflatedExplicitVRLittleEndian)
    assert dicom_facts(deflated).patient == plain.patient


def test_pixels_are_not_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a", np.zeros((2000, 2000), np.uint16), PatientID="4711")
    content = path.read_bytes()
    (tmp_path / "b").write_bytes(content[:-7_900_000])
    assert dicom_facts(tmp_path / "b") == dicom_facts(path)
    start = time.perf_counter()
    for _ in range(20):
        dicom_facts(path)
    assert time.perf_counter() - start < 1


def test_a_damaged_header(tmp_path: Path) -> None:
    data = make_dicom(PIXELS, PatientID="4711", TransferSyntaxUID=DeflatedExplicitVRLittleEndian)
    data.save_as(tmp_path / "a", enforce_file_format=True)
    content = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(content[:-60] + bytes(30))
    with pytest.raises(ImageReadError, match="damaged or cut off"):
        dicom_facts(tmp_path / "a")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dicom_facts(tmp_path / "absent")
