"""Inputs of the metrics, checked in one place."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]


class UndefinedMetricError(ValueError):
    """A metric has no value on these data; the message says why. Whoever shows it shows NaN, never a number."""


def why_not_ranked(scores: int, not_finite: int, unit: str = "") -> str | None:
    """Say why scores have no order, None if they have one. A part that is not finite is enough: it has no place."""
    what = f"{unit} scores" if unit else "scores"
    return f"{not_finite} of {scores} {what} are nan or infinite" if not_finite else None


def why_without(needs: Collection[int], normal: int, abnormal: int, unit: str = "image") -> str | None:
    """Say which class (0 normal, 1 abnormal) a metric needs and lacks, None if nothing is lacking."""
    if len(needs) > 1 and not (normal and abnormal):
        return f"normal and abnormal {unit}s are needed, and there are {normal} normal and {abnormal} abnormal ones"
    if 0 in needs and not normal:
        return f"there are no normal {unit}s"
    if 1 in needs and not abnormal:
        return f"there are no abnormal {unit}s"
    return None if normal or abnormal else f"there are no {unit}s"


def refuse_not_finite(scores: npt.NDArray[np.generic], unit: str = "") -> None:
    """Raise `UndefinedMetricError` if a score is nan or infinite."""
    reason = why_not_ranked(scores.size, int(np.count_nonzero(~np.isfinite(scores))), unit)
    if reason is not None:
        msg = f"{reason}. Look at the model that made them: no metric ranks them."
        raise UndefinedMetricError(msg)


def refuse_without(needs: Collection[int], abnormal: BoolArray, unit: str = "image") -> None:
    """Raise `UndefinedMetricError` if a class that is needed is absent."""
    count = int(abnormal.sum())
    reason = why_without(needs, abnormal.size - count, count, unit)
    if reason is not None:
        msg = f"the metric has no value: {reason}."
        raise UndefinedMetricError(msg)


def to_numpy(values: ArrayLike) -> npt.NDArray[np.generic]:
    """An array, a list or a tensor on any device, which is not named here to keep torch out."""
    if hasattr(values, "detach"):
        tensor: Any = values.detach().cpu()
        # NumPy knows no bfloat16.
        return np.asarray(tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor)
    return np.asarray(values)


def to_labels(labels: ArrayLike) -> BoolArray:
    """Labels or masks as booleans, True for abnormal; `ValueError` if a value is neither 0 nor 1."""
    array = to_numpy(labels)
    if array.dtype == np.bool_:
        return array.astype(np.bool_)
    if not np.isin(array, (0, 1)).all():
        msg = f"labels and masks must be 0 (normal) or 1 (abnormal), got values {np.unique(array)[:5].tolist()}."
        raise ValueError(msg)
    return array.astype(np.bool_)


def to_image_scores(scores: ArrayLike, labels: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Image scores and labels, ``(N,)`` each: of equal length, or `ValueError`; finite, or `UndefinedMetricError`."""
    values, abnormal = to_numpy(scores).astype(np.float64).reshape(-1), to_labels(labels).reshape(-1)
    refuse_not_finite(values)
    if values.shape != abnormal.shape:
        msg = f"got {values.size} scores for {abnormal.size} labels."
        raise ValueError(msg)
    return values, abnormal


def to_patient_index(patients: Sequence[str | None] | None, n_images: int) -> IntArray:
    """Number the patients of the images, as they come; without patients each image counts as one.

    Raises:
        ValueError: If ids are missing for some of the images.
    """
    if patients is None:
        return np.arange(n_images, dtype=np.intp)
    if len(patients) != n_images:
        msg = f"got {len(patients)} patient ids for {n_images} images."
        raise ValueError(msg)
    missing = sum(patient is None or not str(patient) for patient in patients)
    if missing:
        msg = f"{missing} of {n_images} images have no patient id. Give every image one, or pass patients=None."
        raise ValueError(msg)
    names = np.asarray([str(patient) for patient in patients])
    _, first, index = np.unique(names, return_index=True, return_inverse=True)
    # Numbered as they come, so that what is drawn does not depend on what they are called, salted hashes included.
    return first.argsort().argsort()[index.reshape(-1)].astype(np.intp)
