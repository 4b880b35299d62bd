"""The folder that a benchmark leaves behind: the runner writes it, the report reads it.

    <run>/plan.yaml                    the resolved plan, environment variables unexpanded
    <run>/plan.json                    `RunInfo`: versions, commit, machine, command, started
    <run>/jobs.json                    names of all planned jobs, in order
    <run>/data/<dataset>.json          `DatasetInfo`: counts, audit findings, shortcut AUROCs
    <run>/jobs/<job>/job.json          `JobInfo`
    <run>/jobs/<job>/status.json       `JobStatus`, written last; traceback.txt and log.txt beside it
    <run>/jobs/<job>/scores.csv        raw scores, see `SCORE_COLUMNS`
    <run>/jobs/<job>/thresholds.json   `Thresholds`
    <run>/jobs/<job>/pixels.npz        `PixelResult`, where the test set has masks and the model maps
    <run>/jobs/<job>/faults.json       `Faults`, where the model has maps
    <run>/jobs/<job>/epochs.csv        epoch, seconds, image_auroc on the test set; protocol ``published`` only
    <run>/jobs/<job>/cost.json         `Cost`
    <run>/jobs/<job>/gallery/          `GalleryEntry` in gallery.json, PNG files
    <run>/jobs/<job>/weights.json      `Weights`, where they are kept: model.ckpt beside it, or where the plan says

Every file appears complete or not at all. Files and patients of the data are salted hashes; only what a failed job said
(status.json, traceback.txt, log.txt, and status.json in the report) may name a file. `publish` leaves that out, and
weights, which are made of patients' images.
"""

from __future__ import annotations

import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from pandas import DataFrame

from anomalib_medical.benchmark.files import (
    RunFolderError,
    atomic,
    build,
    explained,
    load_json,
    mapping,
    read_json,
    write_csv,
    write_json,
)
from anomalib_medical.benchmark.records import (
    AuditFinding,
    Cost,
    DatasetInfo,
    Faults,
    GalleryEntry,
    JobInfo,
    JobStatus,
    Latency,
    PixelResult,
    RunInfo,
    ShortcutResult,
    State,
    Thresholds,
    Weights,
)
from anomalib_medical.metrics import PixelCounts

__all__ = [
    "EPOCH_COLUMNS",
    "SCORE_COLUMNS",
    "AuditFinding",
    "Cost",
    "DatasetInfo",
    "Faults",
    "GalleryEntry",
    "JobFolder",
    "JobInfo",
    "JobStatus",
    "Latency",
    "PixelResult",
    "RunFolder",
    "RunFolderError",
    "RunInfo",
    "ShortcutResult",
    "State",
    "Thresholds",
    "Weights",
    "atomic",
    "write_json",
]

#: Columns of scores.csv, before one ``meta_<name>`` for each metadata column. ``score`` is empty without normalisation.
SCORE_COLUMNS = ("path_hash", "patient_hash", "split", "label", "class_name", "raw_score", "score")
#: Columns of epochs.csv.
EPOCH_COLUMNS = ("epoch", "seconds", "image_auroc")


