"""Reads files of predictions into what the report is about: for runs that no benchmark made."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pandas import DataFrame

from anomalib_medical.benchmark.files import RunFolderError
from anomalib_medical.benchmark.records import GalleryEntry, Job, JobInfo, JobStatus, PlannedJob, RunInfo, Thresholds
from anomalib_medical.benchmark.report.results import (
    Dataset,
    Problem,
    Run,
    Training,
    by_key,
    models_of,
    most_wrong,
    wrong_patients,
)
from anomalib_medical.benchmark.run_folder import JobFolder
from anomalib_medical.callbacks.predictions_file import STEM, Prediction
from anomalib_medical.data.visualizer import HEATMAPS
from anomalib_medical.io import ImageAddress, agree, counted

PROTOCOL = "predictions"
_DATASET = "test images"
# Without these there is no report; files of earlier versions lack others.
_NEEDED = ("path", "raw_score", "gt_label")
_LABELS = {"normal": 0, "abnormal": 1}


def load_predictions(files: Sequence[str]) -> Run:
    """Read files of predictions, each ``FILE`` or ``NAME=FILE``; those of one name are trainings of one model.

    Raises:
        RunFolderError: If a file is not there, is none of predictions, or has no image with score and true label.
    """
    named = _named(files)
    problems: list[Problem] = []
    trainings = [
        _training(name, number, file, problems)
        for name, own in by_key(named).items()
        for number, file in enumerate(own)
    ]
    planned = [_planned(each.info) for each in trainings]
    dataset = Dataset(_DATASET, None, models_of(trainings, problems))
    info = RunInfo(
        "predictions",
        shlex.join(["anomalib-medical", "report", "--predictions", *files]),
        "",
        {name: version(name) for name in ("anomalib-medical", "anomalib")},
        {},
        "",
    )
    plan = {"protocol": PROTOCOL, "files": {name: [str(file) for file in own] for name, own in by_key(named).items()}}
    return Run(info, plan, planned, {each.info.job: each.job for each in trainings}, {}, [dataset], problems)


def first_file(files: Sequence[str]) -> Path:
    """The first of the files, without its name."""
    return _named(files)[0][1]


def _named(files: Sequence[str]) -> list[tuple[str, Path]]:
    """Name and path of each file; where no name is given, what tells its path from the others'."""
    found: list[tuple[str, Path]] = []
    for text in files:
        name, given, file = text.partition("=")
        path = Path(file) if given and name and not Path(text).exists() else Path(text)
        if not path.is_file():
            msg = f"There is no file {path}, expected one of predictions, such as results/.../{STEM}.csv."
            raise RunFolderError(msg)
        found.append((name if path == Path(file) and given else "", path))
    unnamed = [path.absolute() for name, path in found if not name]
    common = Path(os.path.commonpath([path.parent for path in unnamed])) if len(unnamed) > 1 else None
    return [(name or _short(path, common), path) for name, path in found]


def _short(path: Path, common: Path | None) -> str:
    parent = path.absolute().parent
    folders = parent.relative_to(common) if common else Path(parent.name)
    return str(folders if path.stem == STEM and folders.parts else folders / path.stem)


def _planned(info: JobInfo) -> PlannedJob:
    return PlannedJob(*(getattr(info, each.name) for each in fields(PlannedJob)))


def _training(name: str, number: int, file: Path, problems: list[Problem]) -> Training:
    table = _read(file)
    known = table.gt_label.isin(list(_LABELS))
    scores = pd.to_numeric(table.raw_score, errors="coerce")
    usable = known & np.isfinite(scores)
    for lacking, what in ((~known, "true label"), (known & ~usable, "score")):
        if lacking.any():
            count = int(lacking.sum())
            text = f"{count} of {counted(len(table), 'image')} without a {what} {agree(count, 'is', 'are')} left out."
            problems.append(Problem(str(file), f"without a {what}", text))
    if not usable.any():
        msg = (
            f"{file} has no image with a score and a true label: a report needs both. `anomalib-medical test` writes "
            f"true labels, and so does `predict` on data with them."
        )
        raise RunFolderError(msg)
    test = DataFrame(
        {
            "path_hash": table.path,
            "patient_hash": table.patient,
            "series_hash": table.series,
            "split": "test",
            "label": table.gt_label.map(_LABELS),
            "class_name": table.gt_label,
            "raw_score": scores,
        }
    )[usable].reset_index(drop=True)
    limits = table.threshold[table.threshold != ""].unique()
    if len(limits) > 1:
        problems.append(Problem(str(file), "several thresholds", f"{file} has {len(limits)}: none is taken."))
    thresholds = Thresholds(float(limits[0]), None, np.nan, 0, "as in the files") if len(limits) == 1 else None
    info = JobInfo(f"{name} {number}", _DATASET, name, name, number, "trained", "", {})
    training = Training(info, Job(JobStatus("done", 0.0), info, thresholds), JobFolder(file.parent), test, test, None)
    training.job.gallery.extend(_pictures(training, file))
    return training


def _read(file: Path) -> DataFrame:
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        msg = f"{file} cannot be read as a table ({type(error).__name__}), expected a file of predictions."
        raise RunFolderError(msg) from error
    if missing := [name for name in _NEEDED if name not in table]:
        found = ", ".join(map(str, table)) or "nothing"
        msg = f"{file} has the columns {found}, expected those of {STEM}.csv; missing: {', '.join(missing)}."
        raise RunFolderError(msg)
    return table.assign(**{name: "" for name in Prediction._fields if name not in table})


def _pictures(training: Training, file: Path) -> list[GalleryEntry]:
    """The heatmaps of those patients' images that are wrong by most, where the run drew them."""
    folder = file.with_name(file.stem.replace(STEM, HEATMAPS, 1))
    drawn = by_key((path.name, path) for path in sorted(folder.rglob("*")) if path.is_file())
    entries = []
    for wrong in most_wrong(wrong_patients(training))[0]:
        address = ImageAddress.parse(wrong.image)
        names = (address.picture_name(), f"{address.picture_name()}.png")
        choices = [path for name in names for path in drawn.get(name, [])]
        if not choices:
            continue
        place = _likest(choices, address.path)
        kind: Literal["lowest", "highest"] = "lowest" if wrong.label else "highest"
        entries.append(GalleryEntry(wrong.image, str(place.absolute()), kind, wrong.label, wrong.raw_score))
    return entries


def _likest(pictures: Sequence[Path], original: Path) -> Path:
    """The picture whose folders are most like the original's, from the inside outwards."""
    wanted = original.parent.parts[::-1]

    def common(picture: Path) -> int:
        pairs = zip(picture.parent.parts[::-1], wanted, strict=False)
        return next((count for count, (one, other) in enumerate(pairs) if one != other), len(wanted))

    return max(pictures, key=common)
