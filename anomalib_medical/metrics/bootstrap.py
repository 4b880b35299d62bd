"""Percentile intervals by resampling patients.

Images of one patient are alike, so resampling images would claim more data than there are. Whole patients are drawn
with replacement instead (Field and Welsh, 2007, "Bootstrapping clustered data"), within strata of patients that have
the same classes (normal only, abnormal only, both), which keeps both classes in every resample.

A resample is a row of image weights (how often the image was drawn), so that a metric is one vectorised function of a
``(R, N)`` matrix: scikit-learn's, called for each row, take 10 to 80 times as long. The draws depend on patients,
labels and seed only: two models scored on the same images are resampled alike, and their differences can be paired.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from .arrays import BoolArray, FloatArray, IntArray

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its 95% interval and the amount of data behind it.

    Attributes:
        value: Point estimate on all the data.
        low: Lower end of the interval; nan where the data allow none.
        high: Upper end of the interval; nan where the data allow none.
        n_images: Number of images the value was computed from.
        n_patients: Number of clusters that were resampled (images, where no patients are known).
    """

    value: float
    low: float
    high: float
    n_images: int
    n_patients: int

    @property
    def has_interval(self) -> bool:
        """Whether the data allowed an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def interval(self, form: str = ".3f") -> str:
        """Return for example ``[0.780, 0.841]``; ``form`` is that of each number, such as ``+.3f``."""
        return f"[{self.low:{form}}, {self.high:{form}}]" if self.has_interval else "[no interval]"

    def __format__(self, form: str) -> str:
        """Return for example ``0.812 [0.780, 0.841]``."""
        form = form or ".3f"
        return f"{self.value:{form}} {self.interval(form)}"

    def __str__(self) -> str:
        """Return for example ``0.812 [0.780, 0.841]``."""
        return format(self)


Statistic = Callable[[FloatArray], FloatArray]
"""From image weights ``(R, N)`` to one value per resample ``(R,)``."""

# Keeps the weights and what a statistic makes of them near 100 MB.
_MAX_ELEMENTS = 4_000_000


def mean_of(statistics: Sequence[Statistic]) -> Statistic:
    """Average statistics of the same images, for example those of several seeds of one model."""

    def statistic(weights: FloatArray) -> FloatArray:
        mean: FloatArray = np.mean([each(weights) for each in statistics], axis=0)
        return mean

    return statistic


def difference(first: Statistic, second: Statistic) -> Statistic:
    """Subtract two statistics of the same images, resampled together."""
    return lambda weights: first(weights) - second(weights)


def ratio(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Divide; 0 where both are 0."""
    result: FloatArray = np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)
    return result


def resample_patients(labels: BoolArray, patients: IntArray, n_resamples: int, seed: int) -> FloatArray:
    """Draw patients (numbers ``(N,)``) with replacement within their stratum: how often each was drawn, ``(R, P)``."""
    rng = np.random.default_rng(seed)
    n_patients = int(patients.max()) + 1
    has_abnormal = np.bincount(patients, weights=labels, minlength=n_patients) > 0
    has_normal = np.bincount(patients, weights=~labels, minlength=n_patients) > 0
    stratum = has_abnormal * 2 + has_normal
    counts = np.zeros((n_resamples, n_patients))
    for value in np.unique(stratum):
        members = np.flatnonzero(stratum == value)
        counts[:, members] = rng.multinomial(members.size, np.full(members.size, 1 / members.size), size=n_resamples)
    return counts


def bootstrap(
    statistic: Statistic,
    labels: BoolArray,
    patients: IntArray,
    needs: tuple[int, ...] = (0, 1),
    *,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Estimate a statistic with its percentile interval.

    With fewer than two patients of a class nothing is known about how that class varies: the interval is nan. A
    stratum of a single patient beside larger ones is drawn every time and adds no width. That no resample differs does
    not mean that other patients would not: a share of 0 or 1 has Wilson's interval with one vote a patient, another
    metric none.

    Args:
        statistic: The metric as a function of image weights.
        labels: ``(N,)``, True for abnormal images.
        patients: ``(N,)``, patient number of each image.
        needs: Classes (0 normal, 1 abnormal) of the images that the metric is about; one class for a share of it.
        n_resamples: Number of resamples; 0 for the point estimate alone.
        seed: Seed of the draws.
    """
    n_images, n_patients = labels.size, int(patients.max()) + 1
    value = float(statistic(np.ones((1, n_images)))[0])
    low = high = math.nan
    fewest = min((np.unique(patients[labels == label]).size for label in np.unique(labels)), default=0)
    if n_resamples and fewest >= 2:
        counts = resample_patients(labels, patients, n_resamples, seed)
        chunk = max(1, _MAX_ELEMENTS // n_images)
        values = np.concatenate(
            [statistic(counts[start : start + chunk][:, patients]) for start in range(0, n_resamples, chunk)]
        )
        low, high = (float(q) for q in np.quantile(values, ((1 - LEVEL) / 2, (1 + LEVEL) / 2)))
    if low == high:
        low = high = math.nan
        if len(needs) == 1 and value in {0.0, 1.0}:
            low, high = wilson(value, np.unique(patients[labels == needs[0]]).size)
    return Estimate(value, low, high, n_images, n_patients)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Wilson's score interval of a share of ``count`` independent images or patients."""
    interval = binomtest(round(share * count), count).proportion_ci(confidence_level=LEVEL, method="wilson")
    return float(interval.low), float(interval.high)
