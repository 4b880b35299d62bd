"""Processes under limits."""

import sys
import threading
import time

import psutil
import pytest

from anomalib_medical.benchmark.supervise import supervise


def run(code, tmp_path, *, seconds=20.0, memory_gib=None, stop=None):
    command = [sys.executable, "-S", "-c", code]
    log = tmp_path / "log.txt"
    stop = stop or threading.Event()
    return supervise(command, {"PATH": ""}, log, seconds=seconds, memory_gib=memory_gib, stop=stop), log


def test_a_process_that_ends_well_is_done_and_its_output_is_kept(tmp_path):
    status, log = run("print('hello')", tmp_path)
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
    status, _ = run(code, tmp_path)
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
    status, _ = run(code, tmp_path, seconds=1.5)
    assert status.status == "timeout"
    assert "its limit: limits.job_minutes of the plan, which may be raised" in status.message
    pid = int(child.read_text())
    deadline = time.monotonic() + 5
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


def test_too_much_memory_ends_it(tmp_path):
    status, _ = run("data = bytearray(200_000_000)\nimport time; time.sleep(60)", tmp_path, memory_gib=0.1)
    assert status.status == "out_of_memory"
    assert "its limit is 0.1 GiB: limits.memory_gib of the plan" in status.message


def test_a_stop_ends_it_without_a_status(tmp_path):
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    status, _ = run("import time; time.sleep(60)", tmp_path, stop=stop)
    assert status is None
