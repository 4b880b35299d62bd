"""Gives tasks to SLURM, through submitit: an array of jobs, each of which runs its task on its node as `runner` here.

So a task has the same process, files and limits there. SLURM's own limits lie above: they end what hangs.
"""

from __future__ import annotations

import math
import os
import re
import secrets
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import DelayedSubmission

from anomalib_medical.benchmark.plan import Plan, make_plan
from anomalib_medical.benchmark.records import Job, JobStatus, State
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.benchmark.runner import Running, Task, check_disk, doing, told
from anomalib_medical.benchmark.screen import Screen
from anomalib_medical.benchmark.slurm_queue import (
    Entry,
    Place,
    cancel,
    job_name,
    look,
    read_batches,
    seconds_left,
    write_batch,
)
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import agree, counted

# SLURM's limits above ours, for starting and ending: ours come first and say what happened.
_MORE_MINUTES = 5
_MORE_GIB = 2.0
_THREADS = 4  # of a job, where the plan does not say: a node has jobs of others too
# SLURM warns of its limit with the signal of a preemption: so long before it, and up to a minute earlier.
_WARNING_SECONDS = 90
_POLL_SECONDS = 10.0
_NODE_POLL_SECONDS = 1.0
_SETTLE_SECONDS = 60.0
# What a node has written may be seen here this much later: network file systems remember what they have looked for.
_WORD_SECONDS = 60.0
_MEMORY = re.compile(r"oom.kill|out of memory|memory limit", re.IGNORECASE)
_STATES: dict[str, State] = {"TIMEOUT": "timeout", "DEADLINE": "timeout", "OUT_OF_MEMORY": "out_of_memory"}
_RAISE = {
    "timeout": ", which lies above limits.job_minutes of the plan unless it was lowered, such as by cluster.slurm",
    "out_of_memory": ": cluster.memory_gib of the plan may be raised for the same run folder",
    "failed": "",
}


def check_cluster() -> None:
    """Refuse a machine from which nothing can be submitted.

    Raises:
        MedicalError: If SLURM's commands are not there.
    """
    missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
    if missing:
        msg = (
            f"--executor slurm: this machine has no {', '.join(missing)}. Start it where jobs are submitted, such as a "
            "login node of the cluster, or leave --executor out to run the jobs on this machine."
        )
        raise MedicalError(msg)


def submit_jobs(plan: Plan, run: RunFolder, tasks: Sequence[Task], _: Sequence[str] = ()) -> None:
    """Submit tasks and wait until each has written into its folder how it ended, as `run_jobs`.

    Jobs of an earlier call that still wait or run are not submitted again. They go on when this process is killed; by
    Ctrl-C they are cancelled.

    Raises:
        MedicalError: If SLURM refuses them.
        OSError: If the disk is full for a task. All others are cancelled then.
    """
    if not tasks:
        return
    there = _earlier(run, tasks)
    if there:
        print(f"{counted(len(there), 'job')} of before {agree(len(there), 'is', 'are')} still with SLURM.")
    new = [task for task in tasks if task not in there.values()]
    if new:
        there |= _submit(plan, run, new)
    # The jobs that ended without a word, and since when.
    silent: dict[Place, float] = {}
    with Screen(len(tasks)) as screen:
        try:
            while there:
                time.sleep(_POLL_SECONDS)
                known = look(batch for batch, _ in there)
                if screen.due:
                    states = {place: entry.state for place, entry in (known or {}).items()}
                    at_work = [task for place, task in there.items() if states.get(place) == "RUNNING"]
                    screen.show(_counts(known, there), [doing(task, run) for task in at_work])
                if known is None:
                    continue
                for place, task in list(there.items()):
                    entry = known.get(place)
                    if entry is not None and not entry.ended:
                        continue
                    said = _said(run, task, entry)
                    if said is None and time.monotonic() < silent.setdefault(place, time.monotonic()) + _WORD_SECONDS:
                        continue
                    status = said or _written(run, task, place, entry)
                    check_disk(status)
                    del there[place]
                    screen.ended(told(task, status))
        except (KeyboardInterrupt, OSError):
            cancel(batch for batch, _ in there)
            raise


def _earlier(run: RunFolder, tasks: Sequence[Task]) -> dict[Place, Task]:
    """Those of the tasks that an earlier call has submitted, and that still wait or run."""
    batches = read_batches(run)
    wanted: dict[tuple[str, str], Task] = {(task.kind, task.name): task for task in tasks}
    until = time.monotonic() + _SETTLE_SECONDS
    while True:
        known = look(batch for batch, _ in batches)
        if known is None:
            msg = "SLURM does not answer (squeue). Look whether `sinfo` does, and try again."
            raise MedicalError(msg)
        left = {place: entry for place, entry in known.items() if not entry.ended and batches[place] in wanted}
        # On its way out, to its end or back into the queue.
        if time.monotonic() > until or all(entry.state != "COMPLETING" for entry in left.values()):
            return {place: wanted[batches[place]] for place in left}
        time.sleep(1.0)


