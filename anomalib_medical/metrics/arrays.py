"""Inputs of the metrics, checked in one place."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.intp]
Arrays = npt.ArrayLike | torch.Tensor


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
        ValueError: If a score is nan or infinite.
    """
    array = to_numpy(scores).astype(np.float64)
    bad = int(np.count_nonzero(~np.isfinite(array)))
    if bad:
        msg = (
            f"{bad} of {array.size} scores are nan or infinite. Look at the model that made them: no metric ranks them."
        )
        raise ValueError(msg)
    return array


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
        ValueError: If the lengths differ or a class is absent.
    """
    score_array, label_array = to_scores(scores).reshape(-1), to_labels(labels).reshape(-1)
    if score_array.shape != label_array.shape:
        msg = f"got {score_array.size} scores for {label_array.size} labels."
        raise ValueError(msg)
    abnormal = int(label_array.sum())
    if abnormal in {0, label_array.size}:
        msg = (
            f"ranking metrics need normal and abnormal images, got {label_array.size - abnormal} normal and "
            f"{abnormal} abnormal ones."
        )
        raise ValueError(msg)
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
