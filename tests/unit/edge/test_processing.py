"""Files to rows, pictures and reasons, with a model that is none."""

import errno
import os
import time

import numpy as np
import pytest
from PIL import Image

from anomalib_medical.edge import EdgeError
from anomalib_medical.edge import processing as module
from anomalib_medical.edge.manifest import Calibration, PostProcessing, Reading
from anomalib_medical.edge.predictor import Predictor
from anomalib_medical.edge.processing import Processor
from anomalib_medical.edge.reading import ahead
from tests.helpers.dicom_files import write_dicom


class Scorer:
    """The mean as score, the first channel as map."""

    def __init__(self):
        self.images = []

    def score(self, image):
        self.images.append(image)
        return float(image.mean()), image[0]


CALIBRATION = Calibration(threshold=0.4, minimum=0.1, maximum=0.6, limit=0.5)


def make_processor(output, scorer=None, *, workers=1, heatmaps=True, **reading):
    processing = PostProcessing("softsign", CALIBRATION, CALIBRATION)
    predictor = Predictor(scorer or Scorer(), processing, workers)
    return Processor(predictor, Reading(**reading), output, heatmaps=heatmaps, dicom=None)


def save_grey(path, value, size=(20, 30)):
    Image.fromarray(np.full(size, value, np.uint8)).save(path)
    return path


def test_rows_come_in_the_order_of_the_files(tmp_path):
    files = [save_grey(tmp_path / f"{name}.png", value) for name, value in (("b", 255), ("a", 0), ("c", 51))]
    results = list(make_processor(tmp_path / "out")(files))
    assert [result.path for result in results] == files
    assert [result.rows[0].raw_score for result in results] == pytest.approx([1, 0, 0.2])
    assert [result.rows[0].label for result in results] == ["abnormal", "normal", "normal"]
    assert {path.stem for path in (tmp_path / "out" / "heatmaps").iterdir()} == {row.rows[0].image for row in results}


def test_scored_side_by_side_rows_keep_their_order(tmp_path):
    active, together = [], []

    class Slow(Scorer):
        def score(self, image):
            active.append(1)
            together.append(len(active))
            time.sleep(0.03 * (1 - float(image.mean())))  # the earlier, the slower
            active.pop()
            return super().score(image)

    files = [save_grey(tmp_path / f"{value:03d}.png", value) for value in range(0, 255, 20)]
    frames = write_dicom(tmp_path / "frames.dcm", np.arange(600, dtype=np.uint8).reshape(6, 10, 10))
    results = list(make_processor(tmp_path / "out", Slow(), workers=4)([*files, frames]))
    assert [result.path for result in results] == [*files, frames]
    assert [result.rows[0].raw_score for result in results[:-1]] == pytest.approx(np.arange(0, 255, 20) / 255)
    assert [row.path.partition("#")[2] for row in results[-1].rows] == [f"frame={index}" for index in range(6)]
    assert 1 < max(together) <= 4


def test_few_pictures_are_held_at_a_time(tmp_path, monkeypatch):
    """However slowly they are drawn, and however many a file has."""
    read, drawn = [], []
    monkeypatch.setattr(
        module, "draw_overlay", lambda *_: time.sleep(0.005) or drawn.append(1) or Image.new("L", (1, 1))
    )

    class Counting(Scorer):
        def score(self, image):
            read.append(len(read) - len(drawn))
            return super().score(image)

    write_dicom(tmp_path / "cine.dcm", np.zeros((40, 9, 9), np.uint8))
    (result,) = make_processor(tmp_path / "out", Counting(), workers=2)([tmp_path / "cine.dcm"])
    assert len(result.rows) == len(drawn) == 40
    assert max(read) <= 2 + module._QUEUED + 1


@pytest.mark.parametrize(("trained_on", "noted"), [("CT", False), ("US", True), (None, False)])
def test_another_modality_than_the_trainings_is_noted(tmp_path, trained_on, noted):
    write_dicom(tmp_path / "ct.dcm", np.zeros((9, 9), np.uint8), Modality="CT")
    (result,) = make_processor(tmp_path / "out", modality=trained_on)([tmp_path / "ct.dcm"])
    assert result.rows[0].note == ("modality CT, the model was trained on US" if noted else "")


def test_a_file_that_fails_later_leaves_nothing(tmp_path):
    frames = np.random.default_rng(0).integers(0, 200, (3, 20, 20)).astype(np.uint8)
    content = write_dicom(tmp_path / "whole.dcm", frames).read_bytes()
    (tmp_path / "cut.dcm").write_bytes(content[:-500])
    good = save_grey(tmp_path / "good.png", 9)
    failed, scored = make_processor(tmp_path / "out")([tmp_path / "cut.dcm", good])
    assert not failed.rows
    assert "damaged or cut off" in failed.reason
    assert [path.stem for path in (tmp_path / "out" / "heatmaps").iterdir()] == [scored.rows[0].image]


def test_volumes_and_windows_are_read_as_the_manifest_says(tmp_path):
    values = np.array([[-1000, 0], [40, 80]], np.int16)
    scorer = Scorer()
    processor = make_processor(tmp_path, scorer, heatmaps=False, window=(40.0, 80.0))
    assert not next(processor([write_dicom(tmp_path / "ct.dcm", values)])).reason
    np.testing.assert_allclose(scorer.images[0][0], [[0, 0], [0.5, 1]], atol=0.02)


def test_a_missing_file_is_a_failure_without_its_name(tmp_path, caplog):
    (result,) = make_processor(tmp_path)([tmp_path / "DOE_JANE.png"])
    assert result.reason == "No such file or directory while reading it"
    assert "DOE_JANE" not in caplog.text


def test_a_score_that_is_no_number_is_a_failure(tmp_path):
    class Broken(Scorer):
        def score(self, image):
            return float("nan"), image[0]

    (result,) = make_processor(tmp_path, Broken())([save_grey(tmp_path / "a.png", 3)])
    assert "which is no number" in result.reason
    assert not result.rows


def test_a_full_disk_is_no_failure_of_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        list(make_processor(tmp_path)([save_grey(tmp_path / "a.png", 3)]))


def test_reading_runs_one_picture_ahead():
    events = []

    def items():
        for number in range(3):
            events.append(f"made {number}")
            yield number

    for number in ahead(items()):
        while f"made {min(number + 1, 2)}" not in events:
            pass
        events.append(f"used {number}")
    assert [event for event in events if event.startswith("used")] == ["used 0", "used 1", "used 2"]


def test_an_error_of_the_predictor_is_raised_by_itself():
    with pytest.raises(EdgeError, match="no number"):
        Predictor(type("Nan", (), {"score": lambda *_: (float("inf"), None)})(), PostProcessing())(np.zeros((3, 2, 2)))
