"""What `run` makes of a folder that holds more than images: all of it is scored, listed as a failure, or counted."""

import csv
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
from anomalib_medical.edge.run import find_files, run, run_part
from anomalib_medical.edge.series import SeriesScorer
from anomalib_medical.io import ArchiveError, Part
from tests.helpers.dicom_files import write_dicom

PIXELS = np.arange(64, dtype=np.uint8).reshape(8, 8)
SEGMENTATION, CAPTURE = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.7"


class Scorer:
    def score(self, image):
        return float(image.mean()), image[0]


def processor_for(output, post_processing=PostProcessing()):  # noqa: B008 - frozen
    return Processor(Predictor(Scorer(), post_processing), Reading(), output, heatmaps=False, dicom=None)


def run_on(source, output, post_processing=PostProcessing()):  # noqa: B008 - frozen
    output.mkdir()
    processor = processor_for(output, post_processing)
    scorer = SeriesScorer(processor, post_processing, output, volumes=False, dicom=None)
    return run(find_files([str(source)]), output, scorer, post_processing)


def run_part_on(source, output, number, parts, *, resume=False, processor=None):
    archive = find_files([str(source)], Part(number, parts))
    return run_part(archive, output, processor or processor_for(output), "model", resume=resume)


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
    assert "3 files could not be read; failed.csv in the output folder says why." in caplog.text
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
    assert {record.levelname for record in caplog.records} == {"INFO"}


@pytest.mark.timeout(20)
def test_a_pipe_given_by_its_name_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert run_on(tmp_path / "a.png", tmp_path / "out") == 1
    assert "found a named pipe" in pd.read_csv(tmp_path / "out" / "failed.csv").reason[0]


def test_a_folder_of_other_formats_holds_no_image(tmp_path, caplog):
    Image.fromarray(PIXELS).save(tmp_path / "a.gif")
    with pytest.raises(EdgeError, match=r"no image in .*: expected PNG, .*Left out 1 file .*\.gif: 1"):
        find_files([str(tmp_path)])
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
    with pytest.raises(ArchiveError, match=r"There is no file or folder .*nowhere\."):
        find_files([str(tmp_path / "nowhere")])


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


@pytest.fixture
def mixed(folder):
    """What is scored, what fails, what is passed over, and a file of several pictures."""
    for number in range(5):
        Image.fromarray(PIXELS + number).save(folder / f"{number}.png")
    write_dicom(folder / "cine", np.stack([PIXELS, PIXELS + 1, PIXELS + 2]), NumberOfFrames=3)
    write_dicom(folder / "seg", PIXELS, SOPClassUID=SEGMENTATION)
    Image.fromarray(PIXELS).save(folder / "x.gif")
    (folder / "bad.png").write_text("no image")
    (folder / "notes").write_text("text")
    return folder


def results_of(*files):
    """All rows but what a run cannot repeat."""
    return [
        {name: value for name, value in row.items() if not name.endswith("_ms")}
        for file in files
        for row in csv.DictReader(file.open(encoding="utf-8"))
    ]


@pytest.mark.parametrize("parts", [1, 3, 20])
def test_the_results_of_parts_are_those_of_one_run(mixed, tmp_path, parts):
    assert run_on(mixed, tmp_path / "one") == 1
    statuses = [run_part_on(mixed, tmp_path / "out", number, parts) for number in range(parts, 0, -1)]
    numbers = range(1, parts + 1)
    tables = [tmp_path / "out" / f"predictions_part-{number}-of-{parts}.csv" for number in numbers]
    # Of series parts know nothing.
    one = [row | {"series": "", "slice": ""} for row in results_of(tmp_path / "one" / "predictions.csv")]
    assert results_of(*tables) == one
    lines = [len(table.with_suffix(".jsonl").read_text().splitlines()) for table in tables]
    assert sum(lines) == len(results_of(*tables)) == 9
    failed = [tmp_path / "out" / f"failed_part-{number}-of-{parts}.csv" for number in numbers]
    assert results_of(*filter(os.path.exists, failed)) == results_of(tmp_path / "one" / "failed.csv")
    assert sum(statuses) == sum(map(os.path.exists, failed))


@pytest.mark.parametrize("stop", range(9))
def test_a_part_that_was_stopped_goes_on(mixed, tmp_path, stop):
    whole = [tmp_path / "whole" / f"{stem}_part-1-of-1.csv" for stem in ("predictions", "failed")]
    run_part_on(mixed, tmp_path / "whole", 1, 1)

    def stopping(files):
        for number, result in enumerate(processor_for(tmp_path)(files)):
            if number == stop:
                raise KeyboardInterrupt
            yield result

    with pytest.raises(KeyboardInterrupt):
        run_part_on(mixed, tmp_path / "out", 1, 1, resume=True, processor=stopping)
    with (tmp_path / "out" / "predictions_part-1-of-1.csv").open("ab") as file:
        file.write(b'"torn, ')
    assert run_part_on(mixed, tmp_path / "out", 1, 1, resume=True) == 1
    for file in whole:
        assert results_of(tmp_path / "out" / file.name) == results_of(file)
    lines = (tmp_path / "out" / "predictions_part-1-of-1.jsonl").read_text().splitlines()
    assert [json.loads(line)["path"] for line in lines] == [row["path"] for row in results_of(whole[0])]


def test_a_log_says_how_far_it_is(mixed, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("anomalib_medical.io.archive._PROGRESS_SECONDS", 0.0)
    caplog.set_level(logging.INFO)
    run_part_on(mixed, tmp_path / "out", 1, 1)
    assert "3 of 11 files, " in caplog.text
    assert " a second, 0:00:0" in caplog.text
