"""Who is who among patients, from headers, lists and names of files; what is odd is said without showing any id."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from anomalib_medical.io import DicomFacts, agree, counted, dicom_facts, is_dicom_file, names_nobody

logger = logging.getLogger(__name__)

# Where patients come from if neither a list nor a file's name says who they are.
PatientSource = Literal["header", "study", "series", "folder", "file"]
# The way out that the messages below lead to.
TELL_PATIENTS = (
    "If they are of several patients, say how to tell these apart: patient_from=study (or series, folder, file), "
    "patient_pattern, or the column patient of a manifest."
)


def file_facts(path: Path) -> DicomFacts:
    """Read what a file's header says of its patient; only DICOM says anything."""
    return dicom_facts(path) if is_dicom_file(path) else DicomFacts()


def identify_patients(facts: Sequence[DicomFacts]) -> list[str | None]:
    """Tell from the headers of a data set's files who is who: a pseudonym for each, None where there is no id.

    Files of one id are of one patient, unless all of them name an issuer and these differ: some software leaves the
    issuer out.
    """
    issuers: dict[str | None, set[str | None]] = {}
    for fact in facts:
        issuers.setdefault(fact.patient, set()).add(fact.issuer)
    return [
        f"{fact.patient}-{fact.issuer}"
        if len(issuers[fact.patient]) > 1 and None not in issuers[fact.patient]
        else fact.patient
        for fact in facts
    ]


def describe_one_patient(facts: Sequence[DicomFacts]) -> str:
    """Say what it may mean that all of a data set's DICOM files name one patient; "" if they do not."""
    named = [(fact, patient) for fact, patient in zip(facts, identify_patients(facts), strict=True) if patient]
    if len(named) < 2 or len({patient for _, patient in named}) > 1:
        return ""
    studies, series = len({fact.study for fact, _ in named}), len({fact.series for fact, _ in named})
    return (
        f"All {len(named)} DICOM files name the same patient (studies: {studies}, series: {series}), as anonymised "
        "exports do: they count as images of one patient. "
    )


def warn_of_ids(patient_of: Sequence[tuple[object, str]]) -> None:
    """Warn of ids, from a list or from file names, that may not be what they seem; given (file, id)."""
    nobody = [file for file, patient in patient_of if names_nobody(patient)]
    if len(nobody) > 1:
        logger.warning(
            "%d files (such as %s) have a patient such as 'unknown' or '0': those of one word count as one patient. "
            "Leave the patient empty where nobody knows it.",
            len(nobody),
            nobody[0],
        )
    alike: dict[str, tuple[object, str]] = {}
    for file, patient in patient_of:
        key = patient.casefold().lstrip("0")
        other, spelling = alike.setdefault(key, (file, patient))
        if key and spelling != patient:
            logger.warning(
                "The patients of %s and %s differ in leading zeros or in capitals only. They count as two: write them "
                "alike if they are one.",
                other,
                file,
            )
            return


def warn_of_headers(facts: Sequence[DicomFacts], source: PatientSource) -> None:
    """Warn of headers, of files whose patients come from them, that may have lost the patient."""
    if source == "header":
        told = describe_one_patient(facts)
        nobody = sum(fact.names_nobody for fact in facts)
        if told and len({fact.study for fact in facts if fact.patient}) > 1:
            logger.warning("%s%s", told, TELL_PATIENTS)
        elif nobody > 1:
            logger.warning(
                "%d DICOM files have a PatientID such as ANONYMOUS or 0: those of the same word count as images of one "
                "patient. %s",
                nobody,
                TELL_PATIENTS,
            )
    elif source in {"study", "series"} and (absent := sum(getattr(fact, source) is None for fact in facts)):
        logger.warning(
            "patient_from=%s: %d of %s %s none. Each counts as a patient of its own.",
            source,
            absent,
            counted(len(facts), "file"),
            agree(absent, "names", "name"),
        )
