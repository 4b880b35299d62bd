"""Series on the box: their rows, their thresholds, what is written of them, and what of bad ones."""

import csv
import logging
from zlib import crc32

import nibabel
import numpy as np
import pytest
import SimpleITK
from PIL import Image

from anomalib_medical.edge.manifest import Calibration, PostProcessing, Reading
from anomalib_medical.edge.predictor import Predictor
from anomalib_medical.edge.processing import Processor
from anomalib_medical.edge.run import find_files, run
from anomalib_medical.edge.scores import series_score
from anomalib_medical.edge.series import SeriesScorer
from anomalib_medical.edge.series_rows import PatientRows, SliceScore, judge, series_row, why_no_threshold
from anomalib_medical.io import group_series
from tests.helpers.dicom_files import PLACE, write_dicom
from tests.helpers.nifti_files import AFFINE, save_nifti

IMAGES = Calibration(threshold=0.4, minimum=0.1, maximum=0.6, limit=0.5)
SERIES = Calibration(threshold=0.5, minimum=0.2, maximum=0.7, limit=0.5)
PATIENTS = Calibration(threshold=0.65, minimum=0.3, maximum=0.8, limit=0.5)
FACTS = PostProcessing("softsign", IMAGES, IMAGES, series=SERIES, patient=PATIENTS)
WHO = {"PatientName": "DOE^JANE", "PatientID": "4711"}


class Scorer:
    """The mean as score, the first channel as map."""

    def score(self, image):
        return float(image.mean()), image[0]


def make_scorer(output, facts=FACTS, *, volumes=True, **reading):
    output.mkdir(exist_ok=True)
    processor = Processor(Predictor(Scorer(), facts), Reading(**reading), output, heatmaps=volumes, dicom=None)
    return SeriesScorer(processor, facts, output, volumes=volumes, dicom=None)


def uid_of(name):
    return f"1.2.{crc32(name.encode())}"


def write_slice(path, grey, place, **tags):
    """A slice of one grey value in 255."""
    given = PLACE | WHO | {"ImagePositionPatient": [0, 0, place], "SOPInstanceUID": uid_of(path.stem)} | tags
    return write_dicom(path, given.pop("pixels", np.full((6, 5), grey, np.uint8)), **given)


