"""Jobs on devices: one a device, failures beside successes, Ctrl-C and a full disk; and processes under limits."""

import itertools
import sys
import time

import psutil
import pytest

from anomalib_medical.benchmark import runner
from anomalib_medical.benchmark.plan import Limits, make_plan
from anomalib_medical.benchmark.records import Job, JobInfo, JobStatus
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.benchmark.runner import Task, run_jobs, worker_command
from tests.helpers.terminal import Terminal

CONTENT = {"models": {"m": {"class_path": "Padim"}}, "datasets": {"a": {"class_path": "Phantom"}}, "threads": 3}
SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def run_with(monkeypatch, tmp_path):
    """Run tasks, each a piece of Python code, under limits; returns the run folder."""
    monkeypatch.setattr(runner, "_POLL_SECONDS", 0.01)

    def run(*codes, devices=("cuda:0", "cuda:1"), kind="job", model="", **limits):
        folder = RunFolder(tmp_path)
        monkeypatch.setattr(
            runner, "worker_command", lambda _, task, __: [sys.executable, "-S", "-c", codes[int(task.name)]]
        )
        tasks = [Task(kind, str(number), f"task {number}", 60.0, model) for number in range(len(codes))]
        run_jobs(make_plan(CONTENT | {"limits": limits}, "plan.yaml"), folder, tasks, devices)
        return folder

    return run


def saying(folder, status):
    """Code of a process that says of itself how it ended."""
    folder.write(Job(status))
    said = (folder.path / "job.json").read_text()
    return f"open({str(folder.path / 'job.json')!r}, 'w').write({said!r})"


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_each_device_has_one_job_at_a_time_and_all_are_used(run_with):
    code = (
        "import os, time; s = time.time(); time.sleep(0.1); print(os.environ['CUDA_VISIBLE_DEVICES'], s, time.time())"
    )
    run = run_with(*[code] * 6)
    told = [(run.job(str(number)).path / "log.txt").read_text().split() for number in range(6)]
    for device in "01":
        spans = sorted((float(start), float(end)) for on, start, end in told if on == device)
        assert spans
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_a_failed_job_does_not_stop_the_others(run_with, tmp_path, capsys):
    folders = [RunFolder(tmp_path).job(str(number)) for number in range(3)]
    ends = [JobStatus("done", 1.0), JobStatus("failed", 2.0, "no such luck"), JobStatus("done", 1.0)]
    run_with(*map(saying, folders, ends))
    shown = capsys.readouterr().out
    assert "task 1: failed in 2 s. no such luck" in shown
    assert shown.count("done in 1 s") == 2


def test_a_terminal_shows_what_jobs_do_and_a_log_how_they_ended(run_with, tmp_path, capsys, monkeypatch):
    folders = [RunFolder(tmp_path).job(str(number)) for number in range(2)]
    code = "open({!r}, 'w').write('training 5%'); import time; time.sleep({}); {}"
    codes = [
        code.format(str(each.path / "step.txt"), seconds, saying(each, JobStatus("done", 1.0)))
        for each, seconds in zip(folders, (1.0, 1.6), strict=True)
    ]
    run_with(*codes)
    shown = capsys.readouterr()
    assert shown.out == "task 0: done in 1 s (1 of 2, at most 30 s left)\ntask 1: done in 1 s (2 of 2)\n"
    assert shown.err == ""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    run_with(*codes)
    assert "  task 0: training 5%" in screen.getvalue()
    assert "  task 1: training 5%" in screen.getvalue()
    assert "at most 60 s left" in screen.getvalue()
    assert capsys.readouterr().out.endswith("task 1: done in 1 s\n")


def test_what_is_left_is_told_by_what_others_of_the_model_took(run_with, tmp_path, capsys):
    """Of this call, and of an earlier one."""
    folders = [RunFolder(tmp_path).job(str(number)) for number in range(3)]
    codes = [saying(each, JobStatus("done", seconds)) for each, seconds in zip(folders, (4.0, 6.0, 5.0), strict=True)]
    run_with(*codes, devices=("cpu",), model="m")
    assert [line.partition("(")[2] for line in capsys.readouterr().out.splitlines()] == [
        "1 of 3, about 8 s left)",
        "2 of 3, about 6 s left)",
        "3 of 3)",
    ]
    info = JobInfo("x", "a", "n", "n", 0, "trained", "cpu", {})
    RunFolder(tmp_path).job("x").write(Job(JobStatus("done", 7.0), info))
    run_with("exit(1)", *codes[1:], devices=("cpu",), model="n")
    assert "(1 of 3, about 14 s left)" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [KeyboardInterrupt, OSError])
