"""A copy of a run that may leave the place of the data: figures can be recomputed from it, nobody is shown.

    <copy>/plan.yaml       the resolved plan; under ``run``, where and how it ran
    <copy>/jobs.csv        one row a job of the plan, begun or not: its `Job`, ``cost/steps`` and so on; one a dataset,
                           ``data/n_train`` and so on, as its check is a job too
    <copy>/scores/<dataset>.csv.gz
                           one row an image, one column a job, ``<model>__seed<seed>``: its raw score
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
from dataclasses import asdict, fields, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pandas import DataFrame

from anomalib_medical.benchmark.files import RunFolderError, atomic, build, explained, write_csv
from anomalib_medical.benchmark.records import DatasetInfo, Job, PlannedJob, RunInfo
from anomalib_medical.benchmark.report.evaluate import PIXEL, evaluate
from anomalib_medical.benchmark.report.results import Dataset, Run, load_run
from anomalib_medical.benchmark.run_folder import BLUR_COLUMNS, SCORE_COLUMNS, JobFolder, RunFolder, with_numbers
from anomalib_medical.io import finite_or_none

_JOBS, _SCORES, _RUN = "jobs.csv", "scores", "run"
# What a failed job says may name a file, and so a patient.
_PATH = re.compile(r"[/\\]")
_LEFT_OUT = "what it said names a file, and is left out here"


class PublishedJob(JobFolder):
    """A job of a published copy: ``row`` is its row of jobs.csv."""

    def __init__(self, run: PublishedRun, row: dict[str, Any]) -> None:
        super().__init__(run.path / "jobs" / row["info"]["job"])
        self._run, self._row = run, row

    def read(self) -> Job | None:
        """Read what its row says; None if the job had not ended."""
        if "status" not in self._row:
            return None
        with explained(self._run.path / _JOBS):
            begun = "device" in self._row["info"]
            job: Job = build(Job, {name: said for name, said in self._row.items() if begun or name != "info"})
            return job

    def scores(self) -> DataFrame:
        """Its scores, as `JobFolder.scores` returns them; instead of blurred scores their order."""
        info = self._row["info"]
        with explained(self._run.scores_file(info["dataset"])):
            table = self._run.table(info["dataset"])
            own = _columns(info["model"], info["seed"])
            others = {name for each in self._run.infos for name in _columns(each["model"], each["seed"])} - own.keys()
            rows = table[table[next(iter(own))] != ""].drop(columns=[*others], errors="ignore").reset_index(drop=True)
            return with_numbers(rows.rename(columns=own))


class PublishedRun(RunFolder):
    """A published copy, which is read like a run folder."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(path)
        self._tables: dict[str, DataFrame] = {}

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        """Rows of jobs.csv."""
        with explained(self.path / _JOBS):
            table = pd.read_csv(self.path / _JOBS, dtype=str, keep_default_na=False)
            return [_nested(row) for row in table.to_dict("records")]

    @property
    def infos(self) -> list[dict[str, str]]:
        """What jobs.csv says of the jobs of the plan."""
        with explained(self.path / _JOBS):
            return [row["info"] for row in self._rows if "data" not in row]

    def scores_file(self, dataset: str) -> Path:
        """The file with a dataset's scores."""
        return self.path / _SCORES / f"{dataset}.csv.gz"

    def table(self, dataset: str) -> DataFrame:
        """A dataset's scores, as text."""
        if dataset not in self._tables:
            self._tables[dataset] = pd.read_csv(self.scores_file(dataset), dtype=str, keep_default_na=False)
        return self._tables[dataset]

    def plan(self) -> dict[str, Any]:
        """Read the resolved plan."""
        return {name: value for name, value in super().plan().items() if name != _RUN}

    def read(self) -> tuple[RunInfo, list[PlannedJob]]:
        """Read where and how it ran, and all jobs of the plan."""
        names = [each.name for each in fields(PlannedJob)]
        with explained(self.path / _JOBS):
            planned = [build(PlannedJob, {name: info[name] for name in names}) for info in self.infos]
        with explained(self.path / "plan.yaml"):
            return build(RunInfo, super().plan()[_RUN]), planned

    def job(self, name: str) -> JobFolder:
        """A job."""
        return PublishedJob(self, next(row for row in self._rows if row.get("info", {}).get("job") == name))

    def dataset(self, name: str) -> DatasetInfo | None:
        """Read what is known of a dataset."""
        with explained(self.path / _JOBS):
            found = (row["data"] for row in self._rows if "data" in row and row["data"]["dataset"] == name)
            return next((build(DatasetInfo, data) for data in found), None)


def open_run(path: str | Path) -> RunFolder:
    """A run folder, or a published copy of one."""
    return PublishedRun(path) if (Path(path) / _JOBS).exists() else RunFolder(path)


