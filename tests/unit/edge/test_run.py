"""What `run` makes of a folder that holds more than images: all of it is scored, listed as a failure, or counted."""

import json
import logging
import math
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge.manifest import Calibration, PostProcessing, Reading
from anomalib_medical.edge.predictor import Predictor
from anomalib_medical.edge.processing import Processor
from anomalib_medical.edge.run import find_files, run
from tests.helpers.dicom_files import write_dicom

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
SEGMENTATION, CAPTURE = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7"


class Scorer:
    def score(self, image):
        return float(image.mean()), image[0]


def run_on(source, output, post_processing=PostProcessing()):  # noqa: B008 - frozen
    output.mkdir()
    processor = Processor(Predictor(Scorer(), post_processing), Reading(), output, heatmaps=False, dicom=None)
    return run(find_files(str(source), None), output, processor)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(PIXELS).save(tmp_path / "in" / "a.png")
    return tmp_path / "in"


@pytest.mark.timeout(20)
def test_what_cannot_be_read_is_a_failure_with_its_kind(folder, tmp_path, caplog):
    Image.fromarray(PIXELS).save(folder / "DOE_JANE.gif")
    (folder / "notes.txt").write_text("text")
    (folder / "link.png").symlink_to("link.png")
    os.mkfifo(folder / "pipe.png")
    assert run_on(folder, tmp_path / "out") == 1
    failed = pd.read_csv(tmp_path / "out" / "failed.csv").set_index("path").reason
    assert {path.rpartition("/")[2]: reason.partition(",")[0] for path, reason in failed.items()} == {
        "DOE_JANE.gif": "found a GIF file",
        "link.png": "found a broken link",
        "pipe.png": "found a named pipe",
    }
    assert len(pd.read_csv(tmp_path / "out" / "predictions.csv")) == 1
    assert "Left out 3 files that are no PNG" in caplog.text
    assert "(.gif: 1; broken link: 1; named pipe: 1)" in caplog.text
    assert "DOE_JANE" not in caplog.text


def test_objects_that_show_no_patient_are_counted_by_kind_and_not_scored(folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for number in range(2):
        write_dicom(folder / f"seg{number}", PIXELS, SOPClassUID=SEGMENTATION)
    write_dicom(folder / "own", PIXELS, SOPClassUID=CAPTURE, Manufacturer="anomalib-medical")
    write_dicom(folder / "film", PIXELS, SOPClassUID=CAPTURE)
    assert run_on(folder, tmp_path / "out") == 0
    assert [path.rpartition("/")[2] for path in pd.read_csv(tmp_path / "out" / "predictions.csv").path] == [
        "a.png",
        "film",
    ]
    assert not (tmp_path / "out" / "failed.csv").exists()
    assert "no image of a patient to score: Segmentation: 2, result of anomalib-medical: 1." in caplog.text
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]


@pytest.mark.timeout(20)
def test_a_pipe_given_by_its_name_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert run_on(tmp_path / "a.png", tmp_path / "out") == 1
    assert "found a named pipe" in pd.read_csv(tmp_path / "out" / "failed.csv").reason[0]


def test_a_folder_of_other_formats_holds_no_image(tmp_path, caplog):
    Image.fromarray(PIXELS).save(tmp_path / "a.gif")
    with pytest.raises(EdgeError, match=r"no image in .*: expected PNG, .*Left out 1 file .*\.gif: 1"):
        find_files(str(tmp_path), None)
    assert not caplog.messages  # the error says it


def test_names_that_are_no_text_give_readable_tables(folder, tmp_path):
    Image.fromarray(PIXELS).save(folder / os.fsdecode(b"caf\xe9.png"))
    (folder / os.fsdecode(b"bad\xff.png")).write_text("no image")
    assert run_on(folder, tmp_path / "out") == 1
    for table, name in (("predictions", "caf\\udce9.png"), ("failed", "bad\\udcff.png")):
        assert pd.read_csv(tmp_path / "out" / f"{table}.csv").path.iloc[-1].endswith(name)
        last = (tmp_path / "out" / f"{table}.jsonl").read_text("utf-8").splitlines()[-1]
        assert json.loads(last)["path"].endswith(name)
        assert pd.read_json(tmp_path / "out" / f"{table}.jsonl", lines=True).path.iloc[-1].endswith(name)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(EdgeError, match=r"There is no file or folder .*nowhere\."):
        find_files(str(tmp_path / "nowhere"), None)


@pytest.mark.parametrize(("limit", "threshold", "label"), [(0.0, -math.inf, "abnormal"), (1.0, math.inf, "normal")])
def test_a_threshold_that_is_not_finite_is_null_in_json(limit, threshold, label, tmp_path):
    """A sensitivity of 1 or 0 calls every image abnormal, or none; strict readers refuse Infinity."""
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    calibration = Calibration(0.5, 0.0, 1.0, limit)
    run_on(tmp_path / "a.png", tmp_path / "out", PostProcessing("softsign", calibration, calibration))
    (row,) = pd.read_csv(tmp_path / "out" / "predictions.csv").itertuples()
    assert (row.threshold, row.label) == (threshold, label)
    line = json.loads((tmp_path / "out" / "predictions.jsonl").read_text("utf-8"), parse_constant=pytest.fail)
    assert line["threshold"] is None
    assert line["label"] == label
