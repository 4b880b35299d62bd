"""The run folder: what is written is read back, and files are complete or absent."""

import math

import numpy as np
import pandas as pd
import pytest

from anomalib_medical.benchmark.run_folder import (
    SCORE_COLUMNS,
    AuditFinding,
    Cost,
    DatasetInfo,
    GalleryEntry,
    JobInfo,
    JobStatus,
    Latency,
    PixelResult,
    RunFolder,
    RunFolderError,
    ShortcutResult,
    atomic,
    write_json,
)
from anomalib_medical.metrics import bin_pixels


def test_what_is_written_is_read_back(tmp_path):
    run = RunFolder(tmp_path)
    job = run.job("a")
    info = JobInfo("a", "d", "m", "M", 0, "clean", "trained", "cpu", "", "random", {"minutes": 1.5})
    cost = Cost(train_seconds=1.5, latency={"torch": Latency(1.0, 2.0, 50, "cpu")})
    entry = GalleryEntry("i-1", "i-1.png", "highest", 0, 0.5)
    assert job.status is None
    job.write("job", info)
    job.write("cost", cost)
    job.write("gallery/gallery", [entry])
    job.write("status", JobStatus("done", 3.0))
    data = DatasetInfo(
        "d",
        1,
        2,
        0,
        3,
        4,
        None,
        True,
        [AuditFinding("x", "note", "y")],
        [ShortcutResult("s", 0.9, None, None, "lower")],
    )
    write_json(run.dataset_file("d"), data)
    assert (job.info, job.cost, job.gallery, job.status) == (info, cost, [entry], JobStatus("done", 3.0))
    assert run.dataset("d") == data
    assert run.dataset("e") is None
    assert [each.path for each in run.jobs()] == [job.path]
    write_json(tmp_path / "jobs.json", ["a", "b"])
    (tmp_path / "plan.yaml").write_text("name: x")
    assert run.planned_jobs == ["a", "b"]
    assert run.plan == {"name": "x"}
    assert job.faults is None
    assert job.pixels() is None


def test_scores_keep_every_float32_apart_and_text_as_text(tmp_path):
    job = RunFolder(tmp_path).job("a")
    scores = np.nextafter(np.float32(1), np.float32([0, 2]), dtype=np.float32)
    rows = {name: ["007", ""] for name in SCORE_COLUMNS} | {
        "label": [0, 1],
        "raw_score": scores,
        "score": [0.5, math.nan],
    }
    job.write_scores(pd.DataFrame(rows | {"meta_view": ["NA", "01"]}))
    read = job.scores()
    assert list(read.raw_score.astype(np.float32)) == list(scores)
    assert list(read.meta_view) == ["NA", "01"]
    assert list(read.path_hash) == ["007", ""]
    assert list(read.label) == [0, 1]
    assert math.isnan(read.score[1])


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
    [(None, "is missing: this is no complete run folder"), ("{", "is damaged"), ('{"a": 1}', "not hold a JobStatus")],
)
def test_a_bad_file_is_explained(tmp_path, content, message):
    job = RunFolder(tmp_path).job("a")
    job.path.mkdir(parents=True)
    file = job.path / ("cost.json" if content is None else "status.json")
    if content is not None:
        file.write_text(content)
    with pytest.raises(RunFolderError, match=message):
        _ = job.cost if content is None else job.status
