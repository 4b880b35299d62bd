"""From a series to what is said of it as one: its row, the maps of a volume, and DICOM objects."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path

from ..io import ImageAddress, Series, counted
from .dicom_objects import DicomObjects, SeriesSlice
from .manifest import PostProcessing
from .processing import Processor
from .reading import FileResult
from .results import Row, SeriesRow, series_name, write_atomically
from .series_rows import PatientRows, SliceScore, series_row
from .volumes import volume_maps

logger = logging.getLogger("edge")

VOLUMES = "volumes"


@dataclass
class SeriesResult:
    """What becomes of a series."""

    files: list[FileResult]  # of all of its files, in the order of their paths
    # One; for a file of several volumes one each; none for pictures of no series, and where nothing could be read.
    rows: list[SeriesRow] = field(default_factory=list)


class SeriesScorer:
    """Scores series, and writes what is made of them as a whole.

    Args:
        processor: Reads, scores and draws files; the map of each picture is kept until its series is done.
        facts: Thresholds, of series and patients too.
        output: Folder of results; its `volumes/` takes the maps of NIfTI files.
        volumes: Whether these are wanted.
        dicom: Makes DICOM objects, if these are wanted.

    Attributes:
        facts: As given.
        patients: The rows of the patients of all series so far.
    """

    def __init__(
        self, processor: Processor, facts: PostProcessing, output: Path, *, volumes: bool, dicom: DicomObjects | None
    ) -> None:
        self._processor = processor
        self.facts = facts
        self._volumes = output / VOLUMES if volumes else None
        self._dicom = dicom
        self.patients = PatientRows(facts)

    def __call__(self, series: Iterable[Series]) -> Iterator[SeriesResult]:
        """Score series one after another; files of the next are read while one is finished.

        Results come in the order of the series, each when all that belongs to it is written.
        """
        under_way: deque[tuple[Series, int]] = deque()
        done: list[FileResult] = []

        def files() -> Iterator[Path]:
            for each in series:
                # In the order of their paths, as the rows of the predictions are, whatever their place in space.
                paths = sorted([*each.files, *each.copies])
                under_way.append((each, len(paths)))
                yield from paths

        for result in self._processor(files()):
            done.append(result)
            if len(done) == under_way[0][1]:
                yield self._finish(under_way.popleft()[0], done)
                done = []

    def _finish(self, series: Series, files: list[FileResult]) -> SeriesResult:
        """Judge a series, and write what is made of it."""
        by_path = {file.path: file for file in files}
        counted_files = [by_path[path] for path in series.files if by_path[path].rows]
        result = SeriesResult(files)
        if not (series.key and counted_files):
            return result
        notes = list(series.notes)
        failed = sum(bool(by_path[path].reason) for path in series.files)
        if failed:
            notes.append(f"{counted(failed, 'slice')} could not be read")
        name = series_name([file.image for file in counted_files])
        patient = self.patients.name(series.patient, name)
        rows = [row for file in counted_files for row in file.rows]
        places: dict[str, tuple[str, int]] = {}
        for suffix, of_volume in _by_volume(rows):
            places |= {row.path: (f"{name}{suffix}", index) for index, row in enumerate(of_volume)}
            slices = [SliceScore(row.path, row.raw_score) for row in of_volume]
            result.rows.append(series_row(f"{name}{suffix}", patient, slices, self.facts, notes))
        for file in counted_files:
            file.rows = [replace(row, series=places[row.path][0], slice=places[row.path][1]) for row in file.rows]
        if note := self._write(name, counted_files, result.rows[0]):
            result.rows = [replace(row, note="; ".join(filter(None, (row.note, note)))) for row in result.rows]
        for row in result.rows:
            self.patients.add(row)
            if row.note:
                logger.warning("series %s: %s", row.series, row.note)
        return result

    def _write(self, name: str, files: Sequence[FileResult], row: SeriesRow) -> str:
        """Write volumes and DICOM objects; returns what could not be made, and why."""
        first = files[0]
        if self._volumes is not None and first.is_volume and first.predictions:
            self._volumes.mkdir(exist_ok=True)
            addresses = [ImageAddress.parse(each.path) for each in first.rows]
            for what, content in volume_maps(first.path, addresses, first.predictions):
                write_atomically(self._volumes / f"{name}_{what}", content)
        if self._dicom is None or not first.is_dicom:
            return ""
        slices = [SeriesSlice(file.path, [each.path for each in file.rows], file.predictions) for file in files]
        return self._dicom.write_series(name, slices, row)


def _by_volume(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Divide the rows of a file of several volumes; what stands behind the series' name, and the rows."""
    for suffix, group in groupby(rows, lambda row: _volume_of(row.image)):
        yield suffix, list(group)


def _volume_of(image: str) -> str:
    return next((f"_{part}" for part in image.split("_") if part.startswith("volume-")), "")
