"""The run folder: what is written is read back, and files are complete or absent."""

import math

import numpy as np
import pandas as pd
import pytest

from anomalib_medical.benchmark.files import RunFolderError, atomic, write_json
from anomalib_medical.benchmark.records import (
    AuditFinding,
    Cost,
    DatasetInfo,
    GalleryEntry,
    Job,
    JobInfo,
    JobStatus,
    Latency,
    PixelResult,
    PlannedJob,
    RunInfo,
    ShortcutResult,
    Thresholds,
    Weights,
)
from anomalib_medical.benchmark.run_folder import SCORE_COLUMNS, RunFolder
from anomalib_medical.metrics import bin_pixels

JOB = Job(
    JobStatus("done", 3.0),
    JobInfo("a", "d", "m", "M", 0, "trained", "cpu", {"minutes": 1.5, "limits": {"x": None}}, "random"),
    Thresholds(1.0, None, 0.95, 19, "held-out normals", 0.5, 2.0),
    Cost(train_seconds=1.5, latency={"torch": Latency(1.0, 2.0, 50, "cpu")}, not_measured={"latency.openvino": "no"}),
    Weights("model.ckpt", "Scrd", 7, ["--axis", "coronal"]),
    [GalleryEntry("i-1", "i-1.png", "highest", 0, 0.5)],
    [{"epoch": 0, "seconds": 1.5, "image_auroc": 0.75}],
)
DATA = DatasetInfo(
    "d", 1, 2, 0, 3, 4, None, True, [AuditFinding("x", "note", "y")], [ShortcutResult("s", 0.9, None, None, "lower")]
)


def test_what_is_written_is_read_back(tmp_path):
    run = RunFolder(tmp_path)
    info = RunInfo("x", "benchmark --config x", "", {"torch": "2"}, {"cores": "2"}, "2026-11-21T12:00:00Z")
    planned = [PlannedJob(name, "d", "m", "M", 0, "trained") for name in ("a", "b")]
    run.start({"name": "x"}, info, planned)
    assert run.plan() == {"name": "x"}
    assert run.read() == (info, planned)
    folder = run.job("a")
    assert folder.read() is None
    folder.write(JOB)
    assert folder.read() == JOB
    assert run.jobs() == {"a": JOB}
    assert run.data("d").read() is None
    run.data("d").write(Job(JobStatus("done", 1.0), data=DATA))
    assert run.data("d").read().data == DATA
    assert folder.pixels() is None


def test_what_a_job_is_doing_is_gone_with_its_end(tmp_path):
    folder = RunFolder(tmp_path).job("a")
    assert folder.step() == "starting"
    folder.begin_step("nowhere to write it")
    folder.path.mkdir(parents=True)
    folder.begin_step("training 5%")
    assert folder.step() == "training 5%"
    folder.write(JOB)
    assert folder.step() == "ending"
    assert [file.name for file in folder.path.iterdir()] == ["job.json"]


def test_scores_keep_every_float32_apart_and_text_as_text(tmp_path):
    job = RunFolder(tmp_path).job("a")
    scores = np.nextafter(np.float32([1, 1, 0.1]), np.float32([0, 2, 1]), dtype=np.float32)
    rows = {name: ["007", "", ""] for name in SCORE_COLUMNS} | {
        "label": [0, 1, 1],
        "raw_score": scores,
        "image_blur": [math.nan, *scores[1:]],
    }
    job.write_scores(pd.DataFrame(rows | {"meta_view": ["NA", "01", ""]}))
    read = job.scores()
    # As they were compared with a threshold: no digit of the file makes a score larger than its float32.
    assert list(read.raw_score) == [float(score) for score in scores]
    assert list(read.meta_view) == ["NA", "01", ""]
    assert list(read.path_hash) == ["007", "", ""]
    assert list(read.label) == [0, 1, 1]
    assert math.isnan(read.image_blur[0])
    assert read.image_blur[2] == float(scores[2])


def test_scores_without_a_column_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"missing: patient_hash"):
        RunFolder(tmp_path).job("a").write_scores(
            pd.DataFrame(columns=[c for c in SCORE_COLUMNS if c != "patient_hash"])
        )


def test_pixels_are_read_back(tmp_path):
    maps = np.random.default_rng(0).random((3, 8, 8))
    counts = bin_pixels(maps, maps > 0.7, n_bins=10)
    job = RunFolder(tmp_path).job("a")
    job.write_pixels(PixelResult(counts, np.arange(3.0), np.full(3, np.nan), np.zeros(3)))
    read = job.pixels()
    np.testing.assert_allclose(read.counts.overlap, counts.overlap, rtol=1e-6)
    np.testing.assert_array_equal(read.true_positive, [0, 1, 2])
    assert np.isnan(read.false_positive).all()


def test_a_file_that_fails_half_way_leaves_the_old_one(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"old": math.nan})
    with pytest.raises(ZeroDivisionError), atomic(file) as stream:
        stream.write(f"half {1 / 0}")
    assert file.read_text() == '{\n  "old": null\n}\n'
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"job\.json is damaged or of another version"),
        ('{"a": 1}', "does not hold a Job"),
        ('{"status": {"state": "done"}}', "does not hold a JobStatus"),
        ('{"status": {"status": "done"}}', "missing 1 required positional argument: 'seconds'"),
    ],
)
def test_a_bad_file_is_explained(tmp_path, content, message):
    job = RunFolder(tmp_path).job("a")
    job.path.mkdir(parents=True)
    (job.path / "job.json").write_text(content)
    with pytest.raises(RunFolderError, match=message):
        job.read()


def test_folders_that_are_none_or_of_an_earlier_version_are_refused(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(RunFolderError, match=r"run\.json is missing: this is no complete run folder"):
        run.read()
    for name in ("plan.json", "plan.yaml"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(RunFolderError, match=r"was written by version 0\.1, .*: choose another folder"):
        run.plan()
