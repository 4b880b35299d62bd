"""From files that a user lists to a table of pictures: volumes become slices, every picture gets its patient."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pandas import DataFrame
from tqdm import tqdm

from anomalib_medical.data.masks import MaskSurvey
from anomalib_medical.data.patients import PatientSource, file_facts, identify_patients, warn_of_headers, warn_of_ids
from anomalib_medical.data.samples import METADATA, UNLABELED
from anomalib_medical.io import (
    DicomFacts,
    ImageAddress,
    ImageReadError,
    MaskRule,
    Slicing,
    composed,
    counted,
    holds_volume,
    image_stem,
    list_pictures,
    normalise_id,
    series_key,
)

NORMAL_CLASS = "good"
# From here on somebody waits.
_MANY_FILES = 2000
_SHOWN_FAILURES = 5
_T = TypeVar("_T")


def is_abnormal_class(name: str) -> bool:
    """Whether a class may have this name: those that sound normal or unlabeled would be taken for it."""
    return bool(name.strip()) and name.strip().casefold() not in {NORMAL_CLASS, "normal", "0", UNLABELED}


@dataclass
class Entry:
    """One file of a data set."""

    path: ImageAddress  # the file, or one picture in it
    split: str  # train, val, test or unlabeled; "" where it is to be decided
    label: str  # the class; `good` is normal
    mask: ImageAddress | None = None
    series: str = ""  # DICOM's; pictures without headers are one series a patient that somebody named
    patient: str | None = None  # where the user's list says so; `find_patients` finds those of the others
    metadata: dict[str, str] = field(default_factory=dict)  # what else is known of it, by column without `meta_`
    line: int = 0  # of the user's list, 0 if there is none
    base: Path | None = None  # folder that was searched, below which a folder may be a patient; the data set's if None


def find_patients(
    entries: Sequence[Entry], root: Path, patient_pattern: str | None = None, patient_from: PatientSource = "header"
) -> None:
    """Give every entry its patient and series, and what its header says; a ValueError where nothing tells.

    The patient comes from the user's list, else from ``patient_pattern`` (see `MedicalFolder`), else from what
    ``patient_from`` names, by default the DICOM header (as a pseudonym; without PatientID the study is one patient's);
    else the file is a patient of its own, named after its path below ``root``.
    """
    if patient_pattern is not None:
        _match_patients([entry for entry in entries if entry.patient is None], patient_pattern)
    headers = _for_each(entries, lambda entry: file_facts(entry.path.path), "Reading headers")
    warn_of_ids([(entry.path, entry.patient) for entry in entries if entry.patient])
    warn_of_headers(
        [facts for entry, facts in zip(entries, headers, strict=True) if entry.patient is None], patient_from
    )
    found = _patients_from(entries, headers, root, patient_from)
    # A file that the list does not name a patient for may be of one that it names for another file; where it names
    # several for one header, headers tell nobody.
    listed: dict[str | None, str | None] = {}
    for entry, patient in zip(entries, found, strict=True):
        if entry.patient:
            listed[patient] = entry.patient if listed.get(patient, entry.patient) == entry.patient else patient
    for entry, facts, patient in zip(entries, headers, found, strict=True):
        known = patient and listed.get(patient, patient)
        is_picture = facts == DicomFacts() and not holds_volume(entry.path.path)
        entry.series = facts.series or (is_picture and (entry.patient or known)) or ""
        entry.patient = entry.patient or known or _own_patient(entry.path.path, root)
        entry.metadata = {**facts.metadata, **entry.metadata}


def _patients_from(
    entries: Sequence[Entry], headers: Sequence[DicomFacts], root: Path, source: PatientSource
) -> list[str | None]:
    if source == "header":
        patients = identify_patients(headers)
        return [patient or facts.study or facts.series for patient, facts in zip(patients, headers, strict=True)]
    if source == "folder":
        return [None if entry.patient else _folder(entry, root) for entry in entries]
    return [None if source == "file" else getattr(facts, source) for facts in headers]


def _folder(entry: Entry, root: Path) -> str:
    base = entry.base or root
    # A list may name files by an absolute path, by ".." or through a link; all are below the base, see `read_manifest`.
    seen = next(
        see for see in (os.path.abspath, os.path.realpath) if Path(see(entry.path.path)).is_relative_to(see(base))
    )
    parts = Path(seen(entry.path.path)).relative_to(seen(base)).parts
    if len(parts) < 2:
        msg = (
            f"patient_from=folder takes each folder in {base} as a patient, and {entry.path.path} is in none. Put it "
            "into its patient's folder, or use patient_from=file."
        )
        raise ValueError(msg)
    return normalise_id(parts[0])


def _own_patient(path: Path, root: Path) -> str:
    # Two files may share their name in different folders. The path below the root is the same on every machine.
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _match_patients(entries: Sequence[Entry], pattern: str) -> None:
    """Give each entry the patient in its file's name."""
    for entry in entries:
        match = re.search(composed(pattern), composed(image_stem(entry.path.path)))
        found = match and (match[1] if match.re.groups else match[0])
        entry.patient = normalise_id(found or "") or None
    unmatched = [entry.path for entry in entries if entry.patient is None]
    if unmatched:
        msg = (
            f"patient_pattern={pattern!r} finds no patient in {len(unmatched)} of "
            f"{counted(len(entries), 'file name')}, such as {unmatched[0]}. It is searched in the name "
            "without suffix, and its first group (or the whole match) is the patient: widen it, or leave it "
            "out to take every file as its own patient."
        )
        raise ValueError(msg)


def build_samples(
    entries: Sequence[Entry], slicing: Slicing | None = None, mask_rule: MaskRule | None = None
) -> DataFrame:
    """Build the table that `MedicalDataset` reads from, with ``attrs["task"]`` and, where known, meta_*.

    A volume's slices are pictures of one patient. With a mask volume a slice is abnormal if its mask is not empty;
    without one all slices have the volume's label. Where the rule names labels, a picture whose mask holds none of them
    is normal, slice or not. A ValueError if an image is listed twice.
    """
    survey = MaskSurvey(mask_rule or MaskRule())
    names = sorted({name for entry in entries for name in entry.metadata})
    found = _for_each(entries, lambda entry: _pictures(entry, slicing, survey), "Listing images")
    rows = [
        {
            "image_path": str(picture),
            "split": entry.split,
            "label": label,
            "label_index": int(label not in {NORMAL_CLASS, UNLABELED}),
            "mask_path": "" if mask is None else str(mask),
            "patient_id": entry.patient,
            # Slices of a volume name it.
            "series_id": entry.series or (series_key(picture, None) if picture.selection else ""),
            **{f"{METADATA}{name}": entry.metadata.get(name, "") for name in names},
        }
        for entry, pictures in zip(entries, found, strict=True)
        for picture, mask, label in pictures
    ]
    survey.report()
    columns = ["image_path", "split", "label", "label_index", "mask_path", "patient_id", "series_id"]
    samples = DataFrame(rows, columns=[*columns, *(f"{METADATA}{name}" for name in names)])
    twice = samples.image_path[samples.image_path.duplicated()]
    if len(twice):
        images = counted(len(twice), "image")
        msg = f"Listed twice, as a file and by its own address: {images}, such as {twice.iloc[0]}."
        raise ValueError(msg)
    samples.attrs["task"] = "segmentation" if (samples.mask_path != "").any() else "classification"
    return samples


def _for_each(entries: Sequence[Entry], read: Callable[[Entry], _T], what: str) -> list[_T]:
    """Read all files, and report all that cannot be read at once."""
    results: list[_T] = []
    failures: list[ImageReadError] = []
    for entry in tqdm(entries, desc=what, unit="file", disable=len(entries) < _MANY_FILES or None):
        try:
            results.append(read(entry))
        except ImageReadError as error:
            failures.append(error)
    if len(failures) > 1:
        first = "\n".join(f"- {error}" for error in failures[:_SHOWN_FAILURES])
        more = f"\n(and {len(failures) - _SHOWN_FAILURES} more)" if len(failures) > _SHOWN_FAILURES else ""
        msg = f"{len(failures)} of {len(entries)} files cannot be used:\n{first}{more}"
        raise ImageReadError(msg)
    if failures:
        raise failures[0]
    return results


def _pictures(
    entry: Entry, slicing: Slicing | None, survey: MaskSurvey
) -> list[tuple[ImageAddress, ImageAddress | None, str]]:
    """Return (picture, mask, class) of each picture in an entry's file."""
    pictures = [entry.path] if entry.path.selection else list_pictures(entry.path.path, slicing)
    if entry.mask is None:
        return [(picture, None, entry.label) for picture in pictures]
    masks = survey.pair(entry.path, entry.mask, pictures, slicing)
    return [
        (picture, mask, NORMAL_CLASS if mask is None else entry.label)
        for picture, mask in zip(pictures, masks, strict=True)
    ]
