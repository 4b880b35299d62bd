"""What SLURM says of a run folder's jobs: asked of `squeue`, which needs no accounting and no submitit."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from anomalib_medical.benchmark.files import read_json, write_json
from anomalib_medical.benchmark.run_folder import RunFolder

#: A job of SLURM: its batch, and its number therein.
Place = tuple[str, int]
# In these a job does not come back; one that is requeued is pending or completing.
_ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED"),
        *("NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)
_NAME = "anomalib-medical-"


@dataclass(frozen=True)
class Entry:
    """A job of SLURM."""

    job_id: str  # such as 123_4
    state: str
    seconds: float  # that it ran
    reason: str  # why it waits, or ended

    @property
    def ended(self) -> bool:
        """Whether it will not run (again)."""
        return self.state in _ENDED


def job_name(batch: str) -> str:
    """The name that a batch's jobs have in SLURM: by it they are found again, whatever became of who submitted them."""
    return _NAME + batch


def write_batch(run: RunFolder, batch: str, tasks: Iterable[tuple[str, str]]) -> None:
    """Keep which tasks, by kind and name, a batch's jobs are going to do."""
    write_json(run.cluster(batch) / "tasks.json", list(tasks))


def read_batches(run: RunFolder) -> dict[Place, tuple[str, str]]:
    """The task, by kind and name, of every job that was ever submitted."""
    found: dict[Place, tuple[str, str]] = {}
    for file in sorted(run.path.glob("cluster/*/tasks.json")):
        for number, (kind, name) in enumerate(read_json(file, list[list[str]])):
            found[file.parent.name, number] = (kind, name)
    return found


def look(batches: Iterable[str]) -> dict[Place, Entry] | None:
    """The jobs of batches that SLURM knows, ended ones for some minutes; None if it does not answer."""
    names = ",".join(map(job_name, sorted(set(batches))))
    if not names:
        return {}
    # `%M` is the time that a job ran.
    command = ["squeue", "--noheader", "--array", "--states=all", f"--name={names}", "--format=%j|%i|%T|%M|%r"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout  # noqa: S603 - ours
    except (OSError, subprocess.SubprocessError):
        return None
    found = {}
    for name, job_id, state, ran, reason in (line.split("|", 4) for line in told.splitlines()):
        place = name.removeprefix(_NAME), int(job_id.partition("_")[2] or 0)
        found[place] = Entry(job_id, state, _seconds(ran) or 0.0, reason)
    return found


def seconds_left(job_id: str) -> float | None:
    """What is left of the time that SLURM gives a running job; None if it does not say."""
    command = ["squeue", "--noheader", f"--jobs={job_id}", "--format=%L"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout  # noqa: S603 - ours
    except (OSError, subprocess.SubprocessError):
        return None
    return _seconds(told)


def in_queue(run: RunFolder) -> list[str]:
    """Ids of the jobs of a run folder that wait or run."""
    found = look(batch for batch, _ in read_batches(run))
    return [entry.job_id for entry in (found or {}).values() if not entry.ended]


def cancel(batches: Iterable[str]) -> None:
    """End all jobs of batches."""
    for batch in set(batches):
        command = ["scancel", "--quiet", f"--name={job_name(batch)}"]
        subprocess.run(command, capture_output=True, check=False, timeout=120)  # noqa: S603 - ours


def _seconds(clock: str) -> float | None:
    """Read ``1-02:03:04`` or ``3:04``; None if it is neither."""
    days, _, rest = clock.strip().rpartition("-")
    parts = [days or "0", *(["0", "0", *rest.split(":")][-3:])]
    if not all(part.isdigit() for part in parts):
        return None
    return float(sum(int(part) * unit for part, unit in zip(parts, (86400, 3600, 60, 1), strict=True)))
