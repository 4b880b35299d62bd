"""The audit: everything that is looked for in a data set, and what of it is a finding."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
from pandas import DataFrame

from anomalib_medical.data.audit.leaks import (
    DuplicateCount,
    PatientOverlap,
    count_duplicates,
    find_patient_overlap,
    find_split_duplicates,
)
from anomalib_medical.data.audit.shortcuts import Shortcut, find_shortcuts, image_features
from anomalib_medical.data.duplicates import MIN_SIMILARITY
from anomalib_medical.data.fingerprints import Fingerprint, UnreadableImage, fingerprint_all
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import FORMATS, Listing, Window, agree, counted

_SIGNIFICANCE = 0.05


class AuditError(MedicalError):
    """There is nothing to audit."""


@dataclass(frozen=True)
class AuditLimits:
    """From where on something is a finding.

    Attributes:
        max_shortcut_auroc: A shortcut that tells normal from abnormal test images better than this is one, unless
            chance explains it (Mann-Whitney test over patients at a level of 0.05, divided by the number of shortcuts).
        max_patient_overlap: Patients that a held-out split may share with another split.
        max_duplicates: Images of a held-out split that may have a duplicate in another split.
        max_unreadable: Images that may be unreadable.
        min_similarity: Correlation, after alignment, from which on two images are near duplicates.
    """

    max_shortcut_auroc: float = 0.75
    max_patient_overlap: int = 0
    max_duplicates: int = 0
    max_unreadable: int = 0
    min_similarity: float = MIN_SIMILARITY

    def __post_init__(self) -> None:
        """Refuse limits that mean nothing."""
        for name, low in (("max_shortcut_auroc", 0.5), ("min_similarity", 0.5)):
            value = getattr(self, name)
            if not low <= value <= 1:
                msg = f"{name} is {value:g}, expected a number from {low:g} to 1."
                raise ValueError(msg)
        for name in ("max_patient_overlap", "max_duplicates", "max_unreadable"):
            if getattr(self, name) < 0:
                msg = f"{name} is {getattr(self, name)}, expected 0 or more."
                raise ValueError(msg)


@dataclass(frozen=True)
class Finding:
    """Something above a limit.

    Attributes:
        check: What was looked at.
        value: What was found.
        limit: What is allowed.
        message: One sentence for users.
    """

    check: Literal["patient overlap", "duplicates", "shortcut", "unreadable"]
    value: float
    limit: float
    message: str


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        limits: The limits it was judged by.
        samples: The readable images: columns of the input and `image_features`.
        overlaps: Patients in two splits.
        duplicates: Duplicates in two splits, counted.
        pairs: All duplicate pairs: kind, similarity, leak, first and second (rows of ``samples``).
        shortcuts: Shortcuts to the label, strongest first.
        unreadable: Images that cannot be read, and files of formats that are not.
        findings: What is above a limit.
        notes: What is worth knowing, and no finding.
        seconds: How long reading and comparing took.
    """

    limits: AuditLimits
    samples: DataFrame
    overlaps: list[PatientOverlap]
    duplicates: list[DuplicateCount]
    pairs: DataFrame
    shortcuts: list[Shortcut]
    unreadable: list[UnreadableImage]
    findings: list[Finding]
    notes: list[str]
    seconds: dict[str, float]

    def counts(self) -> DataFrame:
        """Return images and patients by split and class."""
        known = self.samples.assign(patient=self.samples.patient_id.replace("", np.nan))
        groups = known.groupby(["split", "label"], sort=False)
        return groups.agg(images=("image_path", "size"), patients=("patient", "nunique")).reset_index()


