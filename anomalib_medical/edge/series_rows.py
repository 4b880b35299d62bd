"""What is said of series and of patients, given the scores of their slices: in training tools and on the box."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .manifest import Calibration, PostProcessing
from .results import PatientRow, SeriesRow
from .scores import above, normalize, raw_threshold, series_score


class SliceScore(NamedTuple):
    """A slice that was scored."""

    address: str
    raw_score: float  # finite


@dataclass(frozen=True)
class Verdict:
    """What a score means at a threshold."""

    score: float | None
    label: str
    threshold: float | None


def judge(raw_score: float, calibration: Calibration, facts: PostProcessing) -> Verdict:
    """Normalise a raw score of a series or a patient, and compare it, as it is done with an image's."""
    if calibration.threshold is None:
        return Verdict(None, "", None)
    score = normalize(np.asarray([raw_score], np.float32), calibration, facts.normalization)
    abnormal = above(score, calibration)
    label = "" if abnormal is None else ("abnormal" if abnormal[0] else "normal")
    threshold = raw_threshold(calibration, facts.normalization)
    return Verdict(None if facts.normalization == "none" else float(score[0]), label, threshold)


def series_row(
    name: str, patient: str, slices: Sequence[SliceScore], facts: PostProcessing, notes: Iterable[str] = ()
) -> SeriesRow:
    """Aggregate the scores of a series of at least one slice; of equal ones the first is the worst."""
    worst = max(slices, key=lambda each: each.raw_score)
    raw_score = series_score([each.raw_score for each in slices], facts.series_top)
    verdict = judge(raw_score, facts.series, facts)
    return SeriesRow(
        series=name,
        patient=patient,
        raw_score=raw_score,
        score=verdict.score,
        label=verdict.label,
        threshold=verdict.threshold,
        slices=len(slices),
        worst=worst.address,
        note="; ".join(notes),
    )


class PatientRows:
    """The rows of patients, from those of their series; memory grows with the number of patients."""

    def __init__(self, facts: PostProcessing) -> None:
        self._facts = facts
        self._rows: dict[str, PatientRow] = {}
        self._names: dict[str, str] = {}

    def name(self, key: str, series: str) -> str:
        """Name the patient of this key after the first series; the key itself may say who it is."""
        return self._names.setdefault(key, series)

    def add(self, row: SeriesRow) -> None:
        """Take a series into account."""
        before = self._rows.get(row.patient)
        worse = before is None or row.raw_score > before.raw_score
        raw_score, worst = (row.raw_score, row.worst) if before is None or worse else (before.raw_score, before.worst)
        verdict = judge(raw_score, self._facts.patient, self._facts)
        self._rows[row.patient] = PatientRow(
            patient=row.patient,
            raw_score=raw_score,
            score=verdict.score,
            label=verdict.label,
            threshold=verdict.threshold,
            series=1 + (before.series if before else 0),
            slices=row.slices + (before.slices if before else 0),
            worst=worst,
        )

    def __iter__(self) -> Iterator[PatientRow]:
        """Go through the rows, in the order of the first series of each."""
        return iter(self._rows.values())

    def __len__(self) -> int:
        """Count the patients."""
        return len(self._rows)


def why_no_threshold(facts: PostProcessing) -> str:
    """Say in one sentence why series or patients get no label; empty if both do."""
    lacking = [
        name
        for name, calibration in (("series", facts.series), ("patients", facts.patient))
        if calibration.threshold is None
    ]
    if not lacking:
        return ""
    return (
        f"No label for {' and '.join(lacking)}: the normal images that were held out in training were of no known "
        "series (plain pictures without a patient), or the model has no threshold."
    )
