"""The audit: everything that is looked for in a data set, and what of it is a finding."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import pandas as pd
from pandas import DataFrame

from anomalib_medical.data.audit_limits import AuditLimits
from anomalib_medical.data.fingerprints import Fingerprint, UnreadableImage, fingerprint_all
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import FORMATS, Listing, Window, agree, counted

from .leaks import DuplicateCount, PatientOverlap, count_duplicates, find_patient_overlap, find_split_duplicates
from .shortcuts import Shortcut, find_shortcuts, image_features

_SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Finding:
    """Something above a limit."""

    check: Literal["patient overlap", "duplicates", "shortcut", "unreadable"]
    value: float  # what was found
    limit: float  # what is allowed
    about: PatientOverlap | DuplicateCount | Shortcut | UnreadableImage  # of several unreadable images the first

    @property
    def text(self) -> str:
        """One sentence that names no file."""
        return f"Unreadable images: {self.value}." if isinstance(self.about, UnreadableImage) else str(self.about)

    @property
    def message(self) -> str:
        """One sentence, and a file where one shows what is meant."""
        return f"{self.text} The first: {self.about}" if isinstance(self.about, UnreadableImage) else self.text


@dataclass(frozen=True)
class AuditReport:
    """What an audit found."""

    limits: AuditLimits  # that it is judged by
    samples: DataFrame  # the readable images: columns of the input and `image_features`
    overlaps: list[PatientOverlap]
    duplicates: list[DuplicateCount]
    pairs: DataFrame  # of duplicates: kind, similarity, leak, first and second (rows of ``samples``)
    shortcuts: list[Shortcut]  # strongest first
    unreadable: list[UnreadableImage]  # images that cannot be read, and files of formats that are not
    notes: list[str]  # what is worth knowing, and no finding
    seconds: dict[str, float]  # how long reading and comparing took

    @cached_property
    def findings(self) -> list[Finding]:
        """What is above a limit."""
        limits = self.limits
        patients = [each for each in self.overlaps if each.leak]
        copies = [each for each in self.duplicates if each.leak]
        shortcuts = [each for each in self.shortcuts if _is_significant(each, len(self.shortcuts))]
        found = [
            *(Finding("patient overlap", each.patients, limits.max_patient_overlap, each) for each in patients),
            *(Finding("duplicates", each.images, limits.max_duplicates, each) for each in copies),
            *(Finding("shortcut", each.auroc, limits.max_shortcut_auroc, each) for each in shortcuts),
            *(Finding("unreadable", len(self.unreadable), limits.max_unreadable, each) for each in self.unreadable[:1]),
        ]
        return [finding for finding in found if finding.value > finding.limit]

    def counts(self) -> DataFrame:
        """Return images and patients by split and class."""
        known = self.samples.assign(patient=self.samples.patient_id.replace("", None))
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
        MedicalError: If there are no images, or none can be read.
    """
    limits = limits or AuditLimits()
    left_out = left_out or Listing()
    if samples.empty:
        msg = "The data have no images: there is nothing to audit."
        raise MedicalError(msg)
    started = time.perf_counter()
    records = fingerprint_all(list(samples.image_path), window=window, workers=workers, progress=progress)
    read = time.perf_counter()
    fingerprints = [record for record in records if isinstance(record, Fingerprint)]
    unreadable = [record for record in records if isinstance(record, UnreadableImage)]
    if not fingerprints:
        msg = f"None of {counted(len(records), 'image')} can be read. The first: {unreadable[0]}"
        raise MedicalError(msg)
    unreadable += [
        UnreadableImage(str(path), f"found {kind}, expected a {FORMATS} file.")
        for kind, paths in left_out.unread.items()
        for path in paths
    ]
    readable = samples[[isinstance(record, Fingerprint) for record in records]].reset_index(drop=True)
    overlaps = find_patient_overlap(samples)
    pairs = find_split_duplicates(readable, fingerprints, limits.min_similarity, progress=progress)
    compared = time.perf_counter()
    shortcuts = find_shortcuts(readable, fingerprints)
    features = image_features(fingerprints)
    objects = replace(left_out, unread={}).left_out(names=False)  # paths may be hashed in the report
    return AuditReport(
        limits=limits,
        samples=pd.concat([readable, features], axis=1),
        overlaps=overlaps,
        duplicates=count_duplicates(readable, pairs),
        pairs=pairs,
        shortcuts=shortcuts,
        unreadable=unreadable,
        notes=[
            *([objects] if objects else []),
            *_notes_on_shortcuts(limits, readable, shortcuts),
            *_notes_on_images(readable, features, [record.pixel_digest for record in fingerprints]),
        ],
        seconds={"reading": read - started, "comparing": compared - read},
    )


def _is_significant(shortcut: Shortcut, tried: int) -> bool:
    return shortcut.p_value < _SIGNIFICANCE / tried


def _notes_on_shortcuts(limits: AuditLimits, samples: DataFrame, shortcuts: list[Shortcut]) -> list[str]:
    if not shortcuts:
        one_class = samples[samples.split == "test"].label_index.nunique() < 2
        why = (
            "the test set has not both normal and abnormal images" if one_class else "all test images are alike in them"
        )
        return [f"No shortcuts could be looked for: {why}."]
    above = [shortcut for shortcut in shortcuts if shortcut.auroc > limits.max_shortcut_auroc]
    unsure = [shortcut.name for shortcut in above if not _is_significant(shortcut, len(shortcuts))]
    return [f"Above the limit, but with so few images it may be chance: {', '.join(unsure)}."] if unsure else []


def _notes_on_images(samples: DataFrame, features: DataFrame, digests: Sequence[str]) -> list[str]:
    notes = []
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
    for split, group in samples.assign(digest=digests).groupby("split", sort=False):
        if repeated := int(group.digest.duplicated().sum()):
            images, repeat = counted(len(group), "image"), agree(repeated, "repeats", "repeat")
            notes.append(f"{repeated} of {images} in {split} {repeat} another one of {split}, pixel by pixel.")
    return notes
