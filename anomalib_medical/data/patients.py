"""What a file's header says of its patient, without saying who it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from anomalib_medical.data.io.dicom import DicomReader
from anomalib_medical.data.io.dicom_header import dicom_facts
from anomalib_medical.data.io.signatures import HEAD_BYTES


@dataclass(frozen=True)
class FileFacts:
    """What is known of a file from its header.

    Attributes:
        patient: Pseudonym of the patient, None where the format or the header has none.
        metadata: Coded properties such as view, sex and manufacturer.
    """

    patient: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def file_facts(path: Path) -> FileFacts:
    """Read what a file's header says; only DICOM says anything.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If it is DICOM with a damaged header.
    """
    with path.open("rb") as file:
        if not DicomReader().can_read(file.read(HEAD_BYTES)):
            return FileFacts()
    facts = dicom_facts(path)
    return FileFacts(facts.patient, dict(facts.metadata))