def test_what_ends_the_run_ends_running_jobs_and_starts_no_other(run_with, tmp_path, ending, monkeypatch):
    mark = tmp_path / "pid"
    code = f"import os; open({str(mark)!r}, 'w').write(str(os.getpid())); {SLEEP}"

    def look(*_):
        if mark.exists() and mark.read_text():
            raise ending

    monkeypatch.setattr(runner.Running, "status", look)
    with pytest.raises(ending):
        run_with(code, code, devices=["cpu"])
    assert gone(int(mark.read_text()))
    assert not (tmp_path / "jobs" / "1").exists()


def test_a_job_that_finds_the_disk_full_ends_the_run(run_with, tmp_path):
    full = JobStatus("disk_full", 1.0, "No space left on device: 'scores.csv'")
    with pytest.raises(OSError, match=r"No space left on device: 'scores\.csv'"):
        run_with(saying(RunFolder(tmp_path).job("0"), full), SLEEP, devices=["cpu"])
    assert not (tmp_path / "jobs" / "1").exists()


@pytest.mark.parametrize(("device", "visible"), [("cpu", ""), ("cuda:1", "1")])
def test_a_job_sees_its_device_only(device, visible, run_with, tmp_path):
    names = "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"
    run = run_with(f"import os; print([os.environ[name] for name in {names}])", devices=[device])
    assert (run.job("0").path / "log.txt").read_text() == f"{[visible, '3']}\n"
    command = worker_command(RunFolder(tmp_path), Task("job", "x", "x", 1.0), device)
    assert command[-4:] == [str(tmp_path), "job", "x", device.partition(":")[0]]


@pytest.mark.parametrize("kind", ["job", "data"])
def test_a_process_that_dies_silently_is_a_failure(kind, run_with, tmp_path):
    run = RunFolder(tmp_path)
    folder = run.job("0") if kind == "job" else run.data("0")
    folder.write(Job(JobStatus("done", 1.0)))  # of an earlier run
    (folder.path / "pixels.npz").touch()
    run_with("print('hello')", kind=kind)
    assert sorted(file.name for file in folder.path.iterdir()) == ["job.json", "log.txt"]
    assert (folder.path / "log.txt").read_text() == "hello\n"
    status = folder.read().status
    assert (status.status, status.message) == ("failed", "the process ended without a word")


@pytest.mark.parametrize(
    ("code", "state", "message"),
    [
        ("import sys; sys.exit(3)", "failed", "the process ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "failed", "the process ended with signal 11"),
        ("import os; os.kill(os.getpid(), 9)", "out_of_memory", "killed by the system"),
    ],
)
def test_a_process_that_ends_badly_is_told(code, state, message, run_with):
    status = run_with(code).job("0").read().status
    assert status.status == state
    assert message in status.message


def test_too_long_is_a_timeout_and_children_are_ended_too(tmp_path, run_with):
    child = tmp_path / "child"
    code = f"""
import subprocess, sys
process = subprocess.Popen([sys.executable, "-S", "-c", {SLEEP!r}])
open({str(child)!r}, "w").write(str(process.pid))
{SLEEP}
"""
    status = run_with(code, job_minutes=1.5 / 60).job("0").read().status
    assert status.status == "timeout"
    assert "its limit: limits.job_minutes of the plan, which may be raised" in status.message
    deadline = time.monotonic() + 5
    while not gone(int(child.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(int(child.read_text()))


def test_too_much_memory_ends_it(run_with):
    status = run_with(f"data = bytearray(200_000_000)\n{SLEEP}", memory_gib=0.1).job("0").read().status
    assert status.status == "out_of_memory"
    assert "its limit is 0.1 GiB: limits.memory_gib of the plan" in status.message


def test_a_job_may_take_twice_its_training_and_a_quarter_of_an_hour():
    assert Limits(train_minutes=5).job_seconds == 25 * 60
    assert Limits(train_minutes=5, job_minutes=7).job_seconds == 7 * 60
