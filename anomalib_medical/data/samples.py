"""Tables of images, one row an image with anomalib's columns and ours; and their division by patient."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
from pandas import DataFrame

from anomalib_medical.io import Listing, counted

logger = logging.getLogger(__name__)

UNLABELED = "unlabeled"
# Columns that start so describe the image: view, sex, manufacturer, ...
METADATA = "meta_"
_LEFT_OUT = "left_out"
# Our default threshold, the ceil((n + 1) * 0.95)-th smallest of n held-out normal scores, exists from n = 19 on (up to
# n = 38 it is the largest of them).
_ENOUGH_FOR_A_THRESHOLD = 20


def without_labels(samples: DataFrame) -> DataFrame:
    """Return the rows as an unlabeled pool: whatever is known about them is gone, so that no code can read it."""
    # anomalib's batches need a number for a label: all get the same.
    hidden = samples.assign(label=UNLABELED, label_index=0, mask_path="", known_normal=False)
    return hidden.assign(boxes="") if "boxes" in hidden else hidden


def concat_samples(known: DataFrame, unlabeled: DataFrame) -> DataFrame:
    """Put known normals and the unlabeled pool into one table, with the known normals' columns and attributes."""
    known = known.assign(known_normal=True)
    joined = pd.concat([known, unlabeled[known.columns.intersection(unlabeled.columns)]], ignore_index=True)
    joined.attrs = dict(known.attrs)
    return joined


def with_left_out(samples: DataFrame, listing: Listing, name: str) -> DataFrame:
    """Warn of what a data set's folders hold and its table does not, and keep it for `take_left_out`."""
    if sentence := listing.left_out():
        logger.warning("%s: %s", name, sentence)
    # Without the images: pandas copies attributes with every operation.
    samples.attrs[_LEFT_OUT] = replace(listing, images=[])
    return samples


def take_left_out(samples: DataFrame) -> Listing:
    """Return what a table's folders hold and it does not; the table forgets it."""
    found = samples.attrs.pop(_LEFT_OUT, None)
    return found if isinstance(found, Listing) else Listing()


def automatic_holdout(count: int) -> int:
    """Return how many of ``count`` training images to hold out when the user leaves it open.

    A tenth; where that is fewer than 20, up to 20 but no more than a fifth; at least one.
    """
    return max(1, round(count * 0.1), min(_ENOUGH_FOR_A_THRESHOLD, count // 5))


def hold_out_patients(patients: Sequence[str], count: int, seed: int) -> set[str]:
    """Choose whole patients who together have about ``count`` images, never more where that can be avoided.

    Patients are ranked by a hash of seed and id. The choice depends on neither file order nor library versions, and a
    patient added later moves few others.

    At least one and never all; a ValueError where there are fewer than two.
    """
    images_of = Counter(patients)
    if len(images_of) < 2:
        of = f"{counted(len(patients), 'image')} of {counted(len(images_of), 'patient')}"
        msg = f"Cannot hold out a patient: {of}, at least 2 needed."
        raise ValueError(msg)

    def rank(patient: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{patient}".encode("utf-8", "surrogateescape")).digest()

    ranked = sorted(images_of, key=rank)
    chosen: set[str] = set()
    free = min(count, len(patients) - 1)
    for patient in ranked:
        if images_of[patient] <= free:
            chosen.add(patient)
            free -= images_of[patient]
    # Every patient has more images than wanted: the one with the fewest comes nearest.
    return chosen or {min(ranked, key=images_of.__getitem__)}


def divide_patients(
    patients: Sequence[str],
    abnormal: Sequence[bool],
    *,
    test_normal_share: float,
    test_abnormal_share: float,
    unlabeled_share: float = 0.0,
    seed: int,
) -> list[str]:
    """Divide normal and abnormal images into ``"train"``, ``"unlabeled"`` and ``"test"``, by patient.

    Patients with abnormal images are chosen for the test first; what their normal images leave open is filled with
    patients who have none. Abnormal images outside the test go to the unlabeled pool, which has no other patients'
    normals than those not chosen for training. Training set and pool may share patients, the test shares none.

    The shares are of the normal and of the abnormal images, and for the pool of the normals outside the test; with all
    abnormal images in the test all other images of their patients are, too.
    """
    images = list(zip(patients, abnormal, strict=True))
    ill = [patient for patient, is_abnormal in images if is_abnormal]
    tested = _some_patients(ill, test_abnormal_share, seed)
    ill_patients = set(ill)
    normals = [patient for patient, is_abnormal in images if not is_abnormal]
    wanted = round(test_normal_share * len(normals)) - sum(patient in tested for patient in normals)
    healthy = [patient for patient in normals if patient not in ill_patients]
    if wanted > 0 and healthy:
        tested |= _some_patients(healthy, wanted / len(healthy), seed)
    pool = _some_patients([patient for patient in normals if patient not in tested], unlabeled_share, seed)
    return [
        "test" if patient in tested else UNLABELED if is_abnormal or patient in pool else "train"
        for patient, is_abnormal in images
    ]


def _some_patients(patients: Sequence[str], share: float, seed: int) -> set[str]:
    """Choose patients with about this share of the images: none for 0, all for 1."""
    if share >= 1:
        return set(patients)
    if share <= 0 or len(set(patients)) < 2:
        return set()
    return hold_out_patients(patients, max(1, round(share * len(patients))), seed)
