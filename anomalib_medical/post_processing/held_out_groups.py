"""Thresholds of series and patients, from those of the validation whose images are all normal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from anomalib_medical.edge.scores import order_statistic
from anomalib_medical.post_processing.groups import GroupedScore, patients_of, series_of

KINDS = ("series", "patient")


class _Slice(NamedTuple):
    series: str
    patient: str
    name: str  # of the image: several processes may have scored it
    score: float
    normal: bool


class HeldOutGroups:
    """Collects the scores of validation images by series and patient, over all processes.

    A series is normal if all of its images are. Images of no series are left out: patients are judged by series.
    """

    def __init__(self) -> None:
        self._slices: list[_Slice] = []

    def update(self, batch: Any, scores: torch.Tensor, normal: torch.Tensor) -> None:  # noqa: ANN401 - any batch
        """Take a batch, whose `series_id` and `patient_id` say what belongs together; scores and labels are (B,)."""
        series, patients, names = (getattr(batch, name, None) for name in ("series_id", "patient_id", "image_path"))
        if not series:
            return
        first = len(self._slices)
        for index, (one, score, is_normal) in enumerate(zip(series, scores.tolist(), normal.tolist(), strict=True)):
            if one and math.isfinite(score):
                patient = str(patients[index]) if patients else str(one)
                name = str(names[index]) if names else str(first + index)
                self._slices.append(_Slice(str(one), patient, name, score, bool(is_normal)))

    def calibrate(self, target_specificity: float, top: int) -> dict[str, dict[str, float]]:
        """Give threshold, smallest and largest score and number of normal series and patients, and start anew.

        Their scores are those of `series_of` and `patients_of`. Every process has to call it, also one without images.
        """
        slices = {(each.series, each.name): each for each in self._gathered()}
        self._slices = []
        found: dict[str, dict[str, float]] = {}
        for kind, scores in zip(KINDS, _group_scores(list(slices.values()), top), strict=True):
            if scores:
                found[kind] = {
                    "threshold": order_statistic(scores, target_specificity),
                    "minimum": min(scores),
                    "maximum": max(scores),
                    "held_out": len(scores),
                }
        return found

    def _gathered(self) -> Iterator[_Slice]:
        everything = [self._slices]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            everything = [[] for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(everything, self._slices)
        for slices in everything:
            yield from slices


def _group_scores(slices: list[_Slice], top: int) -> tuple[list[float], list[float]]:
    """Scores of the normal series, and of the normal patients."""
    series = series_of((GroupedScore(each.series, each.patient, each.score, not each.normal) for each in slices), top)
    groups = series, patients_of(series)
    of_series, of_patients = ([each.score for each in group if not each.abnormal] for group in groups)
    return of_series, of_patients
