"""A copy of a run that may leave the place of the data: figures can be recomputed from it, nobody is shown.

    <copy>/plan.yaml       as in the run folder
    <copy>/run.json        where and how it ran, and what is known of the datasets: neither is of one job
    <copy>/jobs.csv        one row a job of the plan: how it ended, thresholds, cost, figures of pixels
    <copy>/scores.csv.gz   one row an image, one column a job, ``<model>__seed<seed>``: its raw score
    <copy>/report/         the report

Left out: pictures, weights, logs and the salt; pixel counts (half a megabyte a job: four figures and their intervals
are kept instead); and of blurred maps all but the order of the images, ``<model>__seed<seed>.batch_blur`` and
``.image_blur``, which is all that an AUROC looks at.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_origin, get_type_hints

import numpy as np
import pandas as pd
from pandas import DataFrame

from anomalib_medical.benchmark.files import RunFolderError, atomic, build, explained, read_json, write_csv, write_json
from anomalib_medical.benchmark.records import (
    Cost,
    DatasetInfo,
    Job,
    JobInfo,
    JobStatus,
    PlannedJob,
    RunInfo,
    Thresholds,
)
from anomalib_medical.benchmark.report.evaluate import PIXEL, evaluate
from anomalib_medical.benchmark.report.results import Run, load_run
from anomalib_medical.benchmark.run_folder import (
    BLUR_COLUMNS,
    SCORE_COLUMNS,
    JobFolder,
    RunFile,
    RunFolder,
    with_numbers,
)

_JOBS, _SCORES, _RUN = "jobs.csv", "scores.csv.gz", "run.json"
_PARTS = {"": JobStatus, "thresholds.": Thresholds, "cost.": Cost}
# Their ends are the interval of the mean over a model's seeds, the same in each of its rows.
_PIXELS = ("pixel_auroc", "aupro", "dice_mean", "dice_pooled")
_ENDS = ("", ".low", ".high")
# What a failed job says may name a file, and so a patient.
_PATH = re.compile(r"[/\\]")
_LEFT_OUT = "what it said names a file, and is left out here"


class PublishedJob(JobFolder):
    """A job of a published copy."""

    def __init__(self, run: PublishedRun, name: str) -> None:
        super().__init__(run.path / "jobs" / name)
        self._run = run
        self._row = run.rows.get(name, {})

    def read(self) -> Job | None:
        """Read what its row says; None if the job had not ended."""
        if not self._row.get("status"):
            return None
        with explained(self._run.path / _JOBS):
            status, thresholds, cost = (_from_cells(kind, self._row, start) for start, kind in _PARTS.items())
            figures = {
                name: [None if (cell := self._row[f"{name}{end}"]) == "" else float(cell) for end in _ENDS]
                for name in _PIXELS
                if self._row.get(name)
            }
            epochs = json.loads(self._row["epochs"] or "[]")
            info = _from_cells(JobInfo, self._row, "")
            return Job(status, info, thresholds, cost, epochs=epochs, pixel_figures=figures)

    def scores(self) -> DataFrame:
        """Its scores, as `JobFolder.scores` returns them; instead of blurred scores their order."""
        with explained(self._run.path / _SCORES):
            table, column = self._run.table, _column(self._row["model"], self._row["seed"])
            own = {column: "raw_score"} | {f"{column}.{blur}": blur for blur in BLUR_COLUMNS}
            rows = table[(table.dataset == self._row["dataset"]) & (table[column] != "")].rename(columns=own)
            shown = [name for name in rows if name in {*SCORE_COLUMNS, *BLUR_COLUMNS} or name.startswith("meta_")]
            found = rows[shown].loc[:, lambda part: (part != "").any()].reset_index(drop=True)
            found = found.reindex(columns=list(dict.fromkeys([*SCORE_COLUMNS, *found])), fill_value="")
            return with_numbers(found, ["raw_score", *found.columns.intersection(BLUR_COLUMNS)])


class PublishedRun(RunFolder):
    """A published copy, which is read like a run folder."""

    @cached_property
    def rows(self) -> dict[str, dict[str, str]]:
        """Rows of jobs.csv, as text, by job."""
        with explained(self.path / _JOBS):
            table = pd.read_csv(self.path / _JOBS, dtype=str, keep_default_na=False)
            return {row["job"]: row for row in table.to_dict("records")}

    @cached_property
    def table(self) -> DataFrame:
        """scores.csv.gz, as text."""
        return pd.read_csv(self.path / _SCORES, dtype=str, keep_default_na=False)

    def read(self) -> tuple[RunInfo, list[PlannedJob]]:
        """Read where and how it ran, and all jobs of the plan."""
        planned = [_from_cells(PlannedJob, row, "") for row in self.rows.values()]
        return read_json(self.path / _RUN, RunFile).info, planned

    def job(self, name: str) -> JobFolder:
        """A job."""
        return PublishedJob(self, name)

    def dataset(self, name: str) -> DatasetInfo | None:
        """Read what is known of a dataset."""
        found = read_json(self.path / _RUN, RunFile).datasets
        return next((info for info in found if info.dataset == name), None)


def open_run(path: str | Path) -> RunFolder:
    """A run folder, or a published copy of one."""
    return PublishedRun(path) if (Path(path) / _JOBS).exists() else RunFolder(path)


def publish(run: RunFolder, target: Path) -> RunFolder:
    """Write what a report is made of, less all that shows or names somebody.

    Args:
        run: The run folder, which stays as it is.
        target: A new folder, or one that an earlier call made, which is brought up to date.

    Returns:
        The copy.

    Raises:
        RunFolderError: If ``run`` is no run folder, or ``target`` holds something else.
    """
    loaded = load_run(run)
    if target.resolve() == run.path.resolve():
        msg = f"--publish is the run folder {run.path} itself. Give another folder, which gets a copy without pictures."
        raise RunFolderError(msg)
    if target.exists() and not (target.is_dir() and ((target / _JOBS).exists() or not any(target.iterdir()))):
        msg = f"{target} holds something else than an earlier copy of a run. Give a new folder with --publish."
        raise RunFolderError(msg)
    figures = _pixel_figures(loaded)
    rows = [_row(job, loaded.jobs.get(job.job), figures.get(job.job, {})) for job in loaded.planned]
    with atomic(target / "plan.yaml", "wb") as file:
        file.write((run.path / "plan.yaml").read_bytes())
    write_json(
        target / _RUN, RunFile(loaded.info, datasets=[each.info for each in loaded.datasets if each.info is not None])
    )
    with atomic(target / _SCORES, "wb") as file:
        text = _score_table(loaded).to_csv(index=False, lineterminator="\n")
        file.write(gzip.compress(text.encode(), mtime=0))
    # Last: it is what a copy is known by.
    write_csv(target / _JOBS, DataFrame(rows).fillna(""))
    return PublishedRun(target)


def local_paths(plan: Mapping[str, object], prefix: str = "") -> list[str]:
    """Where a plan names folders of this machine, such as ``datasets.knees.init_args.root``."""
    found = []
    for key, value in plan.items():
        if isinstance(value, Mapping):
            found += local_paths(value, f"{prefix}{key}.")
        elif isinstance(value, str) and Path(value).is_absolute():
            found.append(f"{prefix}{key}")
    return found


def _row(planned: PlannedJob, job: Job | None, figures: Mapping[str, object]) -> dict[str, str]:
    """A row of jobs.csv: text as it is, other values as JSON, nothing for None."""
    row: dict[str, object] = dict(vars(planned))
    if job is not None:
        status = replace(job.status, message=_LEFT_OUT) if _PATH.search(job.status.message) else job.status
        parts = dict(zip(_PARTS, (status, job.thresholds, job.cost), strict=True))
        row |= {
            f"{start}{name}": value for start, part in parts.items() if part for name, value in asdict(part).items()
        }
        row |= {"epochs": job.epochs or None, **figures}
    if job is not None and job.info is not None:
        # All other settings are in plan.yaml.
        spec = {name: job.info.spec.get(name) for name in ("class_path", "protocol")}
        row |= {"device": job.info.device, "spec": spec}
        row |= {"teacher": job.info.teacher, "teacher_sha256": job.info.teacher_sha256}
    return {
        name: value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
        for name, value in row.items()
    }


def _from_cells(kind: type[Any], row: Mapping[str, str], prefix: str) -> Any:  # noqa: ANN401 - an instance of `kind`
    """Make a dataclass of a row's cells; None if there are none for it."""
    values: dict[str, object] = {}
    for each in fields(kind):
        hint, cell = get_type_hints(kind)[each.name], row.get(f"{prefix}{each.name}", "")
        if cell != "":
            values[each.name] = cell if hint is str or get_origin(hint) is Literal else json.loads(cell)
        elif each.default is MISSING and each.default_factory is MISSING:
            values[each.name] = None
    return None if all(value is None for value in values.values()) else build(kind, values)


