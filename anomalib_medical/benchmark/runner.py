"""Runs the jobs of a plan, one a device at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalib.pipelines.components.base import Job, JobGenerator, Runner
from tqdm import tqdm

from anomalib_medical.benchmark.plan import JobSpec, Plan
from anomalib_medical.benchmark.records import Job as Result
from anomalib_medical.benchmark.records import JobStatus
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.benchmark.supervise import supervise
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.data.fingerprints import available_cores
from anomalib_medical.errors import FULL, MedicalError, shell_argument

#: What a job takes beside its training, roughly: imports, scoring, export. For estimates only.
OVERHEAD_SECONDS = 60.0
_TRIVIAL_SECONDS = 20.0
_FULL = "The disk is full. Free some space"


class DiskFullError(MedicalError):
    """The run folder's disk is full."""


class RunInterrupted(MedicalError):  # noqa: N818 - it is no failure
    """The user stopped the run."""


def estimate_seconds(plan: Plan, job: JobSpec) -> float:
    """How long a job takes at most, roughly: the cap of its training and what comes with it."""
    return _TRIVIAL_SECONDS if job.model.is_trivial else 60 * plan.limits.train_minutes + OVERHEAD_SECONDS


@dataclass(frozen=True)
class PlannedJob(Job):
    """A job of the plan, or the check of a dataset, in the terms of anomalib's pipelines.

    Attributes:
        label: For the progress bar.
        estimate: Seconds.
        folder: Where it writes.
        launch: Runs it on a device; None if it was stopped.
    """

    name = "benchmark"
    label: str
    estimate: float
    folder: JobFolder
    launch: Callable[[str], JobStatus | None]
    devices: tuple[str, ...]

    def run(self, task_id: int | None = None) -> JobStatus | None:
        """Run on the device of a number."""
        return self.launch(self.devices[task_id or 0])

    @staticmethod
    def collect(results: list[tuple[str, JobStatus]]) -> dict[str, JobStatus]:
        """Name -> how it ended."""
        return dict(results)

    @staticmethod
    def save(results: Mapping[str, JobStatus]) -> None:
        """Nothing is left to save: each job has written its own files when it ended."""