def _submit(plan: Plan, run: RunFolder, tasks: Sequence[Task]) -> dict[Place, Task]:
    batch = secrets.token_hex(4)
    # Before, so that no job can be in the queue that nobody knows.
    write_batch(run, batch, [(task.kind, task.name) for task in tasks])
    for task in tasks:  # of a failure, or interrupted
        shutil.rmtree(task.folder(run).path, ignore_errors=True)
    executor = SlurmExecutor(run.cluster(batch).resolve())
    executor.update_parameters(**sbatch_parameters(plan, batch))
    try:
        executor.map_array(_OnNode(run.path.resolve(), _threads(plan)), tasks)
    except (FailedJobError, FailedSubmissionError) as error:
        shutil.rmtree(run.cluster(batch))
        msg = f"SLURM does not take the jobs: {' '.join(str(error).split())}"
        raise MedicalError(msg) from error
    return {(batch, number): task for number, task in enumerate(tasks)}


def sbatch_parameters(plan: Plan, batch: str) -> dict[str, Any]:
    """What a batch of jobs is submitted with, in submitit's words."""
    asked = plan.cluster
    cpus = asked.cpus or _threads(plan) + plan.num_workers
    memory = asked.memory_gib or (plan.limits.memory_gib and plan.limits.memory_gib + _MORE_GIB)
    parameters = {
        "job_name": job_name(batch),
        "time": math.ceil(plan.limits.job_seconds / 60) + _MORE_MINUTES,
        "cpus_per_task": cpus,
        # Since SLURM 22.05 steps do not inherit it.
        "srun_args": [f"--cpus-per-task={cpus}"],
        "partition": asked.partition,
        "gpus_per_node": asked.gpus or None,
        "mem": f"{math.ceil(memory * 1024)}M" if memory else None,
        "signal_delay_s": _WARNING_SECONDS,
        "array_parallelism": asked.at_once or len(plan.jobs),
        "stderr_to_stdout": True,
        "additional_parameters": {name.replace("_", "-"): value for name, value in asked.slurm.items()} or None,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _threads(plan: Plan) -> int:
    if plan.threads:
        return int(plan.threads)
    return max(1, plan.cluster.cpus - plan.num_workers) if plan.cluster.cpus else _THREADS


class _OnNode:
    """Runs a task on a node of the cluster."""

    def __init__(self, run: Path, threads: int) -> None:
        self.run, self.threads, self.started = run, threads, 0.0

    def __call__(self, task: Task) -> None:
        self.started = time.monotonic()
        run = RunFolder(self.run)
        if (job := task.folder(run).read()) and job.status.status == "done":  # before it was queued again
            return
        plan = make_plan(run.plan(), str(run.path / "plan.yaml"))
        signal.signal(signal.SIGTERM, _leave)
        # Preemption is this process's business: the task's would die of the same signal.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        running = Running(run, task, granted_device(), self.threads)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
            while running.status(plan.limits) is None:
                time.sleep(_NODE_POLL_SECONDS)
        finally:
            running.end()

    def checkpoint(self, task: Task) -> DelayedSubmission | None:
        """What submitit queues again when a job is preempted: the same task. Nothing at SLURM's limit of time."""
        left = seconds_left(os.environ["SLURM_JOB_ID"])
        if left is None or left > _WARNING_SECONDS + 60:
            return DelayedSubmission(self, task)
        # Else it would be queued for ever: it has no more time the next time.
        seconds = time.monotonic() - self.started
        status = JobStatus("timeout", seconds, f"ended at SLURM's limit of time{_RAISE['timeout']}")
        task.folder(RunFolder(self.run)).write(Job(status))
        return None


def granted_device() -> str:
    """The device of this job of SLURM: the first of its GPUs, or the CPU."""
    # A job without a GPU may inherit the variable of CUDA from where it was submitted.
    gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "") if "SLURM_GPUS_ON_NODE" in os.environ else ""
    return f"cuda:{gpus.partition(',')[0]}" if gpus else "cpu"


def _leave(number: int, _: FrameType | None) -> None:
    """End at once what SLURM ends or preempts, so that the task leaves no word that it has failed."""
    sys.exit(128 + number)


def _said(run: RunFolder, task: Task, entry: Entry | None) -> JobStatus | None:
    """How a task whose job is over says that it ended; None if it does not, or if SLURM ended it."""
    job = task.folder(run).read()
    by_itself = entry is None or entry.state in {"COMPLETED", "FAILED"}
    return job.status if job and (by_itself or job.status.status != "failed") else None


def _written(run: RunFolder, task: Task, place: Place, entry: Entry | None) -> JobStatus:
    """Write for a task that could not how it ended, as far as SLURM tells."""
    folder = run.cluster(place[0])
    if entry is None:
        status = JobStatus("failed", 0.0, f"SLURM knows the job no longer, and it left no word; see {folder}")
    else:
        state = _STATES.get(entry.state, "failed")
        log = folder / f"{entry.job_id}_0_log.out"
        said = log.read_text(encoding="utf-8", errors="replace")[-4000:] if log.exists() else ""
        # Without cgroups SLURM calls it a failure.
        if entry.state == "FAILED" and _MEMORY.search(said):
            state = "out_of_memory"
        why = f" ({entry.reason})" if entry.reason not in {"None", ""} else ""
        message = f"SLURM's job {entry.job_id} is {entry.state}{why}{_RAISE[state]}; see {log}"
        status = JobStatus(state, entry.seconds, message)
    task.folder(run).write(Job(status))
    return status


def _counts(known: Mapping[Place, Entry] | None, there: Mapping[Place, Task]) -> str:
    """The jobs by state, and why some wait."""
    if known is None:
        return "SLURM does not answer"
    entries = [known[place] for place in there if place in known and not known[place].ended]
    counts = Counter(
        f"{entry.state.lower()} ({entry.reason})" if entry.state == "PENDING" else entry.state.lower()
        for entry in entries
    )
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
