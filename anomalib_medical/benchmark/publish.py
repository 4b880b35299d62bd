"""A copy of a run folder that may leave the place of the data: figures can be recomputed from it, nobody is shown."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from anomalib_medical.benchmark.files import RunFolderError, atomic
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.errors import shell_argument

_README = "README.md"
_TITLE = "# Results of a benchmark, without pictures"
_TEXT = """
Copied from a run folder by `anomalib-medical report --run RUN --publish FOLDER`: raw scores, thresholds, pixel counts
and costs of every job, under salted hashes of files and patients. Left out: pictures of cases, logs, tracebacks and the
salt. The figures of [report/report.md](report/report.md) are computed from these files alone:

    anomalib-medical report {run}
"""
_RUN_FILES = ("plan.yaml", "plan.json", "jobs.json", "data/*.json")
_JOB_FILES = ("job.json", "scores.csv", "thresholds.json", "cost.json", "faults.json", "epochs.csv")
# What a failed job says may name a file, and so a patient.
_PATH = re.compile(r"[/\\]")
_LEFT_OUT = "what it said names a file, and is left out here"


def publish(run: RunFolder, target: Path) -> RunFolder:
    """Copy what a report is made of, less all that shows or names somebody.

    Args:
        run: The run folder, which stays as it is.
        target: A new folder, or one that an earlier call made, which is brought up to date.

    Returns:
        The copy.

    Raises:
        RunFolderError: If ``run`` is no run folder, or ``target`` holds something else.
    """
    planned = run.planned_jobs
    _check(run, target)
    copy = RunFolder(target)
    for file in _files(run.path, _RUN_FILES):
        _copy(file, target / file.relative_to(run.path))
    for name in planned:
        old, new = run.job(name), copy.job(name)
        status = old.status
        if status is None:
            if new.path.exists():  # of an earlier copy; the job runs anew
                shutil.rmtree(new.path)
            continue
        for file in _files(old.path, _JOB_FILES):
            _copy(file, new.path / file.name)
        _copy_pixels(old, new)
        new.write("status", replace(status, message=_LEFT_OUT) if _PATH.search(status.message) else status)
    with atomic(target / _README) as stream:
        stream.write(f"{_TITLE}\n{_TEXT.format(run=shell_argument('run', target.name))}")
    return copy


def local_paths(plan: Mapping[str, object], prefix: str = "") -> list[str]:
    """Where a plan names folders of this machine, such as ``datasets.knees.init_args.root``."""
    found = []
    for key, value in plan.items():
        if isinstance(value, Mapping):
            found += local_paths(value, f"{prefix}{key}.")
        elif isinstance(value, str) and Path(value).is_absolute():
            found.append(f"{prefix}{key}")
    return found


def _check(run: RunFolder, target: Path) -> None:
    if target.resolve() == run.path.resolve():
        msg = f"--publish is the run folder {run.path} itself. Give another folder, which gets a copy without pictures."
        raise RunFolderError(msg)
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    readme = target / _README
    if not readme.is_file() or not readme.read_text(encoding="utf-8", errors="replace").startswith(_TITLE):
        msg = f"{target} holds something else than an earlier copy of a run. Give a new folder with --publish."
        raise RunFolderError(msg)


def _files(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def _copy(source: Path, target: Path) -> None:
    with atomic(target, "wb") as stream:
        stream.write(source.read_bytes())


def _copy_pixels(old: JobFolder, new: JobFolder) -> None:
    """Write them anew: earlier versions packed them less tightly."""
    pixels = old.pixels()
    if pixels is not None:
        new.write_pixels(pixels)