class JobFolder:
    """One job's files.

    Args:
        path: The folder; made with the first file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def info(self) -> JobInfo:
        """What the job is."""
        return read_json(self.path / "job.json", JobInfo)

    @property
    def status(self) -> JobStatus | None:
        """How it ended; None if it did not (or not yet)."""
        return read_json(file, JobStatus) if (file := self.path / "status.json").exists() else None

    @property
    def traceback(self) -> str:
        """Of a failure, else ""."""
        file = self.path / "traceback.txt"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    @property
    def thresholds(self) -> Thresholds:
        """From held-out normals."""
        return read_json(self.path / "thresholds.json", Thresholds)

    @property
    def cost(self) -> Cost:
        """Cost beside quality."""
        return read_json(self.path / "cost.json", Cost)

    @property
    def faults(self) -> Faults | None:
        """Scores as published code computes them; None for a model without maps."""
        return read_json(file, Faults) if (file := self.path / "faults.json").exists() else None

    @property
    def weights(self) -> Weights | None:
        """Where the last weights are; None if they were not kept."""
        return read_json(file, Weights) if (file := self.path / "weights.json").exists() else None

    @property
    def gallery(self) -> list[GalleryEntry]:
        """Pictures of the highest and lowest scores; empty for a model without maps."""
        file = self.path / "gallery" / "gallery.json"
        return [build(GalleryEntry, entry, file) for entry in load_json(file)] if file.exists() else []

    @property
    def epochs(self) -> DataFrame | None:
        """Test scores of epochs (`EPOCH_COLUMNS`); None unless the plan's protocol is ``published``."""
        return pd.read_csv(file) if (file := self.path / "epochs.csv").exists() else None

    def scores(self) -> DataFrame:
        """Read scores.csv; `SCORE_COLUMNS` and ``meta_*``, which are text, "" where unknown."""
        file = self.path / "scores.csv"
        with explained(file):
            table = pd.read_csv(file, keep_default_na=False, dtype=str)
            table["label"] = table.label.astype(int)
            for column in ("raw_score", "score"):
                table[column] = pd.to_numeric(table[column], errors="coerce")
        return table

    def pixels(self) -> PixelResult | None:
        """Read pixels.npz; None without masks or maps."""
        file = self.path / "pixels.npz"
        if not file.exists():
            return None
        with explained(file), np.load(file) as arrays:
            names = [each.name for each in fields(PixelCounts)]
            rest = [each.name for each in fields(PixelResult)][1:]
            counts = PixelCounts(**{name: arrays[name].astype(np.float64) for name in names})
            return PixelResult(counts, **{name: arrays[name].astype(np.float64) for name in rest})

    def write(self, name: str, value: object) -> None:
        """Write a dataclass (or a list of them) as ``<name>.json``."""
        write_json(self.path / f"{name}.json", value)

    def write_scores(self, table: DataFrame) -> None:
        """Write scores.csv with nine digits, which tell every float32 apart."""
        missing = [column for column in SCORE_COLUMNS if column not in table]
        if missing:
            msg = f"scores need the columns {', '.join(SCORE_COLUMNS)}; missing: {', '.join(missing)}."
            raise ValueError(msg)
        write_csv(self.path / "scores.csv", table)

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
    """A benchmark's folder.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def plan(self) -> dict[str, Any]:
        """The resolved plan."""
        file = self.path / "plan.yaml"
        with explained(file):
            plan: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        return plan

    @property
    def info(self) -> RunInfo:
        """Where and how it ran."""
        return read_json(self.path / "plan.json", RunInfo)

    def dataset(self, name: str) -> DatasetInfo | None:
        """What is known of a dataset; None if its check has not finished."""
        file = self.dataset_file(name)
        if not file.exists():
            return None
        read = read_json(file, DatasetInfo)
        findings = [build(AuditFinding, entry, file) for entry in map(mapping, read.findings)]
        shortcuts = [build(ShortcutResult, entry, file) for entry in map(mapping, read.shortcuts)]
        return DatasetInfo(**{**vars(read), "findings": findings, "shortcuts": shortcuts})

    def dataset_file(self, name: str) -> Path:
        """Where `dataset` reads from."""
        return self.path / "data" / f"{name}.json"

    def job(self, name: str) -> JobFolder:
        """A job's folder, which need not exist."""
        return JobFolder(self.path / "jobs" / name)

    @property
    def planned_jobs(self) -> list[str]:
        """Names of all jobs of the plan, begun or not, in order."""
        return [str(name) for name in load_json(self.path / "jobs.json")]

    def jobs(self) -> list[JobFolder]:
        """The jobs that have begun, by name."""
        return [JobFolder(file.parent) for file in sorted(self.path.glob("jobs/*/job.json"))]


def _small(values: NDArray[np.float64]) -> NDArray[np.generic]:
    """Counts as the smallest integers that hold them, everything else as float32."""
    if np.isfinite(values).all() and (values == np.floor(values)).all() and values.min(initial=0) >= 0:
        return values.astype(np.min_scalar_type(int(values.max(initial=0))))
    return values.astype(np.float32)
