"""The subcommand, as far as it runs no job: shipped plans, refusals, the run folder's plan."""

import errno
import os
from pathlib import Path

import pytest
import yaml

from anomalib_medical.benchmark import command
from anomalib_medical.benchmark.command import run_plan
from anomalib_medical.benchmark.plan import load_plan
from anomalib_medical.benchmark.records import DatasetInfo, Job, JobInfo, JobStatus
from anomalib_medical.cli.configs import configs_dir
from anomalib_medical.errors import MedicalError
from tests.helpers.commands import fail

PLAN = {
    "models": {"random": {"class_path": "RandomScore"}, "padim": {"class_path": "Padim"}},
    "datasets": {"phantom": {"class_path": "Phantom", "init_args": {"root": "phantom", "image_size": 64}}},
}


def write(folder: Path, **changes: object) -> Path:
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(PLAN | changes))
    return path


@pytest.fixture
def no_jobs(monkeypatch):
    """Let every job end well at once but the check of `broken`, and say which were run."""
    ran = []

    def run_jobs(plan, run, tasks, devices):
        assert devices
        for task in tasks:
            ran.append(task.name)
            status = JobStatus("done", 1.0)
            if task.kind == "job":
                job = plan.jobs[task.name]
                job = Job(status, JobInfo(**vars(job), device="cpu", spec=plan.spec(job)))
            elif task.name == "broken":
                job = Job(JobStatus("failed", 1.0, "no images"))
            else:
                job = Job(status, data=DatasetInfo(task.name, 1, 1, 0, 1, 1, None, False, [], []))
            task.folder(run).write(job)

    monkeypatch.setattr(command, "run_jobs", run_jobs)
    monkeypatch.setattr(command, "write_report", lambda run: run.path)
    return ran


SHIPPED = [configs_dir() / "benchmark", Path(__file__).parents[3] / "benchmarks" / "plans"]


@pytest.mark.parametrize(
    "path", [path for folder in SHIPPED for path in sorted(folder.glob("*.yaml"))], ids=lambda path: path.name
)
def test_shipped_plans_are_whole(path, monkeypatch, tmp_path, capsys):
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(b"weights")
    monkeypatch.setenv("ANOMALIB_MEDICAL_DATA", str(tmp_path))
    monkeypatch.setenv("ANOMALIB_MEDICAL_TEACHER", str(teacher))
    run_plan(path, tmp_path / "run", dry_run=True)
    shown = capsys.readouterr().out
    assert f"{len(load_plan(path).jobs)} jobs left" in shown
    assert not (tmp_path / "run").exists()


def test_a_dry_run_prints_the_jobs_and_an_estimate(tmp_path, capsys):
    run_plan(write(tmp_path, seeds=[0, 1], limits={"train_minutes": 2}), tmp_path / "run", dry_run=True)
    shown = capsys.readouterr().out
    # Padim twice for 2 minutes and what comes with it, the random score twice.
    assert "4 jobs left: at most about 6.7 min" in shown
    assert shown.count("padim") == 2


def test_a_dry_run_names_data_that_is_not_there(tmp_path, capsys):
    knees = {"class_path": "MedicalFolder", "init_args": {"root": str(tmp_path / "knees"), "name": "knees"}}
    path = write(tmp_path, datasets={**PLAN["datasets"], "knees": knees})
    run_plan(path, tmp_path / "run", dry_run=True)
    shown = capsys.readouterr().out
    assert (
        f"These datasets have no folder yet; the run says of each what it expects there:\n  knees: {tmp_path}" in shown
    )
    assert "phantom: " not in shown  # makes its own


def test_unset_variables_are_named_at_once(tmp_path, monkeypatch):
    monkeypatch.delenv("MY_WEIGHTS", raising=False)
    monkeypatch.delenv("MY_DATA", raising=False)
    path = write(tmp_path, teacher_weights="${MY_WEIGHTS}", name="${MY_DATA}-run")
    with pytest.raises(MedicalError, match=r"not set: MY_DATA, MY_WEIGHTS\. .*export MY_DATA=/path/to/it MY_WEIGHTS="):
        run_plan(path, tmp_path / "run", dry_run=True)


