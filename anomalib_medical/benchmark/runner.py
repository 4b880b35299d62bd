"""Runs tasks on devices, one a device at a time, each in a process of its own, under limits of time and memory."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import psutil

from anomalib_medical.benchmark.plan import Limits, Plan
from anomalib_medical.benchmark.records import Job, JobStatus
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.benchmark.screen import Screen
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.data.fingerprints import available_cores

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Task:
    """A job of the plan, or the check of a dataset."""

    kind: Literal["job", "data"]
    name: str  # in the plan
    label: str  # for readers
    seconds: float  # that it takes at most, roughly
    model: str = ""  # in the plan, "" of none; jobs of one take about equally long

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
        OSError: If the disk is full, here or for a task. Running tasks are ended then, and by Ctrl-C.
    """
    waiting, free = deque(tasks), deque(devices)
    running: list[Running] = []
    threads = plan.threads or max(1, available_cores() // len(devices))
    took = _took(run)
    with Screen(len(tasks)) as screen:
        try:
            while waiting or running:
                while waiting and free:
                    running.append(Running(run, waiting.popleft(), free.popleft(), threads))
                time.sleep(_POLL_SECONDS)
                if screen.due:
                    left = [*waiting, *(each.task for each in running)]
                    screen.show(_left(left, took, devices), [doing(each.task, run) for each in running])
                for each in running[:]:
                    status = each.status(plan.limits)
                    if status is None:
                        continue
                    check_disk(status)
                    running.remove(each)
                    free.append(each.device)
                    if status.status == "done" and each.task.model:
                        took[each.task.model] = status.seconds
                    left = [*waiting, *(other.task for other in running)]
                    screen.ended(told(each.task, status), _left(left, took, devices))
        finally:
            for each in running:
                each.end()


def _took(run: RunFolder) -> dict[str, float]:
    """Seconds of a job of each model, as far as one is done."""
    return {
        job.info.model: job.status.seconds for job in run.jobs().values() if job.info and job.status.status == "done"
    }


def _left(tasks: Sequence[Task], took: Mapping[str, float], devices: Sequence[str]) -> str:
    """How long tasks take, in words, by what others of the same models took."""
    seconds = sum(took.get(task.model, task.seconds) for task in tasks) / len(devices)
    words = "about" if all(task.model in took for task in tasks) else "at most"
    return f"{words} {duration(seconds)} left" if seconds else ""


def check_disk(status: JobStatus) -> None:
    """Raise `OSError` if a task found the disk full: so will the others."""
    if status.status == "disk_full":
        raise OSError(errno.ENOSPC, status.message)


def doing(task: Task, run: RunFolder) -> str:
    """What a running task does, in a line."""
    return f"{task.label}: {task.folder(run).step()}"


def told(task: Task, status: JobStatus) -> str:
    """How a task ended, in a line."""
    line = f"{task.label}: {status.status.replace('_', ' ')} in {duration(status.seconds)}"
    return f"{line}. {status.message}" if status.message else line


def worker_command(run: RunFolder, task: Task, device: str) -> list[str]:
    """What a task's process is started with."""
    worker, kind_of_device = "anomalib_medical.benchmark.worker", device.partition(":")[0]
    return [sys.executable, "-m", worker, str(run.path), task.kind, task.name, kind_of_device]


class Running:
    """A task in its process, which is started here, its output into the folder's ``log.txt``."""

    def __init__(self, run: RunFolder, task: Task, device: str, threads: int) -> None:
        self.task, self.device = task, device
        self._folder = task.folder(run)
        if self._folder.path.exists():  # of a failure, or interrupted
            shutil.rmtree(self._folder.path)
        self._folder.path.mkdir(parents=True)
        environment = {
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
            "CUDA_VISIBLE_DEVICES": "" if device == "cpu" else device.partition(":")[2] or "0",
            "PYTHONWARNINGS": "ignore",
            "TQDM_DISABLE": "1",
        }
        self._started = time.monotonic()
        with (self._folder.path / "log.txt").open("wb") as log:
            self._process = psutil.Popen(
                worker_command(run, task, device),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def status(self, limits: Limits) -> JobStatus | None:
        """How the task ended, as its folder says then; None while it runs. At a limit it is ended."""
        status = self._ended(limits)
        if status is None:
            return None
        self.end()
        # The process knows better what went wrong, if it lived to say so.
        if status.status in {"done", "failed"} and (said := self._folder.read()) is not None:
            return said.status
        if status.status == "done":
            status = JobStatus("failed", status.seconds, "the process ended without a word")
        self._folder.write(Job(status))
        return status

    def _ended(self, limits: Limits) -> JobStatus | None:
        elapsed, code = time.monotonic() - self._started, self._process.poll()
        raised = "of the plan, which may be raised for the same run folder"
        if code is None:
            if elapsed > limits.job_seconds:
                message = f"ended after {duration(elapsed)}, its limit: limits.job_minutes {raised}"
                return JobStatus("timeout", elapsed, message)
            if limits.memory_gib is not None and (used := self._resident_gib()) > limits.memory_gib:
                reached = f"ended at {used:.2f} GiB of memory, its limit is {limits.memory_gib:g} GiB"
                return JobStatus("out_of_memory", elapsed, f"{reached}: limits.memory_gib {raised}")
            return None
        if code == -9:
            # Nobody else sends it: the kernel, when the machine's memory is full.
            message = "killed by the system (signal 9), most likely because the machine ran out of memory"
            return JobStatus("out_of_memory", elapsed, message)
        if code:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return JobStatus("failed", elapsed, f"the process ended with {how}")
        return JobStatus("done", elapsed)

    def _resident_gib(self) -> float:
        with contextlib.suppress(psutil.Error):  # one that ends meanwhile: the next look counts the others
            family = [self._process, *self._process.children(recursive=True)]
            return float(sum(process.memory_info().rss for process in family) / 2**30)
        return 0.0

    def end(self) -> None:
        """End the process and its children, if it still runs."""
        if self._process.poll() is not None:
            return
        children = self._process.children(recursive=True)
        self._process.terminate()
        _, alive = psutil.wait_procs([self._process], timeout=_GRACE_SECONDS)
        for process in [*alive, *children]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._process.wait()
