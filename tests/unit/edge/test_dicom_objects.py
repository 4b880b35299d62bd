"""What the DICOM objects take over from the original's header, however it is written."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    MRImageStorage,
    SecondaryCaptureImageStorage,
    UltrasoundImageStorage,
)

from anomalib_medical.edge.dicom_objects import DicomObjects, DicomPicture, SeriesSlice
from anomalib_medical.edge.dicom_originals import orientation
from anomalib_medical.edge.geometry import Step, place
from anomalib_medical.edge.manifest import Manifest, ModelFacts, PostProcessing, Reading, SelfTest
from anomalib_medical.edge.predictor import Prediction
from anomalib_medical.edge.results import SeriesRow
from anomalib_medical.io import list_folder
from tests.helpers.dicom_files import PLACE, make_dicom, write_dicom

VALIDATOR = shutil.which("dciodvfy")
PIXELS = np.arange(600, dtype=np.uint16).reshape(20, 30)
SPACED_FRAME = {"FrameOfReferenceUID": "1.2.3.9", "PixelSpacing": [0.1, 0.1]}


def without(tags):
    """Leave out the elements that are None."""
    return {keyword: value for keyword, value in tags.items() if value is not None}


@pytest.fixture
def objects(tmp_path):
    (tmp_path / "bundle").mkdir()
    facts = {"created": "", "model": ModelFacts("Scrd"), "precision": "fp32", "reading": Reading()}
    Manifest(**facts, post_processing=PostProcessing(), self_test=SelfTest("", 0, 0, 0)).write(tmp_path / "bundle")
    return DicomObjects(tmp_path / "bundle", tmp_path)


def picture(name="abc"):
    mask = np.zeros((10, 15), bool)
    mask[2:4, 5:9] = True
    return DicomPicture(name, Image.new("RGB", (30, 20), (9, 8, 7)), Prediction(1.0, 0.7, True, 0.5, mask * 1.0, mask))


def series_row(worst, **fields):
    facts = {"series": "abc", "patient": "abc", "raw_score": 1.0, "score": 0.7, "label": "abnormal", "threshold": 0.5}
    return SeriesRow(**facts | {"slices": 1} | fields, worst=worst)


def write(objects, path, pictures):
    """Write a file's captures, and what is made of the series that it is; what failed, and why."""
    addresses = [f"{path}#frame={number}" if len(pictures) > 1 else str(path) for number in range(len(pictures))]
    failures = [objects.write_captures(path, pictures)] if objects.captures else []
    slices = [SeriesSlice(path, addresses, [each.prediction for each in pictures])]
    failures.append(objects.write_series(pictures[0].image.partition("_")[0], slices, series_row(addresses[-1])))
    return "; ".join(dict.fromkeys(filter(None, failures)))


def read(folder, name):
    return dcmread(folder / "dicom" / f"{name}.dcm")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}, ["L", "P"]),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, ["P", "F"]),
        ({"ImageOrientationPatient": [-0.9, 0.1, 0.3, 0, -0.9, 0.1]}, ["R", "A"]),
        ({"PatientOrientation": ["L", "F"]}, ["L", "F"]),
        ({}, []),
    ],
)
def test_directions_of_rows_and_columns(tags, expected):
    assert orientation(make_dicom(PIXELS, **tags)) == expected


