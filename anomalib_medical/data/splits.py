"""Splitting by patient: no patient's images ever stand on both sides."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

# Our default threshold, the ceil((n + 1) * 0.95)-th smallest of n held-out normal scores, exists from n = 19 on (up to
# n = 38 it is the largest of them).
_ENOUGH_FOR_A_THRESHOLD = 20


def automatic_holdout(count: int) -> int:
    """Return how many of ``count`` training images to hold out when the user leaves it open.

    A tenth; where that is fewer than 20, up to 20 but no more than a fifth; at least one.
    """
    return max(1, round(count * 0.1), min(_ENOUGH_FOR_A_THRESHOLD, count // 5))


def hold_out_patients(patients: Sequence[str], count: int, seed: int) -> set[str]:
    """Choose whole patients who together have about ``count`` images, never more where that can be avoided.

    Patients are ranked by a hash of seed and id. The choice depends on neither file order nor library versions, and a
    patient added later moves few others.

    Args:
        patients: Patient of each image.
        count: Images wanted on the held-out side.
        seed: Another seed, another choice.

    Returns:
        The patients held out: at least one and never all.

    Raises:
        ValueError: If there are fewer than two patients.
    """
    images_of = Counter(patients)
    if len(images_of) < 2:
        msg = f"Cannot hold out a patient: {len(patients)} image(s) of {len(images_of)} patient(s), at least 2 needed."
        raise ValueError(msg)
    ranked = sorted(images_of, key=lambda patient: hashlib.sha256(f"{seed}\0{patient}".encode()).digest())
    count = min(count, len(patients) - 1)
    chosen: set[str] = set()
    free = count
    for patient in ranked:
        if images_of[patient] <= free:
            chosen.add(patient)
            free -= images_of[patient]
    # Every patient has more images than wanted: the one with the fewest comes nearest.
    return chosen or {min(ranked, key=images_of.__getitem__)}
