"""From image scores to patient scores: volumes and studies of several images."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from .arrays import Arrays, FloatArray, IntArray, to_labels, to_patient_index, to_scores

Aggregation = Literal["mean", "max", "top_k"]


def aggregate_patients(
    scores: Arrays,
    labels: Arrays,
    patients: Sequence[str | None],
    how: Aggregation = "mean",
    k: int = 3,
) -> tuple[FloatArray, IntArray]:
    """Make one score and one label a patient.

    A patient is abnormal if one of the images is. The maximum and the top-k mean grow with the number of images, so
    that they tell patients with many images from those with few: compare them with the mean.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        patients: Patient of each image.
        how: ``mean``, ``max``, or ``top_k`` for the mean of the k highest (of all, where there are fewer).
        k: For ``top_k``.

    Returns:
        Scores ``(P,)`` and labels ``(P,)``, patients in the order of their sorted ids.
    """
    if how not in {"mean", "max", "top_k"}:
        msg = f"how must be 'mean', 'max' or 'top_k', got {how!r}."
        raise ValueError(msg)
    if k < 1:
        msg = f"k must be 1 or more, got {k}."
        raise ValueError(msg)
    values, abnormal = to_scores(scores).reshape(-1), to_labels(labels).reshape(-1)
    if values.shape != abnormal.shape:
        msg = f"got {values.size} scores for {abnormal.size} labels."
        raise ValueError(msg)
    index = to_patient_index(patients, values.size)
    if not values.size:
        return np.empty(0), np.empty(0, dtype=np.intp)
    order = np.lexsort((-values, index))
    starts = np.flatnonzero(np.diff(index[order], prepend=-1))
    sizes = np.diff(np.r_[starts, values.size])
    place = np.arange(values.size) - np.repeat(starts, sizes)
    taken = {"mean": values.size, "max": 1, "top_k": k}[how]
    kept = np.where(place < taken, values[order], 0)
    of_patients: FloatArray = np.add.reduceat(kept, starts) / np.minimum(sizes, taken)
    return of_patients, np.maximum.reduceat(abnormal[order].astype(np.intp), starts)
