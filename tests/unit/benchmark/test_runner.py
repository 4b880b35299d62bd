"""Jobs on devices: one a device, failures beside successes, Ctrl-C and a full disk; and processes under limits."""

import errno
import os
import sys
import threading
import time
from types import SimpleNamespace

import psutil
import pytest

from anomalib_medical.benchmark import runner
from anomalib_medical.benchmark.plan import Limits, make_plan
from anomalib_medical.benchmark.records import Job, JobStatus
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.benchmark.runner import Task, run_jobs, run_task, supervise
from anomalib_medical.errors import MedicalError

DONE = JobStatus("done", 1.0)
PLAN = make_plan({"models": {"m": {"class_path": "Padim"}}, "datasets": {"a": {"class_path": "Phantom"}}}, "plan.yaml")


@pytest.fixture
def run_with(monkeypatch, tmp_path):
    """Run a number of tasks on devices, each by a function of its name, its device and whether it is to stop."""

    def run(count, launch, devices=("gpu 0", "gpu 1")):
        monkeypatch.setattr(runner, "run_task", lambda *given: launch(given[2].name, given[3], given[5]))
        run_jobs(PLAN, RunFolder(tmp_path), [Task("job", str(n), str(n), 60.0) for n in range(count)], devices)

    return run


def test_each_device_has_one_job_at_a_time_and_all_are_used(run_with):
    busy, used, lock, clashes = set(), [], threading.Lock(), []

    def launch(name, device, _):
        with lock:
            clashes.append(device in busy)
            busy.add(device)
        time.sleep(0.02)
        with lock:
            busy.remove(device)
            used.append((name, device))
        return DONE

    run_with(8, launch)
    assert {name for name, _ in used} == set("01234567")
    assert not any(clashes)
    assert {device for _, device in used} == {"gpu 0", "gpu 1"}


def test_a_failed_job_does_not_stop_the_others(run_with, capsys):
    failed = JobStatus("failed", 2.0, "no such luck")
    run_with(3, lambda name, *_: failed if name == "1" else DONE)
    shown = capsys.readouterr().out
    assert "1: failed in 2 s. no such luck" in shown
    assert shown.count("done in 1 s") == 2


def test_ctrl_c_ends_running_jobs_and_says_how_to_go_on(run_with, monkeypatch):
    started, ended = threading.Event(), []

    def launch(*given):
        started.set()
        ended.append(given[2].wait(10))

    def interrupt(*_, **__):
        assert started.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "wait", interrupt)
    with pytest.raises(MedicalError, match=r"Stopped\. All finished jobs are in .*the same command .* goes on"):
        run_with(4, launch)
    assert ended
    assert all(ended)


@pytest.mark.parametrize("told", [True, False])
def test_a_full_disk_is_told_and_ends_the_run(told, run_with):
    ran = []

    def launch(name, *_):
        ran.append(name)
        if told:  # by the job
            return JobStatus("disk_full", 1.0, "No space left on device: 'scores.csv'")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(MedicalError, match=r"The disk is full\. Free some space"):
        run_with(20, launch, devices=["cpu"])
    assert len(ran) < 20


@pytest.fixture
def supervised(monkeypatch):
    """What processes were given, of which each ends well at once."""
    given = []

    def supervise(*arguments):
        given.append(arguments)
        return DONE

    monkeypatch.setattr(runner, "supervise", supervise)
    return given


@pytest.mark.parametrize(("device", "visible"), [("cpu", ""), ("cuda:1", "1")])
def test_a_job_sees_its_device_only(device, visible, tmp_path, supervised):
    run_task(PLAN, RunFolder(tmp_path), Task("job", "x", "x", 1.0), device, 3, threading.Event())
    ((command, environment, *_),) = supervised
    assert command[-4:] == [str(tmp_path), "job", "x", device.partition(":")[0]]
    assert environment["CUDA_VISIBLE_DEVICES"] == visible
    assert environment["OMP_NUM_THREADS"] == "3"


@pytest.mark.usefixtures("supervised")
@pytest.mark.parametrize("kind", ["job", "data"])
def test_a_process_that_dies_silently_is_a_failure(kind, tmp_path):
    run, task = RunFolder(tmp_path), Task(kind, "x", "x", 1.0)
    folder = task.folder(run)
    folder.write(Job(DONE))  # of an earlier run
    (folder.path / "log.txt").touch()
    assert run_task(PLAN, run, task, "cpu", 1, threading.Event()) == JobStatus(
        "failed", 1.0, "the process ended without a word"
    )
    assert [file.name for file in folder.path.iterdir()] == ["job.json"]
    assert folder.read().status.status == "failed"


def supervised_code(code, tmp_path, stop=None, **limits):
    log = tmp_path / "log.txt"
    given = SimpleNamespace(**{"job_seconds": 20.0, "memory_gib": None} | limits)
    return supervise([sys.executable, "-S", "-c", code], {"PATH": ""}, log, given, stop or threading.Event()), log


def test_a_process_that_ends_well_is_done_and_its_output_is_kept(tmp_path):
    status, log = supervised_code("print('hello')", tmp_path)
    assert status.status == "done"
    assert log.read_text() == "hello\n"


@pytest.mark.parametrize(
    ("code", "state", "message"),
    [
        ("import sys; sys.exit(3)", "failed", "the process ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "failed", "the process ended with signal 11"),
        ("import os; os.kill(os.getpid(), 9)", "out_of_memory", "killed by the system"),
    ],
)
def test_a_process_that_ends_badly_is_told(code, state, message, tmp_path):
    status, _ = supervised_code(code, tmp_path)
    assert status.status == state
    assert message in status.message


def test_too_long_is_a_timeout_and_children_are_ended_too(tmp_path):
    child = tmp_path / "child"
    sleep = "import time; time.sleep(60)"
    code = f"""
import subprocess, sys
process = subprocess.Popen([sys.executable, "-S", "-c", {sleep!r}])
open({str(child)!r}, "w").write(str(process.pid))
{sleep}
"""
    status, _ = supervised_code(code, tmp_path, job_seconds=1.5)
    assert status.status == "timeout"
    assert "its limit: limits.job_minutes of the plan, which may be raised" in status.message
    pid = int(child.read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_too_much_memory_ends_it(tmp_path):
    code = "data = bytearray(200_000_000)\nimport time; time.sleep(60)"
    status, _ = supervised_code(code, tmp_path, memory_gib=0.1)
    assert status.status == "out_of_memory"
    assert "its limit is 0.1 GiB: limits.memory_gib of the plan" in status.message


def test_a_stop_ends_it_without_a_status(tmp_path):
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    status, _ = supervised_code("import time; time.sleep(60)", tmp_path, stop)
    assert status is None


def test_a_job_may_take_twice_its_training_and_a_quarter_of_an_hour():
    assert Limits(train_minutes=5).job_seconds == 25 * 60
    assert Limits(train_minutes=5, job_minutes=7).job_seconds == 7 * 60
