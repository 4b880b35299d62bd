"""From files that a user lists to a table of pictures: volumes become slices, every picture gets its patient."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pandas import DataFrame
from tqdm import tqdm

from anomalib_medical.data.datasets.base import mask_size_error
from anomalib_medical.data.images import read_mask
from anomalib_medical.data.io import (
    ImageAddress,
    ImageReadError,
    Slicing,
    composed,
    image_size,
    image_stem,
    list_pictures,
)
from anomalib_medical.data.patients import file_facts
from anomalib_medical.data.samples import METADATA, UNLABELED

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
    """One file of a data set.

    Attributes:
        path: The file, or the address of one picture in it.
        split: ``"train"``, ``"val"``, ``"test"`` or ``"unlabeled"``.
        label: The class; ``good`` is normal.
        mask: Mask file, or None.
        patient: The patient where the user's list says so; `find_patients` finds those of the others.
        metadata: What else is known of it, by column name without ``meta_``.
        line: Line of the user's list, 0 if there is none.
    """

    path: ImageAddress
    split: str
    label: str
    mask: ImageAddress | None = None
    patient: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    line: int = 0


def find_patients(entries: Sequence[Entry], root: Path, patient_pattern: str | None = None) -> None:
    """Give every entry its patient, and what its header says.

    The patient comes from the user's list, else from ``patient_pattern``, else from the DICOM header (as a pseudonym);
    else the file is a patient of its own.

    Args:
        entries: The files; those without a patient get one.
        root: The data set's folder: patients without an id are named after their file's path below it.
        patient_pattern: Regular expression searched in each file's name without suffix; its first group, or the whole
            match, is the patient.

    Raises:
        ValueError: If ``patient_pattern`` does not match every file name.
        ImageReadError: If a header cannot be read.
    """
    by_pattern = _match_patients([entry for entry in entries if entry.patient is None], patient_pattern)
    headers = _for_each(entries, lambda entry: file_facts(entry.path.path), "Reading headers")
    for entry in entries:
        entry.patient = entry.patient or by_pattern.get(id(entry))
    # A file that the list does not name a patient for may be of one that it names for another file.
    listed = {facts.patient: entry.patient for entry, facts in zip(entries, headers, strict=True) if entry.patient}
    for entry, facts in zip(entries, headers, strict=True):
        known = facts.patient and listed.get(facts.patient, facts.patient)
        entry.patient = entry.patient or known or _own_patient(entry.path.path, root)
        entry.metadata = {**facts.metadata, **entry.metadata}


def build_samples(entries: Sequence[Entry], slicing: Slicing | None = None) -> DataFrame:
    """Build the table that `MedicalDataset` reads from.

    A volume's slices are pictures of one patient. With a mask volume a slice is abnormal if its mask is not empty;
    without one all slices have the volume's label.

    Args:
        entries: The files, with their patients.
        slicing: How volumes become slices.

    Returns:
        Columns image_path, split, label, label_index, mask_path, patient_id and, where known, meta_*;
        ``attrs["task"]``.

    Raises:
        ImageReadError: If a header cannot be read, or a mask and its image differ in size or in number of slices.
        ValueError: If an image is listed twice.
    """
    names = sorted({f"{METADATA}{name}" for entry in entries for name in entry.metadata})
    rows = [
        {
            "image_path": str(picture),
            "split": entry.split,
            "label": label,
            "label_index": int(label not in {NORMAL_CLASS, UNLABELED}),
            "mask_path": "" if mask is None else str(mask),
            "patient_id": entry.patient,
            **{name: entry.metadata.get(name.removeprefix(METADATA), "") for name in names},
        }
        for entry, pictures in zip(
            entries, _for_each(entries, lambda entry: _pictures(entry, slicing), "Listing images"), strict=True
        )
        for picture, mask, label in pictures
    ]
    columns = ["image_path", "split", "label", "label_index", "mask_path", "patient_id", *names]
    samples = DataFrame(rows, columns=columns)
    twice = samples.image_path[samples.image_path.duplicated()]
    if len(twice):
        msg = f"{len(twice)} images are listed twice, such as {twice.iloc[0]}: as a file, and by their own address?"
        raise ValueError(msg)
    samples.attrs["task"] = "segmentation" if (samples.mask_path != "").any() else "classification"
    return samples


def _for_each(entries: Sequence[Entry], read: Callable[[Entry], _T], what: str) -> list[_T]:
    """Read all files, and report all that cannot be read at once."""
    results: list[_T] = []
    failures: list[ImageReadError] = []
    for entry in tqdm(entries, desc=what, unit="file", disable=len(entries) < _MANY_FILES):
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


def _pictures(entry: Entry, slicing: Slicing | None) -> list[tuple[ImageAddress, ImageAddress | None, str]]:
    """Return (picture, mask, class) of each picture in an entry's file."""
    pictures = [entry.path] if entry.path.selection else list_pictures(entry.path.path, slicing)
    if entry.mask is None:
        return [(picture, None, entry.label) for picture in pictures]
    masks = [entry.mask] if entry.mask.selection else list_pictures(entry.mask.path, slicing, of_mask=True)
    if len(masks) != len(pictures):
        msg = (
            f"The mask {entry.mask} holds {len(masks)} picture(s), its image {entry.path} {len(pictures)}. They must "
            "match one to one: save the mask with the image's frames or slices, or remove it."
        )
        raise ImageReadError(msg)
    # One look at the first pair: all pictures in a file have one size.
    sizes = image_size(pictures[0]), image_size(masks[0])
    if sizes[0] != sizes[1]:
        raise mask_size_error(str(pictures[0]), sizes[0], str(masks[0]), sizes[1])
    if len(pictures) == 1:
        return [(pictures[0], masks[0], entry.label)]
    return [
        (picture, mask, entry.label) if read_mask(mask).any() else (picture, None, NORMAL_CLASS)
        for picture, mask in zip(pictures, masks, strict=True)
    ]


def _own_patient(path: Path, root: Path) -> str:
    # Two files may share their name in different folders. The path below the root is the same on every machine.
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _match_patients(entries: Sequence[Entry], pattern: str | None) -> dict[int, str]:
    """Map each entry's id() to the patient in its file name."""
    if pattern is None:
        return {}
    matches = {id(entry): re.search(composed(pattern), composed(image_stem(entry.path.path))) for entry in entries}
    patients = {
        key: (match[1] if match.re.groups else match[0]) if match is not None else None
        for key, match in matches.items()
    }
    unmatched = [entry.path for entry in entries if not patients[id(entry)]]
    if unmatched:
        msg = (
            f"patient_pattern={pattern!r} finds no patient in {len(unmatched)} of {len(entries)} file names, such as "
            f"{unmatched[0]}. It is searched in the name without suffix, and its first group (or the whole match) is "
            "the patient: widen it, or leave it out to take every file as its own patient."
        )
        raise ValueError(msg)
    return {key: patient for key, patient in patients.items() if patient}