def test_the_mask_is_at_its_place_in_the_original(objects, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", PIXELS, StudyTime="14:04:38", StudyDate="2001.02.03", **PLACE)
    assert not write(objects, path, [picture()])
    segmentation = read(tmp_path, "abc_segmentation")
    expected = np.zeros((20, 30), bool)
    expected[4:8, 10:18] = True
    np.testing.assert_array_equal(segmentation.pixel_array.reshape(20, 30), expected)
    assert segmentation.FrameOfReferenceUID == "1.2.3.9"
    assert (segmentation.StudyDate, segmentation.StudyTime) == ("20010203", "140438")
    capture = read(tmp_path, "abc_capture")
    assert capture.PatientOrientation == ["L", "P"]
    assert capture.SeriesInstanceUID != segmentation.SeriesInstanceUID


def test_doing_it_again_gives_the_same_objects(objects, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", PIXELS, **PLACE)
    write(objects, path, [picture()])
    first = [read(tmp_path, f"abc_{kind}").SOPInstanceUID for kind in ("capture", "segmentation")]
    write(objects, path, [picture()])
    assert [read(tmp_path, f"abc_{kind}").SOPInstanceUID for kind in ("capture", "segmentation")] == first


def test_what_the_header_lacks_is_said_without_quoting_it(objects, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", PIXELS, StudyInstanceUID=None, PatientName="DOE^JANE")
    assert write(objects, path, [picture()]) == (
        "no Secondary Capture: the original has no StudyInstanceUID; "
        "no DICOM objects: the original has no StudyInstanceUID"
    )
    path = write_dicom(tmp_path / "b.dcm", PIXELS, PatientName="DOE^JANE")
    failure = write(objects, path, [picture()])
    assert "no Segmentation: the original's header lacks FrameOfReferenceUID (ValueError)" in failure
    assert "no Parametric Map: it needs a place in the patient, and the original lacks FrameOfReferenceUID" in failure
    assert "DOE" not in failure
    assert (tmp_path / "dicom" / "abc_capture.dcm").exists()


def test_the_mask_of_a_crop_is_where_the_crop_was(objects, tmp_path):
    placed = place([Step("center_crop", (10, 16))], PIXELS.shape)
    mask = np.zeros((5, 8), bool)
    mask[:2, 5:] = True
    prediction = Prediction(1.0, 0.7, True, 0.5, mask * 1.0, mask, placed)
    path = write_dicom(tmp_path / "a.dcm", PIXELS, **PLACE)
    assert not write(objects, path, [DicomPicture("abc", Image.new("RGB", (30, 20)), prediction)])
    expected = np.zeros((20, 30), bool)
    expected[5:9, 17:23] = True
    np.testing.assert_array_equal(read(tmp_path, "abc_segmentation").pixel_array.reshape(20, 30), expected)


JAPANESE = "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize(
    ("character_set", "name", "hospital"),
    [
        (["", "ISO 2022 IR 87"], JAPANESE, "病院"),
        (["", "ISO 2022 IR 87", "ISO 2022 IR 159"], JAPANESE, "病院"),
        (["ISO 2022 IR 13", "ISO 2022 IR 87"], "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう", "病院"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동", "병원"),
        (["ISO 2022 IR 6", "ISO 2022 IR 100"], "Müller^Jörg", "Süd"),
        (["ISO 2022 IR 100", "ISO 2022 IR 144"], "Люблин^Жюль", "Дюжий"),
        ("GB18030", "Wang^XiaoDong=王^小东", "医院"),
        ("GBK", "Wang^XiaoDong=王^小东", "医院"),
        ("ISO_IR 100", "Müller^Jörg", "Süd"),
        ("ISO-IR 100", "Müller^Jörg", "Süd"),
        ("ISO_IR 192", JAPANESE, "病院"),
        ("ISO_IR 6", "DOE^JANE", "South"),
    ],
    ids=str,
)
def test_names_are_the_same_whatever_their_character_sets(objects, tmp_path, character_set, name, hospital):
    texts = {"PatientName": name, "ReferringPhysicianName": name, "StudyDescription": hospital, "AccessionNumber": "A1"}
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID = "4711", hospital
    path = write_dicom(
        tmp_path / "a.dcm",
        PIXELS,
        SpecificCharacterSet=character_set,
        PatientID="4711",
        OtherPatientIDsSequence=[other],
        **texts,
        **PLACE,
    )
    assert {keyword: str(dcmread(path)[keyword].value) for keyword in texts} == texts
    assert write(objects, path, [picture()]) == ""
    for kind in ("capture", "segmentation"):
        made = read(tmp_path, f"abc_{kind}")
        assert {keyword: str(made[keyword].value) for keyword in texts} == texts
        assert made.PatientID == "4711"
    assert made.OtherPatientIDsSequence[0].IssuerOfPatientID == hospital


def write_name(path, name: bytes, character_set):
    """Write a file with these bytes as the patient's name."""
    stand_in = "X" * len(name)
    write_dicom(path, PIXELS, SpecificCharacterSet=character_set, PatientName=stand_in, **PLACE)
    path.write_bytes(path.read_bytes().replace(stand_in.encode(), name))
    return path


@pytest.mark.parametrize(
    ("name", "character_set"),
    [
        ("Müller".encode("latin-1"), "ISO_IR 192"),
        (b"\xff\xff\xfe", "GB18030"),
        (b"Yamada=\x1b$B;3ED\x1b(B", "ISO_IR 100"),
        (b"Yamada=\x1b$B;3ED\x1b(B", ""),
    ],
)
def test_a_name_that_cannot_be_read_is_not_guessed(objects, tmp_path, name, character_set):
    failure = write(objects, write_name(tmp_path / "a.dcm", name, character_set), [picture()])
    assert failure == "; ".join(
        f"no {kind}: not in the character set that the original states: PatientName"
        for kind in ("Secondary Capture", "Structured Report", "Segmentation", "Parametric Map")
    )
    assert not any((tmp_path / "dicom").iterdir())


def test_a_chinese_name_of_the_standard_s_annex(objects, tmp_path):
    """PS3.5 K.3; pydicom leaves the escape sequences in."""
    name = b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab= "
    assert write(objects, write_name(tmp_path / "a.dcm", name, ["", "ISO 2022 IR 58"]), [picture()]) == ""
    for kind in ("capture", "segmentation"):
        assert str(read(tmp_path, f"abc_{kind}").PatientName).rstrip("= ") == "Zhang^XiaoDong=张^小东"


@pytest.mark.parametrize("name", ["Müller".encode("latin-1"), "山田".encode("shift_jis")])
@pytest.mark.parametrize("character_set", ["", "ISO_IR 6", "ISO_IR 999"])
def test_a_name_without_a_character_set_keeps_its_bytes(objects, tmp_path, name, character_set):
    assert write(objects, write_name(tmp_path / "a.dcm", name, character_set), [picture()]) == ""
    for kind in ("capture", "segmentation"):
        assert name in (tmp_path / "dicom" / f"abc_{kind}.dcm").read_bytes()
        assert not read(tmp_path, f"abc_{kind}").get("SpecificCharacterSet")


def test_thickness_is_the_distance_of_slices_where_only_that_is_said(objects, tmp_path):
    tags = PLACE | {"SliceThickness": None, "SpacingBetweenSlices": 2.5}
    assert write(objects, write_dicom(tmp_path / "a.dcm", PIXELS, **without(tags)), [picture()]) == ""
    (shared,) = read(tmp_path, "abc_segmentation").SharedFunctionalGroupsSequence
    assert shared.PixelMeasuresSequence[0].SliceThickness == 2.5


@pytest.mark.parametrize("value", ["", None])
@pytest.mark.parametrize("keyword", ["SliceThickness", "PixelSpacing", "ImageOrientationPatient"])
def test_a_place_that_lacks_a_part_is_left_out_and_said(objects, tmp_path, keyword, value):
    note = write(objects, write_dicom(tmp_path / "a.dcm", PIXELS, **without(PLACE | {keyword: value})), [picture()])
    assert note == (
        f"no Parametric Map: it needs a place in the patient, and the original lacks {keyword}; "
        f"a Segmentation without a place in the patient: the original lacks {keyword}"
    )
    (shared,) = read(tmp_path, "abc_segmentation").SharedFunctionalGroupsSequence
    assert "PixelMeasuresSequence" not in shared
    assert "PlaneOrientationSequence" not in shared


def test_they_are_not_scored_again(objects, tmp_path):
    write(objects, write_dicom(tmp_path / "a.dcm", PIXELS, Manufacturer="Scanner", **PLACE), [picture()])
    listing = list_folder(tmp_path)
    assert listing.images == [tmp_path / "a.dcm"]
    kinds = {kind: [path.name for path in paths] for kind, paths in listing.no_images.items()}
    assert kinds == {
        "Comprehensive 3D SR": ["abc_report.dcm"],
        "Parametric Map": ["abc_map.dcm"],
        "Segmentation": ["abc_segmentation.dcm"],
        "result of anomalib-medical": ["abc_capture.dcm"],
    }


@pytest.mark.skipif(not VALIDATOR, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize(
    "tags",
    [
        PLACE,
        PLACE | {"SliceThickness": None},
        PLACE | {"SliceThickness": ""},
        PLACE | {"SliceThickness": None, "SOPClassUID": MRImageStorage, "Modality": "MR"},
        PLACE | {"PixelSpacing": None},
        PLACE | {"ImagePositionPatient": None},
        PLACE | {"ImageOrientationPatient": None},
        PLACE | {"SpecificCharacterSet": ["", "ISO 2022 IR 87"], "PatientName": JAPANESE},
        {"Modality": "US", "SOPClassUID": UltrasoundImageStorage},
        {"Modality": "CR", "SOPClassUID": ComputedRadiographyImageStorage, "PixelSpacing": [0.1, 0.1]},
        {"Modality": "CR", "SOPClassUID": ComputedRadiographyImageStorage} | SPACED_FRAME,
        {"Modality": "DX", "SOPClassUID": DigitalXRayImageStorageForPresentation, "ImagerPixelSpacing": [0.1, 0.1]},
        {"Modality": "OT", "SOPClassUID": SecondaryCaptureImageStorage},
    ],
    ids=lambda tags: ", ".join(
        f"{keyword} {value}"[:40] for keyword, value in tags.items() if PLACE.get(keyword) != value
    ),
)
def test_a_validator_of_the_standard_finds_no_error(objects, tmp_path, tags):
    patient = {"PatientName": "DOE^JANE", "PatientID": "4711", "StudyDate": "20200101", "StudyTime": "101112"}
    failure = write(objects, write_dicom(tmp_path / "a.dcm", PIXELS, **without(patient | tags)), [picture()])
    names = {"capture": "SCImage", "segmentation": "Segmentation", "report": "Comprehensive3DSR"}
    if not failure:
        names["map"] = "ParametricMap"
    assert "no " not in failure.replace("no Parametric Map", "")
    for kind, name in names.items():
        command = [VALIDATOR, tmp_path / "dicom" / f"abc_{kind}.dcm"]
        found = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stderr
        assert name in found  # it was recognised
        assert [line for line in found.splitlines() if line.startswith("Error")] == []