def rows_of(output, stem):
    with (output / f"{stem}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def run_on(source, output, facts=FACTS, *, volumes=False):
    scorer = make_scorer(output, facts, volumes=volumes)
    return run(find_files([str(source)]), output, scorer, facts)


@pytest.mark.parametrize(("top", "expected"), [(1, 0.9), (2, 0.7), (3, 0.5), (10, 0.5)])
def test_the_score_of_a_series_is_the_mean_of_its_highest(top, expected):
    assert series_score([0.1, 0.9, 0.5], top) == pytest.approx(expected)


def test_one_score_far_off_raises_the_highest_and_not_the_mean_of_many():
    scores = [0.1] * 9 + [1.0]
    assert series_score(scores) == 1.0
    assert series_score(scores, 10) == pytest.approx(0.19)


@pytest.mark.parametrize(("raw", "label"), [(0.5, "normal"), (0.51, "abnormal"), (0.2, "normal")])
def test_a_series_is_judged_by_its_own_threshold(raw, label):
    row = series_row("s", "p", [SliceScore("a", 0.1), SliceScore("b", raw)], FACTS)
    assert (row.label, row.threshold, row.worst, row.slices) == (label, pytest.approx(0.5), "b", 2)
    assert (row.score > 0.5) == (label == "abnormal")
    assert (row.score == 0.5) == (raw == 0.5)


def test_without_a_threshold_nothing_is_judged_and_one_sentence_says_why():
    facts = PostProcessing("softsign", IMAGES, IMAGES)
    row = series_row("s", "p", [SliceScore("a", 9.0)], facts)
    assert (row.score, row.label, row.threshold) == (None, "", None)
    assert why_no_threshold(facts).startswith("No label for series and patients: the normal images")
    assert why_no_threshold(PostProcessing("softsign", series=SERIES)).startswith("No label for patients: ")
    assert not why_no_threshold(FACTS)


def test_without_normalisation_raw_scores_are_compared():
    calibration = Calibration(0.5, 0.2, 0.7, 0.5)
    facts = PostProcessing("none", series=calibration)
    assert judge(0.6, calibration, facts).label == "abnormal"
    assert judge(0.4, calibration, facts).label == "normal"
    assert judge(0.6, calibration, facts).score is None


def test_a_patient_is_as_abnormal_as_the_worst_series():
    rows = PatientRows(FACTS)
    for name, raw in (("a", 0.3), ("b", 0.7), ("c", 0.6)):
        rows.add(series_row(name, rows.name("4711", name), [SliceScore(f"{name}.dcm", raw)] * 2, FACTS))
    (row,) = rows
    assert (row.patient, row.raw_score, row.label, row.series, row.slices) == ("a", 0.7, "abnormal", 3, 6)
    assert row.threshold == pytest.approx(0.65)
    assert row.worst == "b.dcm"


@pytest.fixture
def folder(tmp_path):
    """Two series of a patient, interleaved by name, a volume and a picture."""
    folder = tmp_path / "in"
    for index, (grey, place, series) in enumerate([(60, 4.0, 1), (10, 0, 2), (200, 0.0, 1), (20, 2, 2), (30, 2.0, 1)]):
        tags = {"SeriesInstanceUID": f"1.2.3.{series}", "StudyInstanceUID": "1.2.3"}
        write_slice(folder / f"DOE_JANE_{index}.dcm", grey, place, **tags)
    volume = np.linspace(0, 255, 60).reshape(3, 4, 5).astype(np.float32)
    save_nifti(folder / "head.nii.gz", volume)
    Image.fromarray(np.full((5, 5), 7, np.uint8)).save(folder / "plain.png")
    return folder


def test_the_tables_of_a_run(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    assert run_on(folder, tmp_path / "out") == 0
    predictions = rows_of(tmp_path / "out", "predictions")
    names = [row["path"].rpartition("/")[2] for row in predictions]
    assert names[:5] == [f"DOE_JANE_{index}.dcm" for index in (0, 2, 4, 1, 3)]
    assert len(names) == 5 + 5 + 1
    first, second, volume = rows_of(tmp_path / "out", "series")
    assert first["worst"] == str(folder / "DOE_JANE_2.dcm")
    assert float(first["raw_score"]) == pytest.approx(200 / 255)
    assert [row["label"] for row in (first, second)] == ["abnormal", "normal"]
    assert [row["slices"] for row in (first, second, volume)] == ["3", "2", "5"]
    assert volume["worst"] == f"{folder / 'head.nii.gz'}#axial=4"
    assert first["patient"] == second["patient"] != volume["patient"]
    patient, other = rows_of(tmp_path / "out", "patients")
    assert (patient["series"], patient["slices"], patient["worst"]) == ("2", "5", first["worst"])
    assert other["patient"] == volume["series"]


def test_names_are_of_content_and_the_same_again_and_no_log_says_who(folder, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    write_slice(folder / "DOE_JANE_9.dcm", 20, 9.0, SeriesInstanceUID="1.2.3.1", StudyInstanceUID="1.2.3")
    caplog.clear()
    for name in ("out", "again"):
        run_on(folder, tmp_path / name)
    first, again = (rows_of(tmp_path / name, "series") for name in ("out", "again"))
    assert first == again
    assert "missing" not in first[1]["note"]
    assert "1 slice seems to be missing" in first[0]["note"]
    assert first[0]["series"] in caplog.text
    for secret in ("DOE", "4711", "1.2.3"):
        assert secret not in caplog.text
    for row in first:
        assert "DOE" not in row["series"] + row["patient"] + row["note"]


def test_pictures_alone_have_no_series(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((5, 5), 7, np.uint8)).save(tmp_path / "in" / "plain.png")
    assert run_on(tmp_path / "in", tmp_path / "out") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.csv", "predictions.jsonl"]


def test_a_run_without_thresholds_of_series_says_so_once(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run_on(folder, tmp_path / "out", PostProcessing("softsign", IMAGES, IMAGES))
    assert {row["label"] for row in rows_of(tmp_path / "out", "series")} == {""}
    assert caplog.text.count("No label for series and patients") == 1


def test_a_slice_that_cannot_be_read_is_told_and_the_others_count(folder, tmp_path):
    path = folder / "DOE_JANE_2.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    assert run_on(folder, tmp_path / "out") == 1
    first = next(row for row in rows_of(tmp_path / "out", "series") if row["worst"].endswith("DOE_JANE_0.dcm"))
    assert first["slices"] == "2"
    assert "1 slice could not be read" in first["note"]
    assert len(rows_of(tmp_path / "out", "failed")) == 1


def test_slices_that_do_not_fit_have_their_own_row_and_nothing_is_lost(folder, tmp_path):
    tags = {"SeriesInstanceUID": "1.2.3.1", "StudyInstanceUID": "1.2.3"}
    write_slice(folder / "turned.dcm", 250, 0, ImageOrientationPatient=[0, 1, 0, 0, 0, -1], **tags)
    write_slice(folder / "large.dcm", 0, 0, pixels=np.full((9, 9), 40, np.uint8), **tags)
    write_slice(folder / "scout.dcm", 90, 0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], **tags)
    write_slice(folder / "twice.dcm", 200, 0, SOPInstanceUID=uid_of("DOE_JANE_2"), **tags)
    run_on(folder, tmp_path / "out")
    series = [row for row in rows_of(tmp_path / "out", "series") if "part " in row["note"]]
    assert [int(row["slices"]) for row in series] == [3, 1, 1, 1]
    assert len({row["series"] for row in series}) == 4
    assert len({row["patient"] for row in series}) == 1
    assert "several sizes and several directions and slices and localisers" in series[0]["note"]
    assert "1 slice is here twice and counted once" in series[0]["note"]
    assert len(rows_of(tmp_path / "out", "predictions")) == 11 + 4


def test_a_service_scores_one_series_at_a_time(folder, tmp_path):
    scorer = make_scorer(tmp_path / "out")
    for number in (1, 2):
        files = [folder / f"DOE_JANE_{index}.dcm" for index in ((0, 2, 4), (1, 3))[number - 1]]
        (result,) = scorer(group_series(files))
        assert [file.path for file in result.files] == files
        assert len(result.rows) == 1
    assert len(scorer.patients) == 1


def test_maps_of_a_volume_come_back_in_its_grid(tmp_path):
    volume = np.random.default_rng(0).integers(0, 256, (6, 7, 8)).astype(np.int16)
    path = save_nifti(tmp_path / "DOE.nii.gz", volume, AFFINE)
    scorer = make_scorer(tmp_path / "out", axis="sagittal", slice_range=(0.3, 1.0), window=(127.5, 255.0))
    (result,) = scorer(group_series([path]))
    name = result.rows[0].series
    values, mask = (
        SimpleITK.ReadImage(str(tmp_path / "out" / "volumes" / f"{name}_{what}.nii.gz")) for what in ("map", "mask")
    )
    original = SimpleITK.ReadImage(str(path))
    assert values.GetPixelIDValue() == SimpleITK.sitkFloat32
    assert mask.GetPixelIDValue() == SimpleITK.sitkUInt8
    for image in (values, mask):
        assert image.GetSize() == original.GetSize()
        np.testing.assert_allclose(image.GetOrigin(), original.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(image.GetDirection(), original.GetDirection(), atol=1e-5)
    found = nibabel.load(tmp_path / "out" / "volumes" / f"{name}_map.nii.gz").get_fdata()
    marked = nibabel.load(tmp_path / "out" / "volumes" / f"{name}_mask.nii.gz").get_fdata()
    scored = slice(2, None)  # the middles of the first two lie outside of the range
    assert not found[:2].any()
    distance = (volume[scored] / 255 - 0.4) / 0.5
    np.testing.assert_allclose(found[scored], 0.5 * (1 + distance / (1 + abs(distance))), atol=1e-5)
    np.testing.assert_array_equal(marked[scored], volume[scored] > 0.4 * 255)
    assert not [path for path in (tmp_path / "out").rglob("*") if "DOE" in path.name]


def test_of_a_series_over_time_each_volume_has_a_row(tmp_path):
    volumes = np.stack([np.full((4, 4, 3), grey, np.int16) for grey in (10, 200)], axis=-1)
    path = save_nifti(tmp_path / "a.nii", volumes)
    scorer = make_scorer(tmp_path / "out", window=(127.5, 255.0))
    (result,) = scorer(group_series([path]))
    assert [row.raw_score for row in result.rows] == pytest.approx([10 / 255, 200 / 255], abs=1e-3)
    assert len({row.series for row in result.rows}) == 2
    assert nibabel.load(tmp_path / "out" / "volumes" / f"{result.files[0].image}_map.nii").shape == volumes.shape


def test_a_stopped_run_has_the_rows_so_far(folder, tmp_path):
    scorer = make_scorer(tmp_path / "out", volumes=False)

    def stopping(series):
        for number, result in enumerate(scorer(series)):
            if number == 1:
                raise KeyboardInterrupt
            yield result

    stopping.patients = scorer.patients
    with pytest.raises(KeyboardInterrupt):
        run(find_files([str(folder)]), tmp_path / "out", stopping, FACTS)
    assert len(rows_of(tmp_path / "out", "series")) == 1
    assert len(rows_of(tmp_path / "out", "patients")) == 1
