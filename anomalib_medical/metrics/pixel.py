"""Metrics of anomaly maps: of their order, and Dice of masks at a threshold.

Millions of pixels cannot be ranked again for every resample. They are counted once per image in score bins whose
edges are quantiles of the scores; a resample is then a weighted sum of those counts. Pixels that share a bin become
ties, which moves a value by at most half a bin's share of the pixels, about 5e-4 with 2000 bins and in practice less
than 1e-4.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike
from scipy import ndimage

from . import curves
from .arrays import FloatArray, UndefinedMetricError, refuse_not_finite, refuse_without, to_labels, to_numpy
from .bootstrap import ratio
from .metric import Sample, metric

# Quantiles of a million pixels are as good as those of all.
_MAX_QUANTILE_PIXELS = 1_000_000
# Where the per-region overlap curve stops, as a share of the normal pixels.
_FPR_LIMIT = 0.3


@dataclass(frozen=True)
class PixelCounts:
    """Pixels of N images counted in K ascending score bins."""

    normal: FloatArray  # (N, K), normal pixels of each image in each bin
    abnormal: FloatArray  # (N, K), abnormal pixels
    overlap: FloatArray  # (N, K), sum over the image's abnormal regions of the share of the region in the bin
    regions: FloatArray  # (N,), number of abnormal regions (8-connected)


def bin_pixels(maps: ArrayLike, masks: ArrayLike, n_bins: int = 2000) -> PixelCounts:
    """Count the pixels of anomaly maps by score.

    Args:
        maps: Anomaly maps ``(N, H, W)`` or ``(N, 1, H, W)``, higher is more abnormal.
        masks: Ground truth of the same shape, 1 for abnormal; all zero for normal images.
        n_bins: Number of bins, half of their edges at quantiles of the normal and half at quantiles of the abnormal
            pixels. Heavily tied scores give fewer.

    Raises:
        ValueError: If shapes differ.
        UndefinedMetricError: If a score is nan or infinite, or a class of pixels is absent.
    """
    scores, truth = _planes(to_numpy(maps), "maps"), to_labels(_planes(to_numpy(masks), "masks"))
    if scores.shape != truth.shape:
        msg = f"maps have shape {scores.shape} and masks {truth.shape}. Resize the masks (nearest) to the maps."
        raise ValueError(msg)
    refuse_not_finite(scores, "pixel")
    refuse_without((0, 1), truth, "pixel")

    levels = np.linspace(0, 1, n_bins // 2 + 1)[1:-1]
    edges = np.unique(
        np.concatenate([np.quantile(_thin(scores[kind]), levels, method="lower") for kind in (~truth, truth)])
    )
    shape = (len(scores), edges.size + 1)
    normal, abnormal, overlap = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    regions = np.zeros(len(scores))
    for row, (score, mask) in enumerate(zip(scores, truth, strict=True)):
        bins = np.searchsorted(edges, score, side="right")
        normal[row] = np.bincount(bins[~mask], minlength=shape[1])
        if not mask.any():
            continue
        labels, n_regions = ndimage.label(mask, structure=np.ones((3, 3)))
        inside = labels[mask]
        abnormal[row] = np.bincount(bins[mask], minlength=shape[1])
        overlap[row] = np.bincount(bins[mask], weights=1 / np.bincount(inside)[inside], minlength=shape[1])
        regions[row] = n_regions
    return PixelCounts(normal, abnormal, overlap, regions)


@metric(needs=())
def pixel_auroc(counts: PixelCounts) -> Sample:
    """Area under the ROC curve over all pixels of all images, given what `bin_pixels` returned."""
    return Sample(lambda weights: curves.auroc(weights @ counts.normal, weights @ counts.abnormal), counts.regions > 0)


@metric(needs=())
def aupro(counts: PixelCounts) -> Sample:
    """Area under the per-region overlap curve up to a false-positive rate of 0.3, divided by it: anomalib's ``AUPRO``.

    Bergmann et al. (2021), "The MVTec Anomaly Detection Dataset", section 5: every abnormal region counts the same,
    whatever its size. Takes what `bin_pixels` returned.
    """

    def statistic(weights: FloatArray) -> FloatArray:
        false = np.cumsum((weights @ counts.normal)[:, ::-1], axis=1)
        found = np.cumsum((weights @ counts.overlap)[:, ::-1], axis=1)
        return curves.limited_area(false / false[:, -1:], found / (weights @ counts.regions)[:, None], _FPR_LIMIT)

    return Sample(statistic, counts.regions > 0)


@metric(needs=())
def pooled_dice(true_positive: ArrayLike, false_positive: ArrayLike, false_negative: ArrayLike) -> Sample:
    """Dice over the pixels of all images together: false marks on normal images count; scikit-learn's ``f1_score``.

    Args:
        true_positive: Abnormal pixels above the threshold in each image, ``(N,)``.
        false_positive: Normal pixels above it, ``(N,)``.
        false_negative: Abnormal pixels not above it, ``(N,)``.
    """
    tp, fp, fn = _cells(true_positive, false_positive, false_negative)
    return Sample(lambda weights: ratio(2 * (weights @ tp), weights @ (2 * tp + fp + fn)), tp + fn > 0)


@metric(needs=())
def mean_dice(true_positive: ArrayLike, false_positive: ArrayLike, false_negative: ArrayLike) -> Sample:
    """Mean over the abnormal images of each image's Dice: every lesion image counts the same, normal images do not.

    Takes what `pooled_dice` takes.
    """
    tp, fp, fn = _cells(true_positive, false_positive, false_negative)
    abnormal = tp + fn > 0
    each = ratio(2 * tp, 2 * tp + fp + fn) * abnormal
    return Sample(lambda weights: ratio(weights @ each, weights @ abnormal.astype(np.float64)), abnormal)


def _cells(*counts: ArrayLike) -> list[FloatArray]:
    arrays = [to_numpy(each).astype(np.float64).reshape(-1) for each in counts]
    if len({each.size for each in arrays}) > 1:
        msg = f"got counts of {', '.join(str(each.size) for each in arrays)} images, expected the same number."
        raise ValueError(msg)
    if not all(((each >= 0) & np.isfinite(each)).all() for each in arrays):
        msg = "pixel counts must be 0 or more; nan means that there was no threshold to count at."
        raise UndefinedMetricError(msg)
    if not (arrays[0] + arrays[2]).any():
        msg = f"Dice needs an abnormal pixel, got none in {arrays[0].size} images."
        raise UndefinedMetricError(msg)
    return arrays


def _planes(array: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.generic]:
    """Drop the channel axis of ``(N, 1, H, W)``."""
    if array.ndim == 4 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 3:
        msg = f"{name} must have shape (N, H, W) or (N, 1, H, W), got {array.shape}."
        raise ValueError(msg)
    return array


def _thin(values: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """Take evenly spread samples of a long array."""
    return values[:: max(1, values.size // _MAX_QUANTILE_PIXELS)]
