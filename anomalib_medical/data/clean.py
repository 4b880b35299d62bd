"""Taking leaks and copies out of a published split."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd
from pandas import DataFrame
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.io import counted

logger = logging.getLogger(__name__)


def merge_copies(samples: DataFrame) -> tuple[list[str], list[int]]:
    """Return the patient of each image, and the group of copies that it belongs to.

    Patients who share an image, directly or through others, are one, with the name of the first of them.
    """
    from anomalib_medical.data.duplicates import group_duplicates

    copies = group_duplicates(list(samples.image_path))
    patient, names = pd.factorize(samples.patient_id, sort=True)
    # A graph of patients and groups of copies; each image links its patient to its group.
    size = len(names) + max(copies, default=-1) + 1
    links = coo_array(
        (np.ones(len(patient)), (patient, np.asarray(copies, dtype=int) + len(names))), shape=(size, size)
    )
    component = connected_components(links, directed=False)[1][: len(names)]
    first = dict(zip(component[::-1], list(names)[::-1], strict=True))
    return [first[component[number]] for number in patient], copies


def drop_leaks(samples: DataFrame, copies: Sequence[int] | None, name: str) -> DataFrame:
    """Drop what makes a test too easy; counts of what was dropped are logged.

    The held-out parts decide: images of the training set and the unlabeled pool whose patient has test or validation
    images are dropped. Copies are kept once in each part, where training set and pool are one: what is known to be
    normal is not unlabeled. In the test, copies of different labels are all kept. ``copies`` is the group of copies
    that each image belongs to, None if copies do not matter.
    """
    tested = samples[samples.split == "test"].patient_id
    validated = samples[samples.split == "val"].patient_id
    leaking = samples.patient_id.isin(tested) & (samples.split != "test")
    leaking |= samples.patient_id.isin(validated) & samples.split.isin(["train", UNLABELED])
    repeated = leaking & False
    if copies is not None:
        # Labels of the unlabeled pool decide nothing.
        label = samples.label_index.where(samples.split == "test", 0)
        kinds = DataFrame({"part": samples.split, "label": label, "copies": list(copies)})[~leaking]
        # The first of its kind is kept: known normals come before the pool.
        kinds = kinds.sort_values("part", key=lambda parts: parts == UNLABELED, kind="stable")
        repeated = kinds.replace({"part": {UNLABELED: "train"}}).duplicated().reindex(samples.index, fill_value=False)
    whose = "whose patient" if copies is None else "whose patient or copy"
    held_out = "the test or the validation" if len(validated) else "the test"
    for part in ("train", UNLABELED, "val", "test"):
        inside = samples.split == part
        where = "it or in train" if part == UNLABELED else "it"
        for dropped, why in (
            (leaking, f"{whose} has images in {held_out}"),
            (repeated, f"copies of others in {where}"),
        ):
            if number := int((dropped & inside).sum()):
                images = counted(int(inside.sum()), "image")
                logger.info("%s: dropped %d of %s from %s, %s.", name, number, images, part, why)
    return samples[~leaking & ~repeated].reset_index(drop=True)