def publish(run: RunFolder, target: Path) -> RunFolder:
    """Write what a report is made of, less all that shows or names somebody.

    ``target`` is a new folder, or one that an earlier call made, which is brought up to date.
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
    rows += [_flat({"data": asdict(each.info)}) for each in loaded.datasets if each.info is not None]
    with atomic(target / "plan.yaml") as file:
        yaml.safe_dump(loaded.plan | {_RUN: asdict(loaded.info)}, file, sort_keys=False, allow_unicode=True)
    copy = PublishedRun(target)
    for dataset in loaded.datasets:
        with atomic(copy.scores_file(dataset.name), "wb") as file:
            text = _score_table(dataset).to_csv(index=False, lineterminator="\n")
            file.write(gzip.compress(text.encode(), mtime=0))
    kept = {copy.scores_file(dataset.name) for dataset in loaded.datasets}
    for earlier in {*(target / _SCORES).glob("*.csv.gz")} - kept:
        earlier.unlink()
    # Last: it is what a copy is known by.
    write_csv(target / _JOBS, DataFrame(rows).fillna(""))
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


def _row(planned: PlannedJob, job: Job | None, figures: dict[str, list[float | None]]) -> dict[str, str]:
    """A row of jobs.csv: values within values as ``outer/inner``, lists as JSON, nothing for None."""
    said: dict[str, Any] = {"info": vars(planned)}
    if job is not None:
        message = _LEFT_OUT if _PATH.search(job.status.message) else job.status.message
        kept = asdict(replace(job, status=replace(job.status, message=message), pixel_figures=figures))
        said |= {name: kept[name] for name in ("status", "thresholds", "cost", "epochs", "pixel_figures")}
        if job.info is not None:
            # All other settings are in plan.yaml.
            spec = {name: job.info.spec.get(name) for name in ("class_path", "protocol")}
            said["info"] = kept["info"] | {"spec": spec}
    return _flat(said)


def _flat(said: dict[str, Any]) -> dict[str, str]:
    (row,) = pd.json_normalize(said, sep="/").to_dict("records")
    row["epochs"] = row.pop("epochs", None) or None  # the longest cell comes last
    texts = {str(name): value if isinstance(value, str) else json.dumps(value) for name, value in row.items()}
    return {name: text for name, text in texts.items() if text not in {"null", ""}}


def _nested(row: Mapping[Any, str]) -> dict[str, Any]:
    """What `_flat` flattened, values still as text."""
    found: dict[str, Any] = {}
    for name, cell in row.items():
        if cell != "":
            *path, last = name.split("/")
            inner = found
            for part in path:
                inner = inner.setdefault(part, {})
            inner[last] = cell
    return found


def _columns(model: str, seed: object) -> dict[str, str]:
    """Columns of a job in its dataset's scores, and what they are called in a job's own file."""
    job = f"{model}__seed{seed}"
    return {job: "raw_score"} | {f"{job}.{blur}": blur for blur in BLUR_COLUMNS}


def _pixel_figures(run: Run) -> dict[str, dict[str, list[float | None]]]:
    """Job -> figures of its pixels, which are not in the copy."""
    found: dict[str, dict[str, list[float | None]]] = {}
    for model, metric in product((model for dataset in run.datasets for model in dataset.models), PIXEL):
        value = evaluate(model, metric)
        if value.estimate is not None:
            ends = [finite_or_none(value.estimate.low), finite_or_none(value.estimate.high)]
            for training, own in zip(model.trainings, value.trainings, strict=True):
                found.setdefault(training.info.job, {})[metric.key] = [own, *ends]
    return found


def _score_table(dataset: Dataset) -> DataFrame:
    """One row an image and part of the data, one column a job, and two with the order of its blurred scores."""
    columns = []
    for training in (each for model in dataset.models for each in model.trainings):
        table = training.table
        keys = [column for column in table if column not in {"raw_score", *BLUR_COLUMNS}]
        table = table.set_index([*keys, table.groupby(keys).cumcount().rename("nth")])
        # The shortest text that tells a float32 from its neighbours.
        table["raw_score"] = table.raw_score.astype("float32").astype(str)
        for blur in (blur for blur in BLUR_COLUMNS if blur in table):
            table[blur] = table[blur].rank(method="dense").map("{:.0f}".format, na_action="ignore")
        names = _columns(training.info.model, training.info.seed).items()
        columns += [table[name].rename(column) for column, name in names if name in table]
    if not columns:
        return DataFrame(columns=[*SCORE_COLUMNS[:-1]])
    return pd.concat(columns, axis=1).reset_index().drop(columns="nth").fillna("")
