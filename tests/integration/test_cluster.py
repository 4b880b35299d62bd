"""Benchmarks on a real SLURM of one node: killed, preempted, cancelled, and ended by the scheduler's own limits."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.benchmark.slurm_queue import read_batches
from tests.helpers import slurm

pytest.importorskip("submitit", reason="pip install 'anomalib-medical[cluster]'")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(bool(slurm.MISSING), reason=f"apt-get install slurm-wlm munge: no {', '.join(slurm.MISSING)}"),
]
COMMAND = ("-m", "anomalib_medical.cli", "benchmark", "--config", "plan.yaml", "--output", "run", "--executor", "slurm")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Folder of a running SLURM."""
    folder = tmp_path_factory.mktemp("slurm")
    slurm.start(folder)
    yield folder
    slurm.stop(folder)


class Trial:
    """A folder with a plan of small jobs, and commands in it."""

    def __init__(self, folder: Path, cluster: Path, minutes: float, **models: dict) -> None:
        self.folder, self.environment = folder, {**slurm.environment(cluster), "HF_HUB_OFFLINE": "1"}
        counts = {"train_count": 24, "test_normal_count": 6, "test_abnormal_count": 6}
        phantom = {"class_path": "Phantom", "init_args": {"root": "phantom", "image_size": 64, **counts}}
        plan = {
            "image_size": 64,
            "threads": 1,
            "gallery": 0,
            "latency_repeats": 1,
            "limits": {"train_minutes": minutes, "job_minutes": 20},
            "cluster": {"memory_gib": 5, "at_once": 2},
            "models": models,
            "datasets": {"phantom": phantom},
        }
        (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
        self.run = RunFolder(folder / "run")

    def start(self, *options: str) -> subprocess.Popen:
        with (self.folder / "out.log").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, *COMMAND, *options], cwd=self.folder, env=self.environment, stdout=log, stderr=log
            )

    def finish(self, *options: str) -> tuple[int, str]:
        """Run the command to its end; its exit code and all it printed."""
        code = self.start(*options).wait(timeout=900)
        return code, (self.folder / "out.log").read_text()

    def ask(self, *command: str) -> str:
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout

    def jobs(self, states: str = "all") -> dict[str, str]:
        """Name of the task -> id of its job."""
        found = {}
        for line in self.ask("squeue", "--noheader", "--array", f"--states={states}", "--format=%j|%i").splitlines():
            batch, job = line.split("|")
            file = self.run.cluster(batch.removeprefix("anomalib-medical-")) / "tasks.json"
            if file.exists():  # of this run
                task = yaml.safe_load(file.read_text())[int(job.partition("_")[2] or 0)]
                found[f"{task[1]} {job}"] = job
        return found

    def until_training(self, model: str, process: subprocess.Popen) -> str:
        """Wait until a job trains; its id."""
        log = self.run.job(f"phantom__{model}__seed0").path / "log.txt"
        deadline = time.monotonic() + 400
        while not (log.exists() and log.stat().st_size):
            assert process.poll() is None, (self.folder / "out.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "out.log").read_text()
            time.sleep(0.2)
        (found,) = [job for name, job in self.jobs("running").items() if model in name]
        return found


STFPM = {"class_path": "Stfpm"}
TRIVIAL = {"class_path": "NearestThumbnail"}


def test_a_killed_run_goes_on_and_so_does_a_preempted_job(tmp_path, cluster):
    trial = Trial(tmp_path, cluster, 0.3, thumbnail=TRIVIAL, stfpm=STFPM, scrd={"class_path": "Scrd"})
    first = trial.start()
    job = trial.until_training("stfpm", first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert job in trial.jobs("running").values()
    # What a scheduler sends before it takes the node away; submitit queues the job again.
    trial.ask("scancel", "--signal=USR2", job)
    deadline = time.monotonic() + 60
    while "Restarts=1" not in trial.ask("scontrol", "show", "job", job):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert trial.run.job("phantom__stfpm__seed0").read() is None

    shown = trial.ask(sys.executable, "-m", "anomalib_medical.cli", "report", "--run", "run")
    assert "Report: " in shown
    report = (trial.run.path / "report" / "report.md").read_text()
    assert re.search(r"not finished: .*(Stfpm|stfpm)", report)

    code, shown = trial.finish()
    assert code == 0, shown
    assert re.search(r"jobs? of before (is|are) still with SLURM", shown)
    assert {name: job.status.status for name, job in trial.run.jobs().items()} == dict.fromkeys(
        [f"phantom__{model}__seed0" for model in ("thumbnail", "stfpm", "scrd")], "done"
    )
    # Each task was given to SLURM once; SLURM itself soon forgets those that have ended.
    assert len(read_batches(trial.run)) == 4
    assert trial.run.job("phantom__scrd__seed0").read().info.machine["cores"] == str(os.cpu_count())
    code, shown = trial.finish()
    assert code == 0
    assert "3 of 3 jobs are done, 0 to run." in shown


def test_what_the_scheduler_ends_is_told_and_run_again(tmp_path, cluster):
    trial = Trial(tmp_path, cluster, 10, stfpm=STFPM, scrd={"class_path": "Scrd"}, thumbnail=TRIVIAL)
    process = trial.start("--cluster.slurm.time", "5")
    trial.ask("scancel", trial.until_training("scrd", process))
    assert process.wait(timeout=600) == 1
    statuses = {name.split("__")[1]: job.status for name, job in trial.run.jobs().items()}
    assert {name: status.status for name, status in statuses.items()} == {
        "stfpm": "timeout",
        "scrd": "failed",
        "thumbnail": "done",
    }
    assert "is CANCELLED" in statuses["scrd"].message
    assert "ended at SLURM's limit of time, which lies above limits.job_minutes" in statuses["stfpm"].message
    report = (trial.run.path / "report" / "report.md").read_text()
    assert "ended at SLURM's limit of time" in report

    # One process of torch alone is larger.
    code, shown = trial.finish("--cluster.memory_gib", "0.5")
    assert code == 1
    assert "1 of 3 jobs is done, 2 to run." in shown
    assert {name.split("__")[1]: job.status.status for name, job in trial.run.jobs().items()} == {
        "stfpm": "out_of_memory",
        "scrd": "out_of_memory",
        "thumbnail": "done",
    }


def test_ctrl_c_leaves_no_job_and_refusals_are_one_line(tmp_path, cluster):
    trial = Trial(tmp_path, cluster, 10, thumbnail=TRIVIAL)
    code, shown = trial.finish("--cluster.partition", "nowhere")
    assert code == 1
    (error,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert "SLURM does not take the jobs" in error
    assert "invalid partition specified: nowhere" in error
    process = trial.start()
    deadline = time.monotonic() + 200
    while not trial.jobs("running,pending"):
        assert process.poll() is None, (trial.folder / "out.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    code, shown = finish_here(trial)
    assert code == 1
    assert re.search(r"1 job of run is still with SLURM\. .*scancel \d+|Another benchmark is running", shown)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 1
    assert "error: Stopped. All finished jobs are in run" in (trial.folder / "out.log").read_text()
    deadline = time.monotonic() + 60
    while trial.jobs("running,pending,completing"):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def finish_here(trial: Trial) -> tuple[int, str]:
    """The same run on this machine, beside the cluster's jobs."""
    command = [sys.executable, *COMMAND[:-2]]
    result = subprocess.run(
        command, cwd=trial.folder, env=trial.environment, capture_output=True, text=True, check=False
    )
    return result.returncode, result.stdout + result.stderr
