"""What files' headers say of their patients, without saying who they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from anomalib_medical.io.dicom_header import dicom_facts, is_dicom_file

# Where patients come from if neither a list nor a file's name says who they are.
PatientSource = Literal["header", "study", "series", "folder", "file"]


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file from its header.

    Attributes:
        patient: Pseudonym of the patient, None where the format or the header has none.
        metadata: Coded properties such as view, sex and manufacturer.
        issuer: Pseudonym of who issued the patient's id.
        study: Pseudonym of the study.
        series: Pseudonym of the series.
        names_nobody: Whether the patient's id is a placeholder.
    """

    patient: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    issuer: str | None = None
    study: str | None = None
    series: str | None = None
    names_nobody: bool = False

    @property
    def exam(self) -> str | None:
        """What is certainly of one patient, where the header does not say of whom."""
        return self.study or self.series


def file_facts(path: Path) -> FileFacts:
    """Read what a file's header says; only DICOM says anything.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If it is DICOM with a damaged header.
    """
    if not is_dicom_file(path):
        return FileFacts()
    facts = dicom_facts(path)
    return FileFacts(facts.patient, dict(facts.metadata), facts.issuer, facts.study, facts.series, facts.names_nobody)


def identify_patients(facts: Sequence[FileFacts]) -> list[str | None]:
    """Tell from the headers of a data set's files who is who.

    Files of one id are of one patient, unless all of them name an issuer and these differ: some software leaves the
    issuer out.

    Returns:
        A pseudonym for each file, None where the header has no id.
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


def describe_one_patient(facts: Sequence[FileFacts]) -> str:
    """Say what it may mean that all of a data set's DICOM files name one patient; "" if they do not."""
    named = [(fact, patient) for fact, patient in zip(facts, identify_patients(facts), strict=True) if patient]
    if len(named) < 2 or len({patient for _, patient in named}) > 1:
        return ""
    studies, series = len({fact.study for fact, _ in named}), len({fact.series for fact, _ in named})
    return (
        f"All {len(named)} DICOM files name the same patient (studies: {studies}, series: {series}), as anonymised "
        "exports do: they count as images of one patient. "
    )


# The way out that the messages above lead to.
TELL_PATIENTS = (
    "If they are of several patients, say how to tell these apart: patient_from=study (or series, folder, file), "
    "patient_pattern, or the column patient of a manifest."
)
