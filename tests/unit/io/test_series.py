"""Which files are one series, in which order, and what is said of those that do not fit."""

import numpy as np
import pytest

from anomalib_medical.io import ImageAddress, dicom_facts, group_series, series_key
from anomalib_medical.io.series import slice_facts
from tests.helpers.dicom_files import PLACE, write_dicom
from tests.helpers.nifti_files import VOLUME, save_nifti

PIXELS = np.zeros((4, 5), np.uint8)
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"


def write_slice(path, place, number=1, **tags):
    given = {"ImagePositionPatient": [7.0, 8.0, place], "InstanceNumber": number, "SOPInstanceUID": f"1.2.{path.stem}"}
    given = PLACE | given | tags
    left_out = {keyword for keyword, value in given.items() if value is None and keyword != "SeriesInstanceUID"}
    return write_dicom(path, given.pop("pixels", PIXELS), **{key: given[key] for key in given.keys() - left_out})


def names(series):
    return [[path.stem for path in each.files] for each in series]


def test_slices_are_ordered_by_place_not_by_name_or_number(tmp_path):
    places = {"1": 6.0, "2": -3.0, "3": 0.0, "4": 3.0}
    files = [write_slice(tmp_path / f"{name}.dcm", place, int(name)) for name, place in places.items()]
    (series,) = group_series(files)
    assert names([series]) == [["2", "3", "4", "1"]]
    assert not series.notes


def test_the_place_is_along_the_normal_of_the_slices(tmp_path):
    sagittal = {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}
    files = [
        write_slice(tmp_path / f"{index}.dcm", 0, ImagePositionPatient=[place, 50 - index, 9], **sagittal)
        for index, place in enumerate([3.0, 1.0, 2.0])
    ]
    assert [facts.position for facts in map(slice_facts, files)] == [-3.0, -1.0, -2.0]
    assert names(group_series(files)) == [["0", "2", "1"]]


def test_without_places_numbers_decide_and_then_names(tmp_path):
    numbers = {"a": 3, "b": 1, "c": 2}
    files = [
        write_slice(tmp_path / f"{name}.dcm", 0, number, ImagePositionPatient=None) for name, number in numbers.items()
    ]
    assert names(group_series(files)) == [["b", "c", "a"]]
    files = [write_slice(tmp_path / f"{name}.dcm", 0, "", ImagePositionPatient=None) for name in "ba"]
    assert names(group_series(files)) == [["a", "b"]]


def test_series_come_in_the_order_of_their_first_files(tmp_path):
    files = [
        write_slice(tmp_path / f"{index}.dcm", index, SeriesInstanceUID=f"1.2.3.{series}")
        for index, series in enumerate([2, 1, 2, 1])
    ]
    (tmp_path / "x.png").write_bytes(b"no image")
    files.insert(1, tmp_path / "x.png")
    assert names(group_series(files)) == [["0", "2"], ["x"], ["1", "3"]]
    assert [bool(series.key) for series in group_series(files)] == [True, False, True]


def test_missing_slices_are_counted_by_their_places(tmp_path):
    files = [write_slice(tmp_path / f"{place}.dcm", place) for place in (0, 2, 4, 10, 12)]
    (series,) = group_series(files)
    assert series.notes == ["2 slices seem to be missing, by their positions"]


def test_a_slice_that_is_there_twice_counts_once(tmp_path):
    files = [write_slice(tmp_path / f"{place}.dcm", place) for place in (0, 1, 2)]
    files.append(write_slice(tmp_path / "z.dcm", 1, SOPInstanceUID="1.2.1"))
    (series,) = group_series(files)
    assert names([series]) == [["0", "1", "2"]]
    assert series.copies == [tmp_path / "z.dcm"]
    assert series.notes == ["1 slice is here twice and counted once"]


def test_slices_of_one_uid_at_several_places_are_all_kept(tmp_path):
    """As bad anonymisers write them."""
    files = [write_slice(tmp_path / f"{place}.dcm", place, SOPInstanceUID="1.2.9") for place in (0, 1, 2)]
    (series,) = group_series(files)
    assert names([series]) == [["0", "1", "2"]]
    assert not series.copies


def test_slices_at_one_place_are_told(tmp_path):
    files = [write_slice(tmp_path / f"{name}.dcm", 0, name) for name in (1, 2)]
    (series,) = group_series(files)
    assert series.notes == ["1 slice lies where another does"]


@pytest.mark.parametrize(
    ("tags", "difference"),
    [
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "several directions"),
        ({"ImageOrientationPatient": None}, "several directions"),
        ({"pixels": np.zeros((5, 4), np.uint8)}, "several sizes"),
        ({"FrameOfReferenceUID": "1.2.77"}, "several frames of reference"),
        ({"FrameOfReferenceUID": None}, "several frames of reference"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "slices and localisers"),
        ({"pixels": np.zeros((3, 4, 5), np.uint8)}, "multi-frame files"),
    ],
)
def test_what_does_not_fit_into_a_stack_is_a_part_of_its_own(tmp_path, tags, difference):
    files = [write_slice(tmp_path / f"{place}.dcm", place) for place in (0, 1)]
    files.append(write_slice(tmp_path / "9.dcm", 2, **tags))
    first, second = group_series(files)
    assert names([first, second]) == [["0", "1"], ["9"]]
    assert first.key != second.key
    assert first.patient == second.patient
    assert [series.notes for series in (first, second)] == [
        [f"part {number} of 2 of a series of {difference}"] for number in (1, 2)
    ]


def test_a_direction_that_only_jitters_is_the_same(tmp_path):
    files = [
        write_slice(tmp_path / f"{index}.dcm", index, ImageOrientationPatient=[1, 0.0004 * index, 0, 0, 1, 0])
        for index in range(3)
    ]
    assert len(group_series(files)) == 1


def test_reports_and_unreadable_files_are_of_no_series(tmp_path):
    files = [write_slice(tmp_path / "0.dcm", 0), write_slice(tmp_path / "1.dcm", 1, SOPClassUID=SEGMENTATION)]
    files.append(tmp_path / "2.dcm")
    files[2].write_bytes(files[0].read_bytes()[:300])
    files.append(tmp_path / "missing.dcm")
    series = group_series(files)
    assert names(series) == [["0"], ["1"], ["2"], ["missing"]]
    assert [bool(each.key) for each in series] == [True, False, False, False]


def test_volumes_and_multi_frame_files_are_series(tmp_path):
    volume = save_nifti(tmp_path / "a.nii.gz", VOLUME)
    cine = write_dicom(tmp_path / "b.dcm", np.zeros((3, 4, 5), np.uint8), SeriesInstanceUID=None)
    assert [bool(series.key) for series in group_series([volume, cine])] == [True, True]
    assert series_key(ImageAddress(volume, (("axial", 3),)), None) == str(volume)
    assert series_key(ImageAddress(volume, (("volume", 1), ("axial", 3))), None) == f"{volume}#volume=1"
    assert series_key(ImageAddress(cine, (("frame", 1),)), dicom_facts(cine)) == str(cine)


def test_no_value_of_a_header_is_in_what_is_said(tmp_path):
    files = [
        write_slice(tmp_path / f"{place}.dcm", place, PatientName="DOE^JANE", PatientID="4711") for place in (0, 1, 5)
    ]
    (series,) = group_series(files)
    assert "DOE" not in repr(series)
    assert "4711" not in repr(series)
