"""Runs a process, and ends it when it takes too long or too much memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from anomalib_medical.benchmark.records import JobStatus
from anomalib_medical.benchmark.wording import duration

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0


def supervise(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    *,
    seconds: float,
    memory_gib: float | None,
    stop: threading.Event,
) -> JobStatus | None:
    """Run a command until it ends, a limit is reached or ``stop`` is set.

    Args:
        command: Program and arguments.
        environment: Its environment.
        log: File for all it prints.
        seconds: Wall clock after which it is ended.
        memory_gib: Resident memory of it and its children above which it is ended; None for no limit.
        stop: Set to end it.

    Returns:
        How it ended, None if it was stopped. ``done`` says only that its exit code is 0.
    """
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        log.open("wb") as file,
        subprocess.Popen(  # noqa: S603 - our own command
            command, env=dict(environment), stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        ) as process,
    ):
        try:
            while process.poll() is None:
                elapsed = time.monotonic() - started
                used = _resident_gib(process.pid)
                if stop.is_set():
                    return None
                if elapsed > seconds:
                    message = f"ended after {duration(elapsed)}, its limit: {_raise('job_minutes')}"
                    return JobStatus("timeout", elapsed, message)
                if memory_gib is not None and used > memory_gib:
                    message = (
                        f"ended at {used:.2f} GiB of memory, its limit is {memory_gib:g} GiB: {_raise('memory_gib')}"
                    )
                    return JobStatus("out_of_memory", elapsed, message)
                time.sleep(_POLL_SECONDS)
        finally:
            _end(process)
    elapsed = time.monotonic() - started
    if process.returncode == 0:
        return JobStatus("done", elapsed)
    if process.returncode == -9:
        # Nobody else sends it: the kernel, when the machine's memory is full.
        message = "killed by the system (signal 9), most likely because the machine ran out of memory"
        return JobStatus("out_of_memory", elapsed, message)
    how = f"signal {-process.returncode}" if process.returncode < 0 else f"exit code {process.returncode}"
    return JobStatus("failed", elapsed, f"the process ended with {how}")


def _raise(limit: str) -> str:
    return f"limits.{limit} of the plan, which may be raised for the same run folder"


def _resident_gib(pid: int) -> float:
    total = 0
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += each.memory_info().rss
    return total / 2**30


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, if it still runs."""
    if process.poll() is not None:
        return
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in family:
        with contextlib.suppress(psutil.Error, OSError):
            os.kill(child.pid, 9) if os.name == "posix" else child.kill()
