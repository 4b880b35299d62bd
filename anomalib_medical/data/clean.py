"""Taking leaks and copies out of a published split."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from pandas import DataFrame
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.io import counted

logger = logging.getLogger(__name__)


def merge_copies(samples: DataFrame) -> tuple[list[str], list[int]]:
    """Take near-duplicates as images of one patient.

    Args:
        samples: Columns image_path and patient_id.

    Returns:
        The patient of each image, where patients who share an image (directly or through others) are one; and the
        group of copies that each image belongs to.
    """
    from anomalib_medical.data.duplicates import group_duplicates

    copies = group_duplicates(list(samples.image_path))
    return _join_patients(list(samples.patient_id), copies), copies


def drop_leaks(samples: DataFrame, copies: Sequence[int] | None, name: str) -> DataFrame:
    """Drop what makes a test too easy; counts of what was dropped are logged.

    The held-out parts decide: images of the training set and the unlabeled pool whose patient has test or validation
    images are dropped. Copies are kept once in each part, where training set and pool are one: what is known to be
    normal is not unlabeled. In the test, copies of different labels are all kept.

    Args:
        samples: Columns split, label_index and patient_id.
        copies: Group of copies that each image belongs to, None if copies do not matter.
        name: The dataset, for the log.
    """
    tested = set(samples[samples.split == "test"].patient_id)
    validated = set(samples[samples.split == "val"].patient_id)
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
    held_out = "the test or the validation" if validated else "the test"
    for part in ("train", UNLABELED, "val", "test"):
        inside = samples.split == part
        shared, again = int((leaking & inside).sum()), int((repeated & inside).sum())
        if shared:
            logger.info(
                "%s: dropped %d of %s from %s, whose patient%s has images in %s.",
                name,
                shared,
                counted(int(inside.sum()), "image"),
                part,
                " or copy" if copies is not None else "",
                held_out,
            )
        if again:
            where = "it or in train" if part == UNLABELED else "it"
            images = counted(int(inside.sum()), "image")
            logger.info("%s: dropped %d of %s from %s, copies of others in %s.", name, again, images, part, where)
    return samples[~leaking & ~repeated].reset_index(drop=True)


def _join_patients(patients: Sequence[str], copies: Sequence[int]) -> list[str]:
    """Give all patients who are connected through copies the name of the first of them."""
    names = sorted(set(patients))
    number = {name: index for index, name in enumerate(names)}
    patient_of = [number[patient] for patient in patients]
    # A graph of patients and groups of copies; each image links its patient to its group.
    size = len(names) + max(copies, default=-1) + 1
    links = coo_array(
        (np.ones(len(patients)), (patient_of, [len(names) + group for group in copies])), shape=(size, size)
    )
    components = connected_components(links, directed=False)[1]
    first: dict[int, str] = {}
    for name, component in zip(names, components, strict=False):
        first.setdefault(int(component), name)
    return [first[int(components[patient])] for patient in patient_of]
