"""A published copy of a run folder: the same figures, no pictures, nothing of a patient or of the machine."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest

from anomalib_medical.benchmark.files import RunFolderError
from anomalib_medical.benchmark.publish import local_paths, open_run, publish
from anomalib_medical.benchmark.records import Job, JobStatus
from anomalib_medical.benchmark.report import write_report
from anomalib_medical.benchmark.report.results import load_run
from tests.helpers.run_folders import make_run


def files_of(folder) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_a_copy_is_a_few_files_without_names_and_pictures(tmp_path):
    run = make_run(tmp_path / "run", seeds=(0,))
    (run.job("brain__scrd__seed0").path / "log.txt").write_text("reading /data/Smith_John/1.png")
    (run.path / ".patient_salt").write_text("00")
    failed = JobStatus("failed", 1.0, "cannot read '/data/Smith_John/1.png', sorry")
    run.job("brain__ddad__seed0").write(Job(failed))
    copy = publish(run, tmp_path / "copy")
    assert files_of(copy.path) == {"plan.yaml", "jobs.csv", "scores/brain.csv.gz"}
    assert copy.job("brain__ddad__seed0").read().status.message == "what it said names a file, and is left out here"
    table = pd.read_csv(copy.path / "scores" / "brain.csv.gz")
    assert len(table) == 70  # of the test and held out
    assert {"path_hash", "scrd__seed0", "sharpness__seed0", "scrd__seed0.batch_blur"} <= set(table)
    assert not any(b"Smith" in (copy.path / name).read_bytes() for name in files_of(copy.path))
    text = table.to_csv() + (copy.path / "jobs.csv").read_text()
    assert "Smith" not in text
    assert "model.ckpt" not in text  # weights are made of patients' images


@pytest.mark.parametrize(
    "seeds", [(0, 1), pytest.param((0,), marks=[pytest.mark.slow, pytest.mark.nightly])], ids=["two", "one"]
)
def test_the_report_of_a_copy_has_the_same_figures(tmp_path, seeds):
    run = make_run(tmp_path / "run", ("brain", "chest"), seeds)
    # A model that took a patient as support has fewer images than the others.
    few = run.job("chest__patchcore__seed0")
    few.write_scores(few.scores().iloc[4:])
    (few.path / "pixels.npz").unlink()
    copy = publish(run, tmp_path / "copy")
    before, after = load_run(run), load_run(open_run(copy.path))
    assert after.planned == before.planned
    assert after.missing == before.missing
    assert (after.info, after.plan) == (before.info, before.plan)
    assert [dataset.info for dataset in after.datasets] == [dataset.info for dataset in before.datasets]
    for old_data, new_data in zip(before.datasets, after.datasets, strict=True):
        for old, new in zip(old_data.models, new_data.models, strict=True):
            for first, second in zip(old.trainings, new.trainings, strict=True):
                kept = ["path_hash", "patient_hash", "label", "class_name", "raw_score", "meta_view", "meta_age"]
                pd.testing.assert_frame_equal(second.test[kept], first.test[kept])
                assert second.job.cost == first.job.cost
                assert second.job.thresholds == first.job.thresholds
                assert second.job.epochs == first.job.epochs
    for each in (run, copy):
        write_report(each)
    figures = [pd.read_csv(each.path / "report" / "metrics.csv") for each in (run, copy)]
    pd.testing.assert_frame_equal(*figures, check_exact=False, rtol=1e-8)
    texts = [(each.path / "report" / "report.md").read_text() for each in (run, copy)]
    assert texts[1] == texts[0].partition("### Weights")[0] + texts[1][len(texts[0].partition("### Weights")[0]) :]


def test_a_copy_follows_its_run(tmp_path):
    run = make_run(tmp_path / "run", seeds=(0,))
    target = tmp_path / "copy"
    publish(run, target)
    (target / "scores" / "gone.csv.gz").write_text("of a dataset that the plan no longer has")
    (run.job("brain__scrd__seed0").path / "job.json").unlink()  # runs anew
    sharpness = run.job("brain__sharpness__seed0")
    sharpness.write(replace(sharpness.read(), status=JobStatus("done", 99.0)))
    copy = publish(run, target)
    assert copy.job("brain__scrd__seed0").read() is None
    assert [file.name for file in (target / "scores").iterdir()] == ["brain.csv.gz"]
    assert "scrd__seed0" not in pd.read_csv(target / "scores" / "brain.csv.gz")
    assert copy.job("brain__sharpness__seed0").read().status.seconds == 99.0


def test_a_run_without_results_can_be_published(tmp_path):
    run = make_run(tmp_path / "run", seeds=(0,))
    shutil.rmtree(run.path / "jobs")
    copy = publish(run, tmp_path / "copy")
    assert load_run(copy).n_done == 0
    write_report(copy)


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


@pytest.mark.parametrize(("name", "content"), [("jobs.csv", "job\nx\n"), ("plan.yaml", "{")])
def test_a_damaged_copy_is_explained(tmp_path, name, content):
    copy = publish(make_run(tmp_path / "run", seeds=(0,)), tmp_path / "copy")
    (copy.path / name).write_text(content)
    with pytest.raises(RunFolderError, match=f"{name} is damaged or of another version"):
        load_run(open_run(copy.path))


def test_damaged_scores_of_a_copy_are_a_problem(tmp_path):
    copy = publish(make_run(tmp_path / "run", seeds=(0,)), tmp_path / "copy")
    (copy.path / "scores" / "brain.csv.gz").write_text("x")
    run = load_run(open_run(copy.path))
    assert run.n_done == 0
    assert "brain.csv.gz is damaged or of another version" in run.problems[0].text


def test_folders_of_the_plan_are_named():
    plan = {"teacher_weights": "${W}", "datasets": {"knees": {"init_args": {"root": "/home/me/knees", "name": "x"}}}}
    assert local_paths(plan) == ["datasets.knees.init_args.root"]
