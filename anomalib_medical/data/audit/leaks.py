"""Patients and pictures that stand in two splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
from anomalib.data import AnomalibDataModule
from pandas import DataFrame

from anomalib_medical.data.duplicates import find_duplicates
from anomalib_medical.data.fingerprints import Fingerprint
from anomalib_medical.data.samples import METADATA, UNLABELED

SPLITS = ("train", UNLABELED, "val", "test")
_HELD_OUT = frozenset({"val", "test"})
# What the audit reads, and what a datamodule without it gets.
_DEFAULTS = {"label": "", "label_index": 0, "patient_id": "", "mask_path": ""}


@dataclass(frozen=True)
class PatientOverlap:
    """Patients with images in two splits."""

    first: str
    second: str  # the split after it
    patients: int  # with images in both
    images: int  # of theirs in ``second``
    share: float  # these as a share of ``second``
    leak: bool  # whether one of the two is held out from training

    def __str__(self) -> str:
        """Return it as a sentence."""
        return (
            f"Patients both in {self.first} and {self.second}: {self.patients}, with {self.share:.1%} of the images of "
            f"{self.second} ({self.images})."
        )


@dataclass(frozen=True)
class DuplicateCount:
    """Duplicates between two splits."""

    first: str
    second: str  # the split after it
    images: int  # of ``second`` with a duplicate in ``first``
    share: float  # these as a share of ``second``
    kinds: dict[str, int]  # pairs of each kind
    leak: bool  # whether one of the two is held out from training

    def __str__(self) -> str:
        """Return it as a sentence."""
        pairs = ", ".join(f"{number} {kind}" for kind, number in sorted(self.kinds.items()))
        return (
            f"Images of {self.second} with a duplicate in {self.first}: {self.images}, {self.share:.1%} "
            f"(pairs: {pairs})."
        )


def collect_splits(datamodule: AnomalibDataModule) -> DataFrame:
    """List the images of a datamodule, anomalib's or ours, after its ``setup``: the columns that `audit` takes."""
    tables = []
    for split in SPLITS:
        data = getattr(datamodule, f"{split}_data", None)
        if data is None or not len(data.samples):
            continue
        samples: DataFrame = data.samples
        metadata = [column for column in map(str, samples) if column.startswith(METADATA)]
        table = samples.reindex(columns=["image_path", *_DEFAULTS, *metadata]).fillna(_DEFAULTS).assign(split=split)
        # A pool's labels are never read, whatever the datamodule says.
        tables.append(table.assign(label=UNLABELED, label_index=0) if split == UNLABELED else table)
    if not tables:
        return DataFrame(columns=["image_path", *_DEFAULTS, "split"])
    joined: DataFrame = pd.concat(tables, ignore_index=True)
    return joined.fillna({"patient_id": ""}).astype({"image_path": str, "patient_id": str})


def find_patient_overlap(samples: DataFrame) -> list[PatientOverlap]:
    """Count the patients that two splits share; images without a patient are left out."""
    overlaps = []
    for first, second, leak in _split_pairs(samples):
        of_second = samples[samples.split == second].patient_id
        shared = (set(samples[samples.split == first].patient_id) & set(of_second)) - {""}
        if shared:
            images = int(of_second.isin(shared).sum())
            overlaps.append(PatientOverlap(first, second, len(shared), images, images / len(of_second), leak))
    return overlaps


def find_split_duplicates(
    samples: DataFrame, fingerprints: Sequence[Fingerprint], min_similarity: float, *, progress: bool
) -> DataFrame:
    """Find near duplicates between splits, most similar first; see `AuditReport.pairs`."""
    splits = list(samples.split)
    rows = []
    for pair in find_duplicates(fingerprints, splits, min_similarity=min_similarity, progress=progress):
        first, second = sorted((pair.first, pair.second), key=lambda index: SPLITS.index(splits[index]))
        rows.append((pair.kind, pair.similarity, _is_leak(splits[first], splits[second]), first, second))
    return DataFrame(rows, columns=["kind", "similarity", "leak", "first", "second"])


def count_duplicates(samples: DataFrame, pairs: DataFrame) -> list[DuplicateCount]:
    """Count duplicate pairs and the images they concern, for each two splits that have any."""
    splits = samples.split.to_numpy()
    counts = []
    for first, second, leak in _split_pairs(samples):
        rows = pairs[(splits[pairs["first"]] == first) & (splits[pairs.second] == second)]
        if len(rows):
            images = rows.second.nunique()
            share = images / int((splits == second).sum())
            counts.append(DuplicateCount(first, second, images, share, dict(Counter(rows.kind)), leak))
    return counts


def _split_pairs(samples: DataFrame) -> list[tuple[str, str, bool]]:
    there = [split for split in SPLITS if (samples.split == split).any()]
    return [(first, second, _is_leak(first, second)) for first, second in combinations(there, 2)]


def _is_leak(first: str, second: str) -> bool:
    """Tell training and pool, which models learn from together, from splits that must know nothing of each other."""
    return bool({first, second} & _HELD_OUT)
