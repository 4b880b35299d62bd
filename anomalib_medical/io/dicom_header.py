"""DICOM headers, read without letting their values into warnings, logs or error messages."""

from __future__ import annotations

import hashlib
import math
import re
import struct
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.datadict import dictionary_has_tag
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from .dicom_file import damaged, read_header
from .dicom_module import first_number
from .errors import ImageReadError
from .names import names_nobody, normalise_id
from .quiet import quiet
from .signatures import HEAD_BYTES

# What pydicom and its decoders raise on broken content.
_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

# pydicom's loggers quote values of the header; logging sends what they take straight to the root's handlers.
_LOGGERS = ("pydicom", "pydicom.pixels.decoders.base", "pydicom.pixels.utils")

# The first elements of a data set without preamble: its identifying group, or the file meta group before it.
_FIRST_GROUPS = (0x0002, 0x0008)
_ELEMENTS_TO_BE_SURE = 3
_VRS = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)
_LONG_VRS = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)

_DIGEST_DOMAIN = b"anomalib-medical dicom\0"
_DIGEST_DIGITS = 16
_LONGEST_TEXT = 64
_CODE = r"[A-Z0-9 _]{1,16}"
_SIDE = "[BLRU]"
_CODED_TAGS = {
    "body_part": ("BodyPartExamined", _CODE),
    "laterality": ("Laterality", _SIDE),
    "modality": ("Modality", _CODE),
    "photometric": ("PhotometricInterpretation", _CODE),
    "sex": ("PatientSex", "[FMO]"),
    "view": ("ViewPosition", _CODE),
}
_FREE_TEXT_TAGS = {"manufacturer": "Manufacturer", "model": "ManufacturerModelName"}
_FACT_TAGS = [
    *(keyword for keyword, _ in _CODED_TAGS.values()),
    *_FREE_TEXT_TAGS.values(),
    "Columns",
    "ImageLaterality",
    "IssuerOfPatientID",
    "Laterality",
    "PatientID",
    "Rows",
    "SeriesInstanceUID",
    "StudyInstanceUID",
]


@dataclass(frozen=True)
class DicomFacts:
    """What a header says of where an image comes from, without saying who it shows.

    The digests are the same for the same id wherever they are made, so that whoever can guess an id can check the
    guess: what is written to files goes through `PatientHasher` as well.

    Attributes:
        patient: Digest of PatientID, None where the file has no id.
        issuer: Digest of its issuer, which some files of a patient may lack.
        names_nobody: Whether PatientID is what anonymisers write, such as ``ANONYMOUS`` or ``0``.
        study: Digest of the study's UID.
        series: Digest of the series' UID.
        metadata: Coded properties by name; ``other`` where a coded field holds what cannot be a code.
    """

    patient: str | None = None
    study: str | None = None
    series: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    issuer: str | None = None
    names_nobody: bool = False


@contextmanager
def sanitised(path: Path) -> Generator[None, None, None]:
    """Silence pydicom, and turn what it raises into an error that quotes nothing of the header."""
    try:
        with quiet(*_LOGGERS):
            yield
    except (ImageReadError, FileNotFoundError, PermissionError):
        raise
    except _ERRORS:
        raise damaged(path) from None


def looks_like_dicom(head: bytes) -> bool:
    """Tell from a file's first bytes whether it is DICOM, with preamble or, as older software wrote it, without.

    Without preamble, the bytes must parse as known elements in ascending order, three at least.
    """
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    order = next((o for o in "<>" if struct.unpack_from(f"{o}H", head)[0] in _FIRST_GROUPS), None)
    return order is not None and _leading_elements(head, order) >= _ELEMENTS_TO_BE_SURE


def is_dicom_file(path: Path) -> bool:
    """Tell from its content whether a file is DICOM."""
    with path.open("rb") as file:
        return looks_like_dicom(file.read(HEAD_BYTES))


def _leading_elements(head: bytes, order: str) -> int:
    """Count the plausible elements at the start; 0 if something there is none."""
    offset, count, last = 0, 0, 0
    while offset + 12 <= len(head):
        group, element = struct.unpack_from(f"{order}HH", head, offset)
        if count and head.startswith(b"\x02\x00") and group != 0x0002:
            return count  # behind the file meta group, the encoding may be another
        tag, vr = group << 16 | element, head[offset + 4 : offset + 6]
        if tag <= last or (group % 2 == 0 and element != 0 and not dictionary_has_tag(tag)):
            return 0
        last, count = tag, count + 1
        if vr in _LONG_VRS:
            length, start = struct.unpack_from(f"{order}L", head, offset + 8)[0], 12
        elif vr in _VRS:
            length, start = struct.unpack_from(f"{order}H", head, offset + 6)[0], 8
        elif order == ">":  # big-endian is always written with VRs
            return 0
        else:
            length, start = struct.unpack_from(f"{order}L", head, offset + 4)[0], 8
        offset += start + length  # an undefined length, 0xFFFFFFFF, ends the loop as well
    return count


def dicom_facts(path: Path) -> DicomFacts:
    """Read what a header says of where an image comes from.

    Args:
        path: DICOM file.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its header cannot be read.
    """
    with sanitised(path), path.open("rb") as file:
        header = read_header(path, file, _FACT_TAGS).header
        syntax = header.file_meta.TransferSyntaxUID
        metadata = {name: _code(_text(header, tag), allowed) for name, (tag, allowed) in _CODED_TAGS.items()}
        metadata["laterality"] = _code(_text(header, "ImageLaterality"), _SIDE) or metadata["laterality"]
        metadata |= {name: _printable(_text(header, keyword)) for name, keyword in _FREE_TEXT_TAGS.items()}
        metadata["transfer_syntax"] = syntax.name if syntax.is_transfer_syntax else "other"
        for name in ("rows", "columns"):
            number = first_number(header, name.capitalize())
            metadata[name] = "" if number is None or not math.isfinite(number) else str(int(number))
        patient = normalise_id(_text(header, "PatientID"))
        return DicomFacts(
            patient=_digest(patient),
            issuer=_digest(normalise_id(_text(header, "IssuerOfPatientID")).casefold()),
            names_nobody=names_nobody(patient),
            study=_digest(_text(header, "StudyInstanceUID")),
            series=_digest(_text(header, "SeriesInstanceUID")),
            metadata={name: value for name, value in metadata.items() if value},
        )


def _text(header: Dataset, keyword: str) -> str:
    value = header.get(keyword)
    if isinstance(value, MultiValue):
        value = "\\".join(map(str, value))
    return "" if value is None else str(value).strip(" \0")


def _code(text: str, allowed: str) -> str:
    return text if not text or re.fullmatch(allowed, text) else "other"


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())[:_LONGEST_TEXT]


def _digest(identifier: str) -> str | None:
    if not identifier:
        return None
    content = _DIGEST_DOMAIN + f"{identifier}\0".encode("utf-8", errors="surrogatepass")
    return hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]
