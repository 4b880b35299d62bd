"""What the DICOM objects take over from the original's header, however it is written."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.uid import UltrasoundImageStorage

from anomalib_medical.deploy.edge.dicom_objects import DicomObjects, DicomPicture, _orientation
from anomalib_medical.deploy.edge.io import list_folder
from anomalib_medical.deploy.edge.manifest import Manifest, ModelFacts, PostProcessing, Reading, SelfTest
from anomalib_medical.deploy.edge.predictor import Prediction
from tests.dicom_files import make_dicom, write_dicom

VALIDATOR = shutil.which("dciodvfy")
PIXELS = np.arange(600, dtype=np.uint16).reshape(20, 30)
PLACE = {
    "FrameOfReferenceUID": "1.2.3.9",
    "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    "ImagePositionPatient": [0, 0, 0],
    "PixelSpacing": [1, 1],
    "SliceThickness": 1,
}


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
    assert _orientation(make_dicom(PIXELS, **tags)) == expected


def test_the_mask_is_at_its_place_in_the_original(objects, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", PIXELS, StudyTime="14:04:38", StudyDate="2001.02.03", **PLACE)
    assert not objects.write(path, [picture()])
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
    objects.write(path, [picture()])
    first = [read(tmp_path, f"abc_{kind}").SOPInstanceUID for kind in ("capture", "segmentation")]
    objects.write(path, [picture()])
    assert [read(tmp_path, f"abc_{kind}").SOPInstanceUID for kind in ("capture", "segmentation")] == first


def test_what_the_header_lacks_is_said_without_quoting_it(objects, tmp_path):
    path = write_dicom(tmp_path / "a.dcm", PIXELS, StudyInstanceUID=None, PatientName="DOE^JANE")
    assert objects.write(path, [picture()]) == "no DICOM objects: the original has no StudyInstanceUID"
    path = write_dicom(tmp_path / "b.dcm", PIXELS, PatientName="DOE^JANE")
    failure = objects.write(path, [picture()])
    assert failure == "no Segmentation: the original's header lacks FrameOfReferenceUID (ValueError)"
    assert (tmp_path / "dicom" / "abc_capture.dcm").exists()


def test_they_are_not_scored_again(objects, tmp_path):
    objects.write(write_dicom(tmp_path / "a.dcm", PIXELS, Manufacturer="Scanner", **PLACE), [picture()])
    listing = list_folder(tmp_path)
    assert listing.images == [tmp_path / "a.dcm"]
    kinds = {kind: [path.name for path in paths] for kind, paths in listing.no_images.items()}
    assert kinds == {
        "Segmentation": ["abc_segmentation.dcm"],
        "result of anomalib-medical": ["abc_capture.dcm"],
    }


@pytest.mark.skipif(not VALIDATOR, reason="dciodvfy (Debian's dicom3tools) is not installed")
@pytest.mark.parametrize(
    "tags",
    [PLACE, {"Modality": "US", "SOPClassUID": UltrasoundImageStorage}],
    ids=["slice in a patient", "picture without a place"],
)
def test_a_validator_of_the_standard_finds_no_error(objects, tmp_path, tags):
    patient = {"PatientName": "DOE^JANE", "PatientID": "4711", "StudyDate": "20200101", "StudyTime": "101112"}
    assert objects.write(write_dicom(tmp_path / "a.dcm", PIXELS, **tags, **patient), [picture()]) == ""
    for kind, name in (("capture", "SCImage"), ("segmentation", "Segmentation")):
        command = [VALIDATOR, tmp_path / "dicom" / f"abc_{kind}.dcm"]
        found = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stderr
        assert name in found  # it was recognised
        assert [line for line in found.splitlines() if line.startswith("Error")] == []
