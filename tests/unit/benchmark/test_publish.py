"""A published copy of a run folder: the same figures, no pictures, nothing of a patient or of the machine."""

import shutil

import numpy as np
import pytest

from anomalib_medical.benchmark.files import RunFolderError
from anomalib_medical.benchmark.publish import local_paths, publish
from anomalib_medical.benchmark.records import JobStatus
from anomalib_medical.benchmark.report.results import load_run
from tests.helpers.run_folders import make_run


def test_a_copy_has_all_figures_and_no_pictures(tmp_path):
    run = make_run(tmp_path / "run", seeds=(0,))
    scrd = run.job("brain__scrd__seed0")
    (scrd.path / "log.txt").write_text("reading /data/Smith_John/1.png")
    (run.path / ".patient_salt").write_text("00")
    run.job("brain__ddad__seed0").write(
        "status", JobStatus("failed", 1.0, "cannot read '/data/Smith_John/1.png', sorry")
    )

    assert scrd.weights is not None  # which are made of patients' images
    copy = publish(run, tmp_path / "copy")
    names = {file.name for file in copy.path.rglob("*") if file.is_file()}
    assert names == {
        *("README.md", "plan.yaml", "plan.json", "jobs.json", "brain.json"),
        *("job.json", "status.json", "scores.csv", "thresholds.json", "cost.json"),
        *("faults.json", "epochs.csv", "pixels.npz"),
    }
    assert not any("Smith" in file.read_text(errors="replace") for file in copy.path.rglob("*.json"))
    assert copy.job("brain__ddad__seed0").status.message == "what it said names a file, and is left out here"

    before, after = load_run(run), load_run(copy)
    assert [job.name for job in after.planned] == [job.name for job in before.planned]
    for old, new in zip(before.datasets[0].models, after.datasets[0].models, strict=True):
        assert new.first.test.equals(old.first.test)
        assert new.first.cost == old.first.cost
        assert new.first.faults == old.first.faults
        for name, values in vars(old.first.pixels.counts).items() if old.first.pixels else ():
            assert np.array_equal(values, getattr(new.first.pixels.counts, name))


def test_a_copy_follows_its_run(tmp_path):
    run = make_run(tmp_path / "run", seeds=(0,))
    target = tmp_path / "copy"
    publish(run, target)
    (run.job("brain__scrd__seed0").path / "status.json").unlink()  # runs anew
    run.job("brain__sharpness__seed0").write("status", JobStatus("done", 99.0))
    copy = publish(run, target)
    assert not copy.job("brain__scrd__seed0").path.exists()
    assert copy.job("brain__sharpness__seed0").status.seconds == 99.0


def test_other_folders_are_left_alone(tmp_path):
    run = make_run(tmp_path / "run", seeds=(0,))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my own")
    with pytest.raises(RunFolderError, match="holds something else than an earlier copy of a run"):
        publish(run, mine)
    with pytest.raises(RunFolderError, match=r"is the run folder .* itself"):
        publish(run, run.path)
    assert [file.name for file in mine.iterdir()] == ["README.md"]
    shutil.rmtree(mine)
    with pytest.raises(RunFolderError, match="is missing: this is no complete run folder"):
        publish(type(run)(mine), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_folders_of_the_plan_are_named():
    plan = {"teacher_weights": "${W}", "datasets": {"knees": {"init_args": {"root": "/home/me/knees", "name": "x"}}}}
    assert local_paths(plan) == ["datasets.knees.init_args.root"]
