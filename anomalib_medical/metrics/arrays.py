"""Inputs of the metrics, checked in one place."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]
Arrays = npt.ArrayLike | torch.Tensor


class UndefinedMetricError(ValueError):
    """A metric has no value on these data; the message says why. Whoever shows it shows NaN, never a number."""


def why_undefined(scores: int, not_finite: int, unit: str = "") -> str | None:
    """Say why scores have no order, None if they have one. A part that is not finite is enough: it has no place."""
    what = f"{unit} scores" if unit else "scores"
    return f"{not_finite} of {scores} {what} are nan or infinite" if not_finite else None


def why_one_class(normal: int, abnormal: int, unit: str = "image") -> str | None:
    """Say which class a metric of both lacks, None if there are both."""
    if normal and abnormal:
        return None
    return f"normal and abnormal {unit}s are needed, and there are {normal} normal and {abnormal} abnormal ones"


def to_numpy(values: Arrays) -> npt.NDArray[np.generic]:
    """Return a NumPy view of an array, a list or a tensor on any device."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()
        # NumPy knows no bfloat16.
        return np.asarray(values.float() if values.is_floating_point() else values)
    return np.asarray(values)


def to_scores(scores: Arrays) -> FloatArray:
    """Return finite scores as float64.

    Raises:
        UndefinedMetricError: If a score is nan or infinite.
    """
    array = to_numpy(scores).astype(np.float64)
    refuse_not_finite(array)
    return array


def refuse_not_finite(scores: npt.NDArray[np.generic], unit: str = "") -> None:
    """Raise `UndefinedMetricError` if a score is nan or infinite."""
    reason = why_undefined(scores.size, int(np.count_nonzero(~np.isfinite(scores))), unit)
    if reason is not None:
        msg = f"{reason}. Look at the model that made them: no metric ranks them."
        raise UndefinedMetricError(msg)


def refuse_one_class(abnormal: BoolArray, unit: str = "image") -> None:
    """Raise `UndefinedMetricError` if a class is absent."""
    count = int(abnormal.sum())
    reason = why_one_class(abnormal.size - count, count, unit)
    if reason is not None:
        msg = f"the metric has no value: {reason}."
        raise UndefinedMetricError(msg)


def to_labels(labels: Arrays) -> BoolArray:
    """Return labels or masks as booleans, True for abnormal.

    Raises:
        ValueError: If a value is neither 0 nor 1.
    """
    array = to_numpy(labels)
    if array.dtype == np.bool_:
        return array.astype(np.bool_)
    if not np.isin(array, (0, 1)).all():
        msg = f"labels and masks must be 0 (normal) or 1 (abnormal), got values {np.unique(array)[:5].tolist()}."
        raise ValueError(msg)
    return array.astype(np.bool_)


def to_image_scores(scores: Arrays, labels: Arrays) -> tuple[FloatArray, BoolArray]:
    """Return image scores ``(N,)`` and labels ``(N,)``, of equal length and of both classes.

    Raises:
        ValueError: If the lengths differ.
        UndefinedMetricError: If a score is not finite or a class is absent.
    """
    score_array, label_array = to_scores(scores).reshape(-1), to_labels(labels).reshape(-1)
    if score_array.shape != label_array.shape:
        msg = f"got {score_array.size} scores for {label_array.size} labels."
        raise ValueError(msg)
    refuse_one_class(label_array)
    return score_array, label_array


def to_patient_index(patients: Sequence[str | None] | None, n_images: int) -> IntArray:
    """Number the patients of the images; without patients each image counts as one.

    Args:
        patients: Patient id of every image, or None.
        n_images: Number of images.

    Returns:
        Integers ``(N,)`` in ``0 .. n_patients - 1``.

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
    _, index = np.unique(np.asarray([str(patient) for patient in patients]), return_inverse=True)
    return index.astype(np.intp).reshape(-1)