def audit(
    samples: DataFrame,
    limits: AuditLimits | None = None,
    *,
    left_out: Listing | None = None,
    window: Window | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> AuditReport:
    """Look for leaks between splits and for shortcuts to the label.

    Args:
        samples: Columns image_path, split (train, val, test, unlabeled), label_index (0 normal, 1 abnormal), label,
            patient_id ("" where unknown) and, optionally, meta_*.
        limits: From where on something is a finding.
        left_out: What the data's folders hold beside: what cannot be read there counts as unreadable images.
        window: Which values of DICOM and NIfTI files become black and white.
        workers: Reading processes; None for one a core.
        progress: Whether to show bars.

    Raises:
        AuditError: If there are no images, or none can be read.
    """
    limits = limits or AuditLimits()
    left_out = left_out or Listing()
    if samples.empty:
        msg = "The data have no images: there is nothing to audit."
        raise AuditError(msg)
    started = time.perf_counter()
    records = fingerprint_all(list(samples.image_path), window=window, workers=workers, progress=progress)
    read = time.perf_counter()
    unreadable = [record for record in records if isinstance(record, UnreadableImage)]
    if len(unreadable) == len(records):
        msg = f"None of {counted(len(records), 'image')} can be read. The first: {unreadable[0].message}"
        raise AuditError(msg)
    unreadable += [
        UnreadableImage(str(path), f"Cannot read {path} ({kind}), expected a {FORMATS} file.")
        for kind, paths in left_out.unread.items()
        for path in paths
    ]
    readable = samples[[isinstance(record, Fingerprint) for record in records]].reset_index(drop=True)
    fingerprints = [record for record in records if isinstance(record, Fingerprint)]
    overlaps = find_patient_overlap(samples)
    pairs = find_split_duplicates(readable, fingerprints, limits.min_similarity, progress=progress)
    compared = time.perf_counter()
    duplicates = count_duplicates(readable, pairs)
    shortcuts = find_shortcuts(readable, fingerprints)
    features = image_features(fingerprints)
    return AuditReport(
        limits=limits,
        samples=pd.concat([readable, features], axis=1),
        overlaps=overlaps,
        duplicates=duplicates,
        pairs=pairs,
        shortcuts=shortcuts,
        unreadable=unreadable,
        findings=_judge(limits, overlaps, duplicates, shortcuts, unreadable),
        notes=_notes(limits, readable, features, fingerprints, shortcuts, left_out),
        seconds={"reading": read - started, "comparing": compared - read},
    )


def _judge(
    limits: AuditLimits,
    overlaps: list[PatientOverlap],
    duplicates: list[DuplicateCount],
    shortcuts: list[Shortcut],
    unreadable: list[UnreadableImage],
) -> list[Finding]:
    findings = [
        Finding(
            "patient overlap",
            overlap.patients,
            limits.max_patient_overlap,
            f"Patients both in {overlap.first} and {overlap.second}: {overlap.patients}, with {overlap.share:.1%} of "
            f"the images of {overlap.second} ({overlap.images}).",
        )
        for overlap in overlaps
        if overlap.leak and overlap.patients > limits.max_patient_overlap
    ]
    findings += [
        Finding(
            "duplicates",
            count.images,
            limits.max_duplicates,
            f"Images of {count.second} with a duplicate in {count.first}: {count.images}, {count.share:.1%} "
            f"(pairs: {', '.join(f'{number} {kind}' for kind, number in sorted(count.kinds.items()))}).",
        )
        for count in duplicates
        if count.leak and count.images > limits.max_duplicates
    ]
    findings += [
        Finding(
            "shortcut",
            shortcut.auroc,
            limits.max_shortcut_auroc,
            f"{shortcut.name} alone tells normal from abnormal test images with AUROC {_interval(shortcut)}.",
        )
        for shortcut in shortcuts
        if shortcut.auroc > limits.max_shortcut_auroc and _is_significant(shortcut, len(shortcuts))
    ]
    if len(unreadable) > limits.max_unreadable:
        message = f"Unreadable images: {len(unreadable)}. The first: {unreadable[0].message}"
        findings.append(Finding("unreadable", len(unreadable), limits.max_unreadable, message))
    return findings


def _notes(
    limits: AuditLimits,
    samples: DataFrame,
    features: DataFrame,
    fingerprints: list[Fingerprint],
    shortcuts: list[Shortcut],
    left_out: Listing,
) -> list[str]:
    objects = replace(left_out, unread={}).left_out(names=False)  # paths may be hashed in the report
    notes = [objects] if objects else []
    if not shortcuts:
        one_class = samples[samples.split == "test"].label_index.nunique() < 2
        why = (
            "the test set has not both normal and abnormal images" if one_class else "all test images are alike in them"
        )
        notes.append(f"No shortcuts could be looked for: {why}.")
    unsure = [
        shortcut.name
        for shortcut in shortcuts
        if shortcut.auroc > limits.max_shortcut_auroc and not _is_significant(shortcut, len(shortcuts))
    ]
    if unsure:
        notes.append(f"Above the limit, but with so few images it may be chance: {', '.join(unsure)}.")
    if (samples.patient_id == "").all():
        notes.append("No patients are known: whether they overlap cannot be told.")
    elif samples.patient_id.nunique() == len(samples):
        notes.append("Every image has a patient of its own. If several share one, say how to tell (patient_pattern).")
    for name, what in (("file_type", "file types"), ("colour", "colour modes")):
        kinds = features[name].value_counts()
        if len(kinds) > 1:
            found = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in kinds.items())
            notes.append(f"Mixed {what}: {found}.")
    sizes = features.groupby(["width", "height"]).ngroups
    if sizes > 1:
        notes.append(f"{sizes} different image sizes.")
    digests = samples.assign(digest=[record.pixel_digest for record in fingerprints])
    for split, group in digests.groupby("split", sort=False):
        if repeated := int(group.digest.duplicated().sum()):
            images = counted(len(group), "image")
            repeat = agree(repeated, "repeats", "repeat")
            notes.append(f"{repeated} of {images} in {split} {repeat} another one of {split}, pixel by pixel.")
    return notes


def _is_significant(shortcut: Shortcut, tried: int) -> bool:
    return shortcut.p_value < _SIGNIFICANCE / tried


def _interval(shortcut: Shortcut) -> str:
    interval = "no interval" if np.isnan(shortcut.low) else f"{shortcut.low:.3f}, {shortcut.high:.3f}"
    return f"{shortcut.auroc:.3f} [{interval}]"