def _column(model: str, seed: object) -> str:
    return f"{model}__seed{seed}"


def _pixel_figures(run: Run) -> dict[str, dict[str, float]]:
    """Job -> figures of its pixels, which are not in the copy."""
    found: dict[str, dict[str, float]] = {}
    for model in (model for dataset in run.datasets for model in dataset.models):
        for metric in PIXEL:
            value = evaluate(model, metric)
            for training, own in zip(model.trainings, value.trainings, strict=False):
                ends = () if value.estimate is None else (own, value.estimate.low, value.estimate.high)
                cells = {f"{metric.key}{end}": each for end, each in zip(_ENDS, ends, strict=False) if each == each}
                found.setdefault(training.info.job, {}).update(cells)
    return found


def _score_table(run: Run) -> DataFrame:
    """One row an image and part of the data, one column a job, and two with the order of its blurred scores."""
    parts = []
    for dataset in run.datasets:
        columns = []
        for training in (each for model in dataset.models for each in model.trainings):
            table, name = training.table, _column(training.info.model, training.info.seed)
            keys = [column for column in table if column not in {"raw_score", *BLUR_COLUMNS}]
            table = table.assign(nth=table.groupby(keys).cumcount())
            own = {"raw_score": name} | {blur: f"{name}.{blur}" for blur in BLUR_COLUMNS if blur in table}
            table = table.set_index([*keys, "nth"])[list(own)].rename(columns=own)
            table[name] = table[name].astype(np.float32).astype(str)
            for blur in table.columns.drop(name):
                table[blur] = table[blur].rank(method="dense").astype("Int64").astype(str).replace("<NA>", "")
            columns.append(table)
        if columns:
            joined = pd.concat(columns, axis=1).fillna("").reset_index().drop(columns="nth")
            joined.insert(0, "dataset", dataset.name)
            parts.append(joined)
    return pd.concat(parts, ignore_index=True).fillna("") if parts else DataFrame(columns=["dataset", *SCORE_COLUMNS])
