"""The folder that a benchmark leaves behind: the runner writes it, the report reads it.

    <run>/plan.yaml               the resolved plan, environment variables unexpanded
    <run>/run.json                `RunInfo` and all planned jobs, in order
    <run>/data/<dataset>/         a folder like a job's, of the dataset's check
    <run>/jobs/<job>/job.json     `Job`, written last: it is there when the job has ended
    <run>/jobs/<job>/scores.csv   raw scores, see `SCORE_COLUMNS`
    <run>/jobs/<job>/pixels.npz   `PixelResult`, where the test set has masks and the model maps
    <run>/jobs/<job>/gallery/     PNG files
    <run>/jobs/<job>/log.txt      what its process said, tracebacks too
    <run>/jobs/<job>/step.txt     while it runs: what it is doing, in a line
    <run>/jobs/<job>/model.ckpt   its last weights, where the plan keeps them there
    <run>/cluster/<batch>/        of jobs given to SLURM: which tasks they do, what submitit keeps of them

Every file appears complete or not at all. Files and patients of the data are salted hashes; only what a failed job said
(the message in job.json, log.txt) may name a file. `publish` makes a copy for others, without that and without weights
and pictures, which are made of patients' images.
"""

from __future__ import annotations

import contextlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from pandas import DataFrame

from anomalib_medical.benchmark.files import RunFolderError, atomic, explained, read_json, write_csv, write_json
from anomalib_medical.benchmark.records import DatasetInfo, Job, PixelResult, PlannedJob, RunInfo
from anomalib_medical.metrics import PixelCounts

#: Columns of scores.csv. Where images are of series or volumes ``series_hash`` says of which, "" of none. Models with
#: maps have ``batch_blur`` and ``image_blur`` beside them: the maximum of the map of a test image after a Gaussian over
#: batch and image, as published code does, and over the image alone. One ``meta_<name>`` for each metadata column
#: follows.
SCORE_COLUMNS = ("path_hash", "patient_hash", "split", "label", "class_name", "raw_score")
BLUR_COLUMNS = ("batch_blur", "image_blur")
_JOB, _STEP = "job.json", "step.txt"


@dataclass(frozen=True)
class _RunFile:
    """What run.json holds."""

    info: RunInfo
    jobs: list[PlannedJob]


class JobFolder:
    """One job's files, in a folder that is made with the first of them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Job | None:
        """Read what the job says; None if it has not ended, or not begun."""
        return read_json(self.path / _JOB, Job) if (self.path / _JOB).exists() else None

    def write(self, job: Job) -> None:
        """Write what the job says, after all its other files."""
        write_json(self.path / _JOB, job)
        (self.path / _STEP).unlink(missing_ok=True)

    def begin_step(self, text: str) -> None:
        """Say what the job is doing now, to whoever looks."""
        # Not worth a failure.
        with contextlib.suppress(OSError):
            (self.path / _STEP).write_text(text, encoding="utf-8")

    def step(self) -> str:
        """What the job is doing, as far as it has said."""
        if (self.path / _JOB).exists():
            return "ending"
        try:
            return (self.path / _STEP).read_text(encoding="utf-8")
        except OSError:
            return "starting"

    def scores(self) -> DataFrame:
        """Read scores.csv; all but labels and scores is text, "" where unknown."""
        file = self.path / "scores.csv"
        with explained(file):
            return with_numbers(pd.read_csv(file, keep_default_na=False, dtype=str))

    def write_scores(self, table: DataFrame) -> None:
        """Write scores.csv; `ValueError` if the table has not all `SCORE_COLUMNS`."""
        if missing := [column for column in SCORE_COLUMNS if column not in table]:
            msg = f"scores need the columns {', '.join(SCORE_COLUMNS)}; missing: {', '.join(missing)}."
            raise ValueError(msg)
        write_csv(self.path / "scores.csv", table)

    def pixels(self) -> PixelResult | None:
        """Read pixels.npz; None without masks or maps."""
        file = self.path / "pixels.npz"
        if not file.exists():
            return None
        with explained(file), np.load(file) as arrays:
            found = {name: arrays[name].astype(np.float64) for name in arrays}
            counts = PixelCounts(**{each.name: found.pop(each.name) for each in fields(PixelCounts)})
            return PixelResult(counts, **found)

    def write_pixels(self, result: PixelResult) -> None:
        """Write pixels.npz: counts as the smallest integers that hold them, packed with LZMA (half of NumPy's own)."""
        arrays = {name: value for name, value in vars(result).items() if name != "counts"} | vars(result.counts)
        with (
            atomic(self.path / "pixels.npz", "wb") as file,
            zipfile.ZipFile(file, "w", compression=zipfile.ZIP_LZMA) as archive,
        ):
            for name, value in arrays.items():
                with archive.open(f"{name}.npy", "w") as stream:
                    np.lib.format.write_array(stream, _small(value), allow_pickle=False)


class RunFolder:
    """A benchmark's folder; reading raises `RunFolderError` where a file is missing or damaged."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def start(self, plan: Mapping[str, Any], info: RunInfo, jobs: Sequence[PlannedJob]) -> None:
        """Write what is known before any job runs."""
        with atomic(self.path / "plan.yaml") as file:
            yaml.safe_dump(dict(plan), file, sort_keys=False, allow_unicode=True)
        write_json(self.path / "run.json", _RunFile(info, list(jobs)))

    def plan(self) -> dict[str, Any]:
        """Read the resolved plan."""
        if (self.path / "plan.json").exists() and not (self.path / "run.json").exists():
            msg = f"{self.path} was written by version 0.1, whose files this one does not read: choose another folder."
            raise RunFolderError(msg)
        file = self.path / "plan.yaml"
        with explained(file):
            plan: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        return plan

    def read(self) -> tuple[RunInfo, list[PlannedJob]]:
        """Read where and how it ran, and all jobs of the plan, begun or not, in order."""
        run = read_json(self.path / "run.json", _RunFile)
        return run.info, run.jobs

    def job(self, name: str) -> JobFolder:
        """A job's folder, which need not exist."""
        return JobFolder(self.path / "jobs" / name)

    def data(self, name: str) -> JobFolder:
        """The folder of a dataset's check, which need not exist."""
        return JobFolder(self.path / "data" / name)

    def cluster(self, batch: str) -> Path:
        """The folder of a batch of jobs that SLURM was given, which need not exist."""
        return self.path / "cluster" / batch

    def dataset(self, name: str) -> DatasetInfo | None:
        """Read what is known of a dataset; None if its check has not ended well."""
        check = self.data(name).read()
        return check.data if check else None

    def jobs(self) -> dict[str, Job]:
        """Read all jobs that have ended, by name."""
        return {file.parent.name: read_json(file, Job) for file in sorted(self.path.glob(f"jobs/*/{_JOB}"))}


def with_numbers(table: DataFrame) -> DataFrame:
    """Make numbers of the labels and of columns with scores, exactly the float32 that were written."""
    table["label"] = table.label.astype(int)
    for column in ["raw_score", *table.columns.intersection(list(BLUR_COLUMNS))]:
        table[column] = pd.to_numeric(table[column], errors="coerce").astype(np.float32).astype(np.float64)
    return table


def _small(values: NDArray[np.float64]) -> NDArray[np.generic]:
    """Counts as the smallest integers that hold them, everything else as float32."""
    if np.isfinite(values).all() and (values == np.floor(values)).all() and values.min(initial=0) >= 0:
        return values.astype(np.min_scalar_type(int(values.max(initial=0))))
    return values.astype(np.float32)
