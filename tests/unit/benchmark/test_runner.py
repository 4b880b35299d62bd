"""Jobs on devices: one a device, failures beside successes, Ctrl-C and a full disk."""

import errno
import os
import threading
import time
from collections.abc import Callable

import pytest

from anomalib_medical.benchmark.plan_file import make_plan
from anomalib_medical.benchmark.records import Job, JobStatus
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.benchmark.runner import DeviceRunner, DiskFullError, PlanJobs, PlannedJob, RunInterrupted

DONE = JobStatus("done", 1.0)
PLAN = make_plan(
    {
        "models": {"padim": {"class_path": "Padim"}, "random": {"class_path": "RandomScore"}},
        "datasets": {"a": {"class_path": "Phantom"}, "b": {"class_path": "Phantom"}},
    },
    "plan.yaml",
)


class Fixed:
    """Generates given jobs."""

    def __init__(self, jobs):
        self.jobs = jobs

    def __call__(self, *_):
        return iter(self.jobs)


def jobs(tmp_path, count: int, launch: Callable, devices=("gpu 0", "gpu 1")):
    return [
        PlannedJob(str(n), 60.0, JobFolder(tmp_path / str(n)), lambda d, n=n: launch(n, d), devices)
        for n in range(count)
    ]


def runner(planned, tmp_path, devices=2):
    stop = threading.Event()
    return DeviceRunner(Fixed(planned), devices, stop, tmp_path), stop


def test_each_device_has_one_job_at_a_time_and_all_are_used(tmp_path):
    busy, used, lock, clashes = set(), [], threading.Lock(), []

    def launch(number, device):
        with lock:
            clashes.append(device in busy)
            busy.add(device)
        time.sleep(0.02)
        with lock:
            busy.remove(device)
            used.append((number, device))
        return DONE

    runs, _ = runner(jobs(tmp_path, 8, launch), tmp_path)
    assert runs.run({}) == {str(number): DONE for number in range(8)}
    assert not any(clashes)
    assert {device for _, device in used} == {"gpu 0", "gpu 1"}


def test_a_failed_job_does_not_stop_the_others(tmp_path, capsys):
    failed = JobStatus("failed", 2.0, "no such luck")
    runs, _ = runner(jobs(tmp_path, 3, lambda number, _: failed if number == 1 else DONE), tmp_path)
    assert [status.status for _, status in sorted(runs.run({}).items())] == ["done", "failed", "done"]
    assert "1: failed in 2 s. no such luck" in capsys.readouterr().out


def test_ctrl_c_ends_running_jobs_and_says_how_to_go_on(tmp_path, monkeypatch):
    started = threading.Event()

    def launch(*_):
        started.set()
        assert stop.wait(10)

    def interrupt(*_, **__):
        assert started.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr("anomalib_medical.benchmark.runner.wait", interrupt)
    runs, stop = runner(jobs(tmp_path, 4, launch), tmp_path)
    with pytest.raises(RunInterrupted, match=r"Stopped\. All finished jobs are in .*the same command .* goes on"):
        runs.run({})


@pytest.mark.parametrize("told", [True, False])
def test_a_full_disk_is_told_and_ends_the_run(told, tmp_path):
    ran = []

    def launch(number, _):
        ran.append(number)
        if told:  # by the job
            return JobStatus("failed", 1.0, f"[Errno 28] {os.strerror(errno.ENOSPC)}: 'scores.csv'")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    runs, stop = runner(jobs(tmp_path, 20, launch), tmp_path, devices=1)
    with pytest.raises(DiskFullError, match=r"The disk is full\. Free some space"):
        runs.run({})
    assert stop.is_set()
    assert len(ran) < 20


def generated(tmp_path, **args):
    generator = PlanJobs(PLAN, RunFolder(tmp_path), ("cpu",), threading.Event())
    return [job.folder.path.name for job in generator(args)]


def test_only_what_is_not_done_is_generated(tmp_path):
    run = RunFolder(tmp_path)
    run.job("a__random__seed0").write(Job(DONE))
    run.job("b__padim__seed0").write(Job(JobStatus("failed", 1.0, "x")))
    assert generated(tmp_path, kind="job") == ["a__padim__seed0", "b__random__seed0", "b__padim__seed0"]
    assert generated(tmp_path, kind="job", skip={"b"}) == ["a__padim__seed0"]
    assert generated(tmp_path, kind="data") == ["a", "b"]


@pytest.mark.parametrize(("device", "visible"), [("cpu", ""), ("cuda:1", "1")])
def test_a_job_sees_its_device_only(device, visible, tmp_path):
    environment = PlanJobs(PLAN, RunFolder(tmp_path), (device,), threading.Event())._environment(device)
    assert environment["CUDA_VISIBLE_DEVICES"] == visible


def test_a_process_that_dies_silently_is_a_failure(tmp_path, monkeypatch):
    monkeypatch.setattr("anomalib_medical.benchmark.runner.supervise", lambda *_, **__: DONE)
    generator = PlanJobs(PLAN, RunFolder(tmp_path), ("cpu",), threading.Event())
    job = next(iter(generator({"kind": "job"})))
    job.folder.path.mkdir(parents=True)
    (job.folder.path / "log.txt").write_text("of an earlier failure")
    assert job.run(0) == JobStatus("failed", 1.0, "the process ended without a word")
    assert [file.name for file in job.folder.path.iterdir()] == ["job.json"]
