"""`series.csv` and `patients.csv` beside the predictions: what the scores of slices say of series and patients."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from anomalib_medical.callbacks.predictions_file import STEM, Prediction, each_prediction
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.edge.manifest import PostProcessing
from anomalib_medical.edge.results import PATIENTS, SERIES, PatientRow, SeriesRow, Table
from anomalib_medical.edge.series_rows import PatientRows, SliceScore, series_row, why_no_threshold
from anomalib_medical.io import ImageAddress, counted, group_series, series_key

logger = logging.getLogger(__name__)


class _Group(NamedTuple):
    """A series, by what may say who it is of: hashed, it is written."""

    series: str
    patient: str
    slices: list[SliceScore]
    notes: list[str]


def write_series(predictions: Path, datasets: Iterable[Any], facts: PostProcessing, hasher: PatientHasher) -> None:
    """Write both beside a complete file of predictions, under its number; nothing if no image is of a series.

    Series are those of the datasets' tables where these name them; else what the files say, see `group_series`.
    """
    known: dict[str, tuple[str, str]] = {}
    for dataset in datasets:
        samples = getattr(dataset, "samples", None)
        if samples is not None and "series_id" in samples:
            rows = zip(samples.image_path, samples.series_id, samples.patient_id, strict=True)
            known |= {str(path): (series, str(patient)) for path, series, patient in rows}
    scored = [row for row in each_prediction(predictions) if row.path and math.isfinite(float(row.raw_score))]
    groups = _by_table(scored, known) if known else _by_files(scored)
    patients = PatientRows(facts)
    series = []
    for group in groups:
        names = hasher.hash(group.series, "s"), hasher.hash(group.patient)
        series.append(series_row(*names, group.slices, facts, group.notes))
        patients.add(series[-1])
    if not series:
        return
    suffix = predictions.stem.removeprefix(STEM)
    tables = [Table(predictions.parent, f"{stem}{suffix}", kind, (".csv",)) for stem, kind in _TABLES]
    tables[0].replace(series)
    tables[1].replace(patients)
    logger.info("Wrote the scores of %d series and %s beside them.", len(series), counted(len(patients), "patient"))
    if sentence := why_no_threshold(facts):
        logger.info("%s", sentence)


_TABLES: tuple[tuple[str, type[SeriesRow] | type[PatientRow]], ...] = ((SERIES, SeriesRow), (PATIENTS, PatientRow))


def _by_table(scored: Iterable[Prediction], known: dict[str, tuple[str, str]]) -> Iterator[_Group]:
    groups: dict[str, _Group] = {}
    for row in scored:
        series, patient = known.get(row.path, ("", ""))
        if series:
            group = groups.setdefault(series, _Group(series, patient, [], []))
            group.slices.append(SliceScore(row.path, float(row.raw_score)))
    yield from groups.values()


def _by_files(scored: list[Prediction]) -> Iterator[_Group]:
    of_file: dict[Path, list[tuple[ImageAddress, SliceScore]]] = {}
    for row in scored:
        address = ImageAddress.parse(row.path)
        of_file.setdefault(address.path, []).append((address, SliceScore(row.path, float(row.raw_score))))
    for stack in group_series(of_file):
        pictures = [picture for path in stack.files for picture in of_file[path]] if stack.key else []
        # A file may hold several volumes.
        volumes: dict[str, list[SliceScore]] = {}
        for address, score in pictures:
            key = series_key(address, None) or stack.key
            volumes.setdefault(key, []).append(score)
        for key, slices in volumes.items():
            yield _Group(key, stack.patient, slices, stack.notes)