class PlanJobs(JobGenerator):
    """Generates what is left to do of a run.

    Args:
        plan: The plan.
        run: The run folder, which holds it.
        devices: Such as ``("cuda:0", "cuda:1")``.
        stop: Set to end running jobs.
    """

    def __init__(self, plan: Plan, run: RunFolder, devices: tuple[str, ...], stop: threading.Event) -> None:
        self.plan = plan
        self.run = run
        self.devices = devices
        self.stop = stop

    @property
    def job_class(self) -> type[Job]:
        """The class of the jobs."""
        return PlannedJob

    def generate_jobs(
        self,
        args: dict[str, Any] | None = None,
        prev_stage_result: Any = None,  # noqa: ANN401 - anomalib's
    ) -> Generator[Job, None, None]:
        """Yield the jobs that are not done.

        Args:
            args: ``{"kind": "data"}`` for checks of datasets, ``{"kind": "job", "skip": {dataset, ...}}`` for jobs.
            prev_stage_result: Not used.
        """
        del prev_stage_result
        options = args or {}
        if options.get("kind") == "data":
            for name in self.plan.datasets:
                folder = self.run.data(name)
                if not is_done(folder):
                    yield self._job("data", name, f"{name}: data", OVERHEAD_SECONDS, folder)
            return
        for job in self.plan.jobs():
            folder = self.run.job(job.name)
            if not is_done(folder) and job.dataset not in options.get("skip", ()):
                label = f"{job.dataset}: {job.model_name}, seed {job.seed}"
                yield self._job("job", job.name, label, estimate_seconds(self.plan, job), folder)

    def _job(self, kind: str, name: str, label: str, estimate: float, folder: JobFolder) -> PlannedJob:
        def launch(device: str) -> JobStatus | None:
            if folder.path.exists():  # of a failure, or interrupted
                shutil.rmtree(folder.path)
            command = [sys.executable, "-m", "anomalib_medical.benchmark.worker", str(self.run.path), kind, name]
            command.append("cpu" if device == "cpu" else "cuda")
            limits = self.plan.limits
            status = supervise(
                command,
                self._environment(device),
                folder.path / "log.txt",
                seconds=limits.job_seconds,
                memory_gib=limits.memory_gib,
                stop=self.stop,
            )
            if status is None:
                return None
            # The process knows better what went wrong, if it lived to say so.
            if (written := folder.read()) is not None and status.status in {"done", "failed"}:
                return written.status
            if status.status == "done":
                status = JobStatus("failed", status.seconds, "the process ended without a word")
            folder.write(Result(status))
            return status

        return PlannedJob(label, estimate, folder, launch, self.devices)

    def _environment(self, device: str) -> dict[str, str]:
        threads = self.plan.threads or max(1, available_cores() // len(self.devices))
        visible = "" if device == "cpu" else device.partition(":")[2] or "0"
        quiet = {"PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
        given = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": visible}
        return {**os.environ, **quiet, **given}


class DeviceRunner(Runner):
    """Runs jobs as devices become free.

    Args:
        generator: Of the jobs.
        devices: Number of devices: as many jobs run at once.
        stop: Set here on Ctrl-C, to end running jobs.
        run: The run folder, for messages.
    """

    def __init__(self, generator: JobGenerator, devices: int, stop: threading.Event, run: Path) -> None:
        super().__init__(generator)
        self._devices = devices
        self._stop = stop
        self._run = run

    def run(self, args: dict[str, Any], prev_stage_results: Any = None) -> dict[str, JobStatus]:  # noqa: ANN401 - anomalib's
        """Run all jobs.

        Returns:
            Label -> how it ended.

        Raises:
            DiskFullError: If results cannot be written; running jobs are ended.
            RunInterrupted: On Ctrl-C.
        """
        jobs = [job for job in self.generator(args, prev_stage_results) if isinstance(job, PlannedJob)]
        if not jobs:
            return {}
        free: queue.Queue[int] = queue.Queue()
        for number in range(self._devices):
            free.put(number)
        results: list[tuple[str, JobStatus]] = []
        progress = _Progress(jobs, self._devices)
        with ThreadPoolExecutor(self._devices) as pool:
            pending = {pool.submit(self._run_one, job, free): job for job in jobs}
            try:
                while pending:
                    # Not forever at once: on some systems Ctrl-C waits for the end of a wait.
                    finished, _ = wait(pending, timeout=1, return_when=FIRST_COMPLETED)
                    for future in finished:
                        job = pending.pop(future)
                        status = self._result(future)
                        if status is not None:
                            results.append((job.label, status))
                            progress.finished(job, status)
            except BaseException as error:
                self._stop.set()
                for future in pending:
                    future.cancel()
                if isinstance(error, KeyboardInterrupt):
                    raise RunInterrupted(_how_to_go_on("Stopped", self._run)) from None
                raise
            finally:
                progress.close()
        return PlannedJob.collect(results)

    def _run_one(self, job: PlannedJob, free: queue.Queue[int]) -> JobStatus | None:
        number = free.get()
        try:
            return None if self._stop.is_set() else job.run(number)
        finally:
            free.put(number)

    def _result(self, future: Future[JobStatus | None]) -> JobStatus | None:
        with disk_full_explained(self._run):
            status = future.result()
        if status is not None and any(os.strerror(code) in status.message for code in FULL):
            raise DiskFullError(_how_to_go_on(_FULL, self._run))
        return status


class _Progress:
    """A bar of jobs, with the time that the rest takes at most."""

    def __init__(self, jobs: list[PlannedJob], devices: int) -> None:
        self._left = sum(job.estimate for job in jobs)
        self._devices = devices
        self._bar = tqdm(
            total=len(jobs), unit="job", bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        )
        self._show()

    def finished(self, job: PlannedJob, status: JobStatus) -> None:
        """Say how a job ended."""
        self._left -= job.estimate
        told = f"{job.label}: {status.status.replace('_', ' ')} in {duration(status.seconds)}"
        self._bar.write(f"{told}. {status.message}" if status.message else told)
        self._bar.update()
        self._show()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()

    def _show(self) -> None:
        left = duration(self._left / self._devices)
        self._bar.set_postfix_str(f"at most {left} left" if self._bar.n < (self._bar.total or 0) else "")


def is_done(folder: JobFolder) -> bool:
    """Whether a job has ended well."""
    job = folder.read()
    return job is not None and job.status.status == "done"


@contextlib.contextmanager
def disk_full_explained(run: Path) -> Iterator[None]:
    """Turn the system's error of a full disk into one that says how to go on.

    Raises:
        DiskFullError: If what is done here finds the disk full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError(_how_to_go_on(_FULL, run)) from error
        raise


def _how_to_go_on(what: str, run: Path) -> str:
    again = shell_argument("output", run)
    return f"{what}. All finished jobs are in {run}; the same command with {again} goes on where this stopped."
