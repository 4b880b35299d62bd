"""Composing an unlabeled pool of a chosen size and anomaly rate, for ablations.

This is the one place where labels of the pool are read: before the pool is made, and never after.
"""

from __future__ import annotations

import hashlib

import pandas as pd
from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_medical.errors import MedicalError


def compose_pool(pool: DataFrame, count: int | None, anomaly_rate: float | None, seed: int) -> DataFrame:
    """Choose images for the pool.

    The choice does not depend on the files' order or folder. With the same seed and rate, a smaller pool is a part of
    a larger one.

    Args:
        pool: All images there are for it, with their labels; the outcome has their order.
        count: Size of the pool. None: as large as the rate allows.
        anomaly_rate: Share of abnormal images. None: what comes.
        seed: Another seed, another choice.
    """
    ranks = [_rank(path, patient, seed) for path, patient in zip(pool.image_path, pool.patient_id, strict=True)]
    ranked = pool.iloc[sorted(range(len(pool)), key=ranks.__getitem__)]
    normal = ranked[ranked.label_index == LabelName.NORMAL]
    abnormal = ranked[ranked.label_index == LabelName.ABNORMAL]

    def is_possible(size: int) -> bool:
        if anomaly_rate is None:
            return size <= len(pool)
        wanted = round(size * anomaly_rate)
        return wanted <= len(abnormal) and size - wanted <= len(normal)

    if count is None:
        count = max(filter(is_possible, range(len(pool) + 1)))
    if not is_possible(count):
        rate = "" if anomaly_rate is None else f" with unlabeled_anomaly_rate={anomaly_rate:g}"
        msg = (
            f"unlabeled_count={count}{rate} needs more images than there are for the unlabeled pool: {len(normal)} "
            f"normal and {len(abnormal)} abnormal. Ask for fewer, or for another anomaly rate."
        )
        raise MedicalError(msg)
    if anomaly_rate is None:
        return ranked[:count].sort_index()
    wanted = round(count * anomaly_rate)
    return pd.concat([normal[: count - wanted], abnormal[:wanted]]).sort_index()


def _rank(image_path: str, patient: str, seed: int) -> bytes:
    # The file's name and patient are the same on every machine, its folder is not.
    name = image_path.replace("\\", "/").rpartition("/")[2]
    return hashlib.sha256(f"{seed}\0{patient}\0{name}".encode("utf-8", "surrogateescape")).digest()
