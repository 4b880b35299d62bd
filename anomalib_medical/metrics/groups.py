"""Images taken together: groups of them, and the images of a patient."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pandas import DataFrame

from .arrays import BoolArray, FloatArray, IntArray, to_image_scores, to_labels, to_patient_index

Aggregation = Literal["mean", "max", "top_k"]


def group_members(groups: Sequence[str]) -> dict[str, BoolArray]:
    """Return the images of each group, masks ``(N,)``, by name.

    Groups are many and small: the more one looks at, the more of them differ by chance.
    """
    names = np.asarray([str(group) for group in groups])
    return {str(name): names == name for name in np.unique(names)}


def class_members(labels: ArrayLike, classes: Sequence[str]) -> dict[str, BoolArray]:
    """Return the images of each abnormal class and all normal ones, masks ``(N,)``, by name."""
    abnormal, names = to_labels(labels), np.asarray([str(name) for name in classes])
    return {str(name): (names == name) & abnormal | ~abnormal for name in np.unique(names[abnormal])}


def aggregate_patients(
    scores: ArrayLike, labels: ArrayLike, patients: Sequence[str | None], how: Aggregation = "mean", k: int = 3
) -> tuple[FloatArray, IntArray]:
    """Make one score and one label a patient: volumes and studies of several images.

    A patient is abnormal if one of the images is. The maximum and the top-k mean grow with the number of images, so
    that they tell patients with many images from those with few: compare them with the mean.

    Args:
        scores: Image scores ``(N,)``, higher is more abnormal.
        labels: ``(N,)``, 1 for abnormal.
        patients: Patient of each image.
        how: ``mean``, ``max``, or ``top_k`` for the mean of the k highest (of all, where there are fewer).
        k: For ``top_k``.

    Returns:
        Scores ``(P,)`` and labels ``(P,)``, patients in the order of their first images.
    """
    if how not in {"mean", "max", "top_k"}:
        msg = f"how must be 'mean', 'max' or 'top_k', got {how!r}."
        raise ValueError(msg)
    if k < 1:
        msg = f"k must be 1 or more, got {k}."
        raise ValueError(msg)
    values, abnormal = to_image_scores(scores, labels)
    index = to_patient_index(patients, values.size)
    taken = {"mean": values.size, "max": 1, "top_k": k}[how]
    table = DataFrame({"patient": index, "score": values, "abnormal": abnormal})
    highest = table.sort_values("score", ascending=False).groupby("patient").head(taken)
    of_patients = highest.groupby("patient").score.mean()
    return of_patients.to_numpy(dtype=np.float64), table.groupby("patient").abnormal.max().to_numpy(dtype=np.intp)