def test_unknown_arguments_are_refused_before_anything_runs(tmp_path):
    models = {"padim": {"class_path": "Padim", "init_args": {"features": 10}}}
    with pytest.raises(MedicalError, match=r"models\.padim: Padim has no argument 'features'. It has backbone, "):
        run_plan(write(tmp_path, models=models), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_run_again(tmp_path, no_jobs):
    path = write(tmp_path)
    run_plan(path, tmp_path / "run")
    assert no_jobs == ["phantom", "phantom__random__seed0", "phantom__padim__seed0"]
    run_plan(path, tmp_path / "run")
    assert len(no_jobs) == 3


def test_another_plan_is_refused_and_taken_on_request(tmp_path, no_jobs):
    path = write(tmp_path)
    run_plan(path, tmp_path / "run")
    padim = {"class_path": "Padim", "init_args": {"n_features": 10}}
    path = write(tmp_path, models={**PLAN["models"], "padim": padim})
    with pytest.raises(MedicalError, match=r"models\.padim\.init_args\.n_features: None -> 10(.|\n)*--force_new"):
        run_plan(path, tmp_path / "run")
    no_jobs.clear()
    run_plan(path, tmp_path / "run", force_new_plan=True)
    # The random score is the same in both plans.
    assert no_jobs == ["phantom", "phantom__padim__seed0"]
    assert (tmp_path / "run/replaced/0/jobs/phantom__padim__seed0/job.json").exists()


def test_a_dry_run_says_of_another_plan_what_the_run_would(tmp_path, no_jobs, capsys):
    path = write(tmp_path)
    run_plan(path, tmp_path / "run")
    run_plan(path, tmp_path / "run", dry_run=True)
    assert "0 jobs left" in capsys.readouterr().out
    padim = {"class_path": "Padim", "init_args": {"n_features": 10}}
    path = write(tmp_path, models={**PLAN["models"], "padim": padim})
    refusals = []
    for dry_run in (True, False):
        with pytest.raises(MedicalError, match="holds a run of another plan") as refusal:
            run_plan(path, tmp_path / "run", dry_run=dry_run)
        refusals.append(str(refusal.value))
    assert refusals[0] == refusals[1]
    capsys.readouterr()
    run_plan(path, tmp_path / "run", dry_run=True, force_new_plan=True)
    shown = capsys.readouterr().out
    assert "1 job left" in shown
    assert [line.endswith("  done") for line in shown.splitlines() if " seed 0 " in line] == [True, False]
    # As the run then does; nothing was moved before it.
    no_jobs.clear()
    run_plan(path, tmp_path / "run", force_new_plan=True)
    assert [name for name in no_jobs if "__" in name] == ["phantom__padim__seed0"]


def test_devices_limits_and_where_weights_go_may_change(tmp_path, no_jobs):
    path = write(tmp_path)
    run_plan(path, tmp_path / "run")
    changes = {"limits": {"memory_gib": 3}, "keep_weights": False, "weights_folder": str(tmp_path / "weights")}
    run_plan(write(tmp_path, devices=["cpu", "cpu"], **changes), tmp_path / "run")
    assert len(no_jobs) == 3


@pytest.mark.usefixtures("no_jobs")
def test_weights_and_bundles_are_kept_out_of_version_control(tmp_path):
    path = write(tmp_path)
    run_plan(path, tmp_path / "run")
    assert {"*.ckpt", "bundles/"} <= set((tmp_path / "run" / ".gitignore").read_text().splitlines())


def test_a_run_folder_in_use_is_refused(tmp_path):
    path = write(tmp_path)
    (tmp_path / "run").mkdir()
    with (
        command.filelock.FileLock(tmp_path / "run" / ".lock"),
        pytest.raises(MedicalError, match="Another benchmark is running"),
    ):
        run_plan(path, tmp_path / "run")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), r"The disk is full\. Free some space"),
        (KeyboardInterrupt(), "Stopped"),
    ],
    ids=["full", "Ctrl-C"],
)
@pytest.mark.parametrize("during", ["run_jobs", "write_report"])
@pytest.mark.usefixtures("no_jobs")
def test_what_ends_a_run_says_how_to_go_on(during, error, told, tmp_path, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr(command, during, fails)
    going_on = r"All finished jobs are in .*run; the same command with --output .*run goes on where this stopped\."
    with pytest.raises(MedicalError, match=rf"^{told}\. {going_on}$"):
        run_plan(write(tmp_path), tmp_path / "run")


def test_errors_are_one_line(here, capsys):
    shown = fail(capsys, "benchmark", "--config", write(here, models={"scrd": {"class_path": "Scdr"}}))
    assert "models.scrd: class_path is 'Scdr', which is unknown. Did you mean 'Scrd'?" in shown
    shown = fail(capsys, "benchmark", "--config", write(here, devices=["cuda:99"]))
    assert "devices: got 'cuda:99', this machine has cpu" in shown


def test_a_file_of_anomalibs_own_benchmark_is_told_its_command(here, capsys):
    (here / "theirs.yaml").write_text("accelerator: cpu\nbenchmark: {}\n")
    shown = fail(capsys, "benchmark", "--config", "theirs.yaml")
    assert "theirs.yaml is a file of anomalib's own benchmark. Run it with: anomalib benchmark --config th" in shown


def test_a_dataset_that_fails_its_check_fails_its_jobs_only(tmp_path, no_jobs):
    other = {"class_path": "Phantom", "init_args": {"root": "other", "image_size": 64}}
    path = write(tmp_path, datasets={**PLAN["datasets"], "broken": other})
    with pytest.raises(MedicalError, match="2 of 4 jobs failed") as error:
        run_plan(path, tmp_path / "run")
    reason = "failed: the check of broken failed: no images"
    assert f"broken__random__seed0, broken__padim__seed0: {reason}" in str(error.value)
    assert [name for name in no_jobs if "__" in name] == ["phantom__random__seed0", "phantom__padim__seed0"]
