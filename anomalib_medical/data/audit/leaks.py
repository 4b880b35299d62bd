"""Patients and pictures that stand in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from pandas import DataFrame

from anomalib_medical.data.audit.splits import SPLITS
from anomalib_medical.data.duplicates import find_duplicates
from anomalib_medical.data.fingerprints import Fingerprint

HELD_OUT = frozenset({"val", "test"})


@dataclass(frozen=True)
class PatientOverlap:
    """Patients with images in two splits.

    Attributes:
        first: A split.
        second: The split after it.
        patients: How many patients have images in both.
        images: How many images of theirs are in ``second``.
        share: These as a share of ``second``.
        leak: Whether one of the two is held out from training.
    """

    first: str
    second: str
    patients: int
    images: int
    share: float
    leak: bool


@dataclass(frozen=True)
class DuplicateCount:
    """Duplicates between two splits.

    Attributes:
        first: A split.
        second: The split after it.
        images: Images of ``second`` with a duplicate in ``first``.
        share: These as a share of ``second``.
        kinds: Pairs of each kind.
        leak: Whether one of the two is held out from training.
    """

    first: str
    second: str
    images: int
    share: float
    kinds: dict[str, int]
    leak: bool


def find_patient_overlap(samples: DataFrame) -> list[PatientOverlap]:
    """Count the patients that two splits share; images without a patient are left out."""
    overlaps = []
    for first, second in _split_pairs(samples):
        of_second = samples[samples.split == second].patient_id
        shared = (set(samples[samples.split == first].patient_id) & set(of_second)) - {""}
        if shared:
            images = int(of_second.isin(shared).sum())
            overlaps.append(
                PatientOverlap(first, second, len(shared), images, images / len(of_second), _is_leak(first, second))
            )
    return overlaps


def find_split_duplicates(
    samples: DataFrame,
    fingerprints: Sequence[Fingerprint],
    min_similarity: float,
    *,
    progress: bool,
) -> DataFrame:
    """Find the duplicates between splits.

    Args:
        samples: The readable images.
        fingerprints: Theirs, in the same order.
        min_similarity: Correlation from which on two images are near duplicates.
        progress: Whether to show bars.

    Returns:
        A row a pair, most similar first: kind, similarity, leak, first and second (rows of ``samples``, by split).
    """
    splits = list(samples.split)
    pairs = find_duplicates(fingerprints, splits, min_similarity=min_similarity, progress=progress)
    rows = []
    for pair in pairs:
        first, second = sorted((pair.first, pair.second), key=lambda index: SPLITS.index(splits[index]))
        leak = _is_leak(splits[first], splits[second])
        rows.append((pair.kind, pair.similarity, leak, first, second))
    return DataFrame(rows, columns=["kind", "similarity", "leak", "first", "second"])


def count_duplicates(samples: DataFrame, pairs: DataFrame) -> list[DuplicateCount]:
    """Count duplicate pairs and the images they concern, for each two splits that have any."""
    splits = samples.split.to_numpy()
    counts = []
    for first, second in _split_pairs(samples):
        rows = pairs[(splits[pairs["first"]] == first) & (splits[pairs.second] == second)]
        if len(rows):
            images = rows.second.nunique()
            share = images / int((samples.split == second).sum())
            counts.append(
                DuplicateCount(first, second, images, share, dict(Counter(rows.kind)), _is_leak(first, second))
            )
    return counts


def _split_pairs(samples: DataFrame) -> list[tuple[str, str]]:
    return list(combinations([split for split in SPLITS if (samples.split == split).any()], 2))


def _is_leak(first: str, second: str) -> bool:
    """Tell training and pool, which models learn from together, from splits that must know nothing of each other."""
    return bool({first, second} & HELD_OUT)
