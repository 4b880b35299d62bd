"""Areas under ROC curves of models on the same images, compared without resampling.

DeLong, DeLong and Clarke-Pearson (1988), "Comparing the areas under two or more correlated receiver operating
characteristic curves"; where patients have several images, the clustered form of Obuchowski (1997), "Nonparametric
analysis of clustered ROC curve data", equations 3 to 6. With one image a patient both are the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, rankdata

from .arrays import FloatArray, IntArray, refuse_without, to_image_scores, to_labels, to_numpy, to_patient_index
from .bootstrap import LEVEL


@dataclass(frozen=True)
class Comparison:
    """Two models' AUROC on the same images."""

    first: float  # AUROC of the first model (mean over its trainings)
    second: float  # AUROC of the second
    difference: float  # first - second
    low: float  # lower end of its 95% interval; nan where the data allow none
    high: float  # upper end
    p_value: float  # two-sided, of no difference; nan where the data allow none, 1 for equal scores


def compare_auroc(
    first: ArrayLike, second: ArrayLike, labels: ArrayLike, patients: Sequence[str | None] | None = None
) -> Comparison:
    """Test whether two models differ in AUROC.

    Several trainings of a model are compared by their mean AUROC, a linear contrast of DeLong's covariance. The test
    then speaks of these trainings on other patients, not of other trainings.

    Args:
        first: Scores ``(N,)`` of the first model, or ``(S, N)`` of S trainings.
        second: Scores of the second, ``(N,)`` or ``(T, N)``, of the same images in the same order.
        labels: ``(N,)``, 1 for abnormal.
        patients: Patient of each image; None takes images as independent.
    """
    one, two = (np.atleast_2d(to_numpy(scores)) for scores in (first, second))
    if one.shape[1] != two.shape[1]:
        msg = f"got scores of {one.shape[1]} and of {two.shape[1]} images, expected the same images in the same order."
        raise ValueError(msg)
    areas, covariance = auroc_covariance(np.concatenate([one, two]), labels, patients)
    contrast = np.r_[np.full(len(one), 1 / len(one)), np.full(len(two), -1 / len(two))]
    difference = float(contrast @ areas)
    means = float(areas[: len(one)].mean()), float(areas[len(one) :].mean())
    variance = float(contrast @ covariance @ contrast)
    if math.isnan(variance):
        return Comparison(*means, difference, math.nan, math.nan, math.nan)
    # Equal scores have no variance but for rounding, which must not make a difference significant.
    deviation = math.sqrt(variance) if variance > 1e-14 else 0.0
    if deviation == 0:
        same = abs(difference) < 1e-12
        bounds = (0.0, 0.0) if same else (math.nan, math.nan)
        return Comparison(*means, difference, *bounds, 1.0 if same else math.nan)
    margin = float(norm.ppf((1 + LEVEL) / 2)) * deviation
    p_value = 2 * float(norm.sf(abs(difference) / deviation))
    return Comparison(*means, difference, difference - margin, difference + margin, p_value)


def auroc_covariance(
    scores: ArrayLike, labels: ArrayLike, patients: Sequence[str | None] | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute the AUROC of M models on the same images, given ``scores`` ``(M, N)``, and their covariance.

    Returns:
        The areas ``(M,)`` and their covariance ``(M, M)``, nan with fewer than two patients of a class.
    """
    table = np.stack([to_image_scores(row, labels)[0] for row in np.atleast_2d(to_numpy(scores))])
    abnormal = to_labels(labels).reshape(-1)
    refuse_without((0, 1), abnormal)
    index = to_patient_index(patients, abnormal.size)
    n_patients = int(index.max()) + 1
    n_abnormal, n_normal = int(abnormal.sum()), int((~abnormal).sum())

    # Structural components: how much of the other class each image beats, ties one half. From ranks, as in Sun and
    # Xu (2014), "Fast implementation of DeLong's algorithm".
    overall = rankdata(table, axis=1)
    beats = (overall[:, abnormal] - rankdata(table[:, abnormal], axis=1)) / n_normal
    beaten = 1 - (overall[:, ~abnormal] - rankdata(table[:, ~abnormal], axis=1)) / n_abnormal
    areas = beats.mean(axis=1)

    def sums(components: FloatArray, members: IntArray) -> tuple[FloatArray, int]:
        total = np.zeros((len(table), n_patients))
        np.add.at(total.T, members, (components - areas[:, None]).T)
        return total, np.unique(members).size

    of_abnormal, with_abnormal = sums(beats, index[abnormal])
    of_normal, with_normal = sums(beaten, index[~abnormal])
    if min(with_abnormal, with_normal) < 2:
        return areas, np.full((len(table), len(table)), np.nan)
    covariance = of_abnormal @ of_abnormal.T * with_abnormal / (with_abnormal - 1) / n_abnormal**2
    covariance += of_normal @ of_normal.T * with_normal / (with_normal - 1) / n_normal**2
    cross = of_abnormal @ of_normal.T * n_patients / (n_patients - 1) / (n_abnormal * n_normal)
    return areas, covariance + cross + cross.T


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of any false finding among them stays at the level (Holm, 1979).

    nan stays nan and does not count as a test.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    adjusted[order] = np.minimum(np.maximum.accumulate(values[order] * np.arange(order.size, 0, -1)), 1)
    return [float(value) for value in adjusted]
