"""Runs jobs on devices, one a device at a time, each in a process of its own, under limits of time and memory."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
from tqdm import tqdm

from anomalib_medical.benchmark.plan import Limits, Plan
from anomalib_medical.benchmark.records import Job, JobStatus
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.data.fingerprints import available_cores
from anomalib_medical.errors import FULL, MedicalError, shell_argument

_FULL = "The disk is full. Free some space"
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """A job of the plan, or the check of a dataset."""

    kind: Literal["job", "data"]
    name: str  # in the plan
    label: str  # for readers
    seconds: float  # that it takes at most, roughly

    def folder(self, run: RunFolder) -> JobFolder:
        """Where it writes."""
        return run.job(self.name) if self.kind == "job" else run.data(self.name)


def run_jobs(plan: Plan, run: RunFolder, tasks: Sequence[Task], devices: Sequence[str]) -> None:
    """Run tasks until each has written into its folder how it ended, well or not.

    One that fails does not stop the others. The caller takes nothing from here but what is in the folders: a function
    with these arguments may give the tasks to a cluster instead.

    Args:
        plan: What each task reads from the run folder: its limits and threads.
        run: The run folder.
        tasks: What is to run, in this order.
        devices: Such as ``cpu`` or ``cuda:1``; one named twice runs two tasks at once.

    Raises:
        MedicalError: If the disk is full or the user stopped the run; running tasks are ended.
    """
    free: queue.Queue[str] = queue.Queue()
    for device in devices:
        free.put(device)
    stop = threading.Event()
    threads = plan.threads or max(1, available_cores() // len(devices))

    def launch(task: Task) -> JobStatus | None:
        device = free.get()
        try:
            return None if stop.is_set() else _written(run_task(plan, run, task, device, threads, stop))
        except BaseException:
            stop.set()
            raise
        finally:
            free.put(device)

    with (
        ThreadPoolExecutor(len(devices)) as pool,
        tqdm(total=len(tasks), unit="job", bar_format=_BAR, disable=not tasks) as bar,
    ):
        pending: dict[Future[JobStatus | None], Task] = {pool.submit(launch, task): task for task in tasks}
        try:
            bar.set_postfix_str(_left(pending.values(), devices))
            while pending:
                # Not forever at once: on some systems Ctrl-C waits for the end of a wait.
                for future in wait(pending, timeout=1, return_when=FIRST_COMPLETED).done:
                    task = pending.pop(future)
                    with disk_full_explained(run.path):
                        status = future.result()
                    if status is not None:
                        told = f"{task.label}: {status.status.replace('_', ' ')} in {duration(status.seconds)}"
                        bar.write(f"{told}. {status.message}" if status.message else told)
                        bar.set_postfix_str(_left(pending.values(), devices), refresh=False)
                        bar.update()
        except BaseException as error:
            stop.set()
            for future in pending:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                raise MedicalError(_how_to_go_on("Stopped", run.path)) from None
            raise


def _left(tasks: Collection[Task], devices: Sequence[str]) -> str:
    return f"at most {duration(sum(task.seconds for task in tasks) / len(devices))} left" if tasks else ""


def _written(status: JobStatus | None) -> JobStatus | None:
    """Raise what a task found of the disk as if it had been found here."""
    if status is not None and status.status == "disk_full":
        raise OSError(errno.ENOSPC, status.message)
    return status


def run_task(
    plan: Plan, run: RunFolder, task: Task, device: str, threads: int, stop: threading.Event
) -> JobStatus | None:
    """Run a task in a process, and see to it that its folder says how it ended; None if it was stopped."""
    folder = task.folder(run)
    if folder.path.exists():  # of a failure, or interrupted
        shutil.rmtree(folder.path)
    kind_of_device = "cpu" if device == "cpu" else "cuda"
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device.partition(":")[2] or "0",
        "PYTHONWARNINGS": "ignore",
        "TQDM_DISABLE": "1",
    }
    worker = "anomalib_medical.benchmark.worker"
    status = supervise(
        [sys.executable, "-m", worker, str(run.path), task.kind, task.name, kind_of_device],
        {**os.environ, **environment},
        folder.path / "log.txt",
        plan.limits,
        stop,
    )
    if status is None:
        return None
    # The process knows better what went wrong, if it lived to say so.
    if status.status in {"done", "failed"} and (said := folder.read()) is not None:
        return said.status
    if status.status == "done":
        status = JobStatus("failed", status.seconds, "the process ended without a word")
    folder.write(Job(status))
    return status


def supervise(
    command: Sequence[str], environment: Mapping[str, str], log: Path, limits: Limits, stop: threading.Event
) -> JobStatus | None:
    """Run a command, its output into a file, until it ends, a limit is reached or ``stop`` is set.

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
                elapsed, used = time.monotonic() - started, _resident_gib(process.pid)
                if stop.is_set():
                    return None
                if elapsed > limits.job_seconds:
                    message = f"ended after {duration(elapsed)}, its limit: {_raise('job_minutes')}"
                    return JobStatus("timeout", elapsed, message)
                if limits.memory_gib is not None and used > limits.memory_gib:
                    reached = f"ended at {used:.2f} GiB of memory, its limit is {limits.memory_gib:g} GiB"
                    return JobStatus("out_of_memory", elapsed, f"{reached}: {_raise('memory_gib')}")
                time.sleep(_POLL_SECONDS)
        finally:
            _end(process)
    elapsed, code = time.monotonic() - started, process.returncode
    if code == -9:
        # Nobody else sends it: the kernel, when the machine's memory is full.
        message = "killed by the system (signal 9), most likely because the machine ran out of memory"
        return JobStatus("out_of_memory", elapsed, message)
    if code:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        return JobStatus("failed", elapsed, f"the process ended with {how}")
    return JobStatus("done", elapsed)


def _raise(limit: str) -> str:
    return f"limits.{limit} of the plan, which may be raised for the same run folder"


def _family(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _resident_gib(pid: int) -> float:
    total = 0
    for process in _family(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_info().rss
    return total / 2**30


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, if it still runs."""
    if process.poll() is None:
        children = _family(process.pid)[1:]
        process.terminate()
        try:
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()


@contextlib.contextmanager
def disk_full_explained(run: Path) -> Iterator[None]:
    """Turn the system's error of a full disk into one that says how to go on.

    Raises:
        MedicalError: If what is done here finds the disk full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise MedicalError(_how_to_go_on(_FULL, run)) from error
        raise


def _how_to_go_on(what: str, run: Path) -> str:
    again = shell_argument("output", run)
    return f"{what}. All finished jobs are in {run}; the same command with {again} goes on where this stopped."
