"""What is odd about patients' ids, said without showing any."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from anomalib_medical.data.patients import TELL_PATIENTS, FileFacts, describe_one_patient
from anomalib_medical.io import agree, counted
from anomalib_medical.io.names import names_nobody

if TYPE_CHECKING:
    from anomalib_medical.data.entries import Entry

logger = logging.getLogger(__name__)


def warn_of_ids(entries: Sequence[Entry]) -> None:
    """Warn of ids, from a list or from file names, that may not be what they seem."""
    named = [entry for entry in entries if entry.patient]
    nobody = [entry for entry in named if names_nobody(entry.patient or "")]
    if len(nobody) > 1:
        logger.warning(
            "%d files (such as %s) have a patient such as 'unknown' or '0': those of one word count as one patient. "
            "Leave the patient empty where nobody knows it.",
            len(nobody),
            nobody[0].path,
        )
    alike: dict[str, Entry] = {}
    for entry in named:
        key = (entry.patient or "").casefold().lstrip("0")
        other = alike.setdefault(key, entry)
        if key and other.patient != entry.patient:
            logger.warning(
                "The patients of %s and %s differ in leading zeros or in capitals only. They count as two: write them "
                "alike if they are one.",
                other.path,
                entry.path,
            )
            return


def warn_of_headers(facts: Sequence[FileFacts]) -> None:
    """Warn of headers that may have lost the patient.

    Args:
        facts: Those of the files whose patients come from their headers.
    """
    told = describe_one_patient(facts)
    several = len({fact.study for fact in facts if fact.patient}) > 1
    nobody = sum(fact.names_nobody for fact in facts)
    if told and several:
        logger.warning("%s%s", told, TELL_PATIENTS)
    elif nobody > 1:
        logger.warning(
            "%d DICOM files have a PatientID such as ANONYMOUS or 0: those of the same word count as images of one "
            "patient. %s",
            nobody,
            TELL_PATIENTS,
        )


def warn_of_absent(found: Sequence[str | None], source: str) -> None:
    """Warn of files that do not name the study or series that their patients were to come from."""
    absent = sum(patient is None for patient in found)
    if absent:
        logger.warning(
            "patient_from=%s: %d of %s %s none. Each counts as a patient of its own.",
            source,
            absent,
            counted(len(found), "file"),
            agree(absent, "names", "name"),
        )
