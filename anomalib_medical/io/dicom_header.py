"""What a DICOM header says besides the pixels: what the object is, where it comes from, and where its frames lie."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.multival import MultiValue
from pydicom.uid import UID

from .dicom_file import is_dicom_file, read_header, sanitised
from .dicom_module import first_number
from .errors import ImageReadError, NoImageError
from .files import ImageAddress
from .text import names_nobody, normalise_id

# What our runtime writes into its results, whose captures have the SOP class of a film scanner's images.
OWN_MANUFACTURER = "anomalib-medical"
KIND_TAGS = ["Manufacturer", "SOPClassUID"]

# The standard calls what is an image "... Image Storage", with these exceptions.
_IMAGES = frozenset(
    {
        "Corneal Topography Map Storage",
        "DICOS 2D AIT Storage",
        "DICOS 3D AIT Storage",
        "Enhanced US Volume Storage",
        "Ophthalmic Thickness Map Storage",
    }
)
# Younger than the dictionary of some versions of pydicom.
_YOUNG = {
    "1.2.840.10008.5.1.4.1.1.66.7": "Label Map Segmentation Storage",
    "1.2.840.10008.5.1.4.1.1.66.8": "Height Map Segmentation Storage",
}
# What a mask may be all the same; of Parametric Maps, which hold fractions, a threshold makes one.
_MASKS = frozenset({"Label Map Segmentation", "Parametric Map", "Segmentation"})
_SOP_CLASS, _MANUFACTURER = 0x00080016, 0x00080070

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
FACT_TAGS = [
    *(keyword for keyword, _ in _CODED_TAGS.values()),
    *_FREE_TEXT_TAGS.values(),
    *("Columns", "ImageLaterality", "IssuerOfPatientID", "PatientID", "Rows", "SeriesInstanceUID", "StudyInstanceUID"),
]

_PLACE_TAGS = [
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
]
# In mm, and as a part of a direction's length.
_SAME_POSITION = 0.1
_SAME_DIRECTION = 1e-3


def sop_class(header: Dataset) -> str:
    """Name what an object is of, from its ``KIND_TAGS``: its UID where nobody has named that, empty if it has none."""
    meta = getattr(header, "file_meta", None) or Dataset()
    uid = str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    return _YOUNG.get(uid) or UID(uid).name


def is_image_class(name: str) -> bool:
    """Tell whether objects of an SOP class are images; of private classes nothing is known."""
    return "Image Storage" in name or name in _IMAGES


def kind_of(header: Dataset, *, of_mask: bool = False) -> str | None:
    """Name what an object is that shows no patient to score (a mask may be a Segmentation), from its ``KIND_TAGS``."""
    name = sop_class(header)
    if "Storage" in name and not is_image_class(name):
        kind = name.replace(" Storage", "")
        return None if of_mask and kind in _MASKS else kind
    return "result of anomalib-medical" if header.get("Manufacturer") == OWN_MANUFACTURER else None


def refuse_kinds(path: Path, header: Dataset, *, of_mask: bool) -> None:
    """Refuse an object that shows no patient to score."""
    if (kind := kind_of(header, of_mask=of_mask)) is not None:
        found = f"a DICOM file without an image to learn from or to score ({kind})"
        expected = "a mask, such as a Segmentation" if of_mask else "an image of a patient"
        error = NoImageError.of(path, found, expected, "Remove it from the data folder.")
        error.kind = kind
        raise error


def kind_of_file(path: Path, *, of_mask: bool = False) -> str | None:
    """Name what a file holds that `kind_of` names; None also for what is no DICOM, or is damaged."""
    if not is_dicom_file(path):
        return None
    try:
        with sanitised(path), path.open("rb") as file:
            # Both tags stand at the beginning: the rest of the header is not read.
            header = read_partial(
                file,
                stop_when=lambda tag, _vr, _length: tag > _MANUFACTURER,
                force=True,
                specific_tags=[_SOP_CLASS, _MANUFACTURER],
            )
            return kind_of(header, of_mask=of_mask)
    except ImageReadError:
        return None


@dataclass(frozen=True)
class DicomFacts:
    """What a header says of where an image comes from, without saying who it shows.

    The digests are the same for the same id wherever they are made, so that whoever can guess an id can check the
    guess: what is written to files goes through `PatientHasher` as well.
    """

    patient: str | None = None  # digest of PatientID, None where the file has no id
    study: str | None = None  # digests of their UIDs
    series: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)  # coded properties; `other` where one cannot be a code
    issuer: str | None = None  # digest of the id's issuer, which some files of a patient may lack
    names_nobody: bool = False  # whether PatientID is what anonymisers write, such as ANONYMOUS or 0


def dicom_facts(path: Path) -> DicomFacts:
    """Read what a header says of where an image comes from.

    Raises:
        FileNotFoundError: If there is no such file.
        ImageReadError: If its header cannot be read.
    """
    with sanitised(path), path.open("rb") as file:
        return facts_of(read_header(path, file, FACT_TAGS).header)


def facts_of(header: Dataset) -> DicomFacts:
    """Take the facts from a header's ``FACT_TAGS``."""
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
        patient=digest_of(patient),
        issuer=digest_of(normalise_id(_text(header, "IssuerOfPatientID")).casefold()),
        names_nobody=names_nobody(patient),
        study=digest_of(_text(header, "StudyInstanceUID")),
        series=digest_of(_text(header, "SeriesInstanceUID")),
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


def digest_of(identifier: str) -> str | None:
    """Digest of an id; None for none."""
    if not identifier:
        return None
    content = _DIGEST_DOMAIN + f"{identifier}\0".encode("utf-8", errors="surrogatepass")
    return hashlib.sha256(content).hexdigest()[:_DIGEST_DIGITS]


def distance_apart(first: ImageAddress, second: ImageAddress) -> float:
    """Return how far the corners of two pictures are apart, in mm: 0 where a file does not say, infinity if turned."""
    places = [_place(address) for address in (first, second)]
    if places[0] is None or places[1] is None:
        return 0.0
    (corner, axes), (other_corner, other_axes) = places[0], places[1]
    if np.abs(axes - other_axes).max() > _SAME_DIRECTION:
        return float("inf")
    apart = float(np.linalg.norm(corner - other_corner))
    return apart if apart > _SAME_POSITION else 0.0


def _place(address: ImageAddress) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if not is_dicom_file(address.path):
        return None
    with sanitised(address.path), address.path.open("rb") as file:
        header = read_header(address.path, file, _PLACE_TAGS).header
        groups = [header]
        frames = header.get("PerFrameFunctionalGroupsSequence") or []
        index = dict(address.selection).get("frame", 0)
        groups += [*(header.get("SharedFunctionalGroupsSequence") or []), *frames[index : index + 1]]
        corner = _numbers(groups, "PlanePositionSequence", "ImagePositionPatient")
        axes = _numbers(groups, "PlaneOrientationSequence", "ImageOrientationPatient")
    return (corner, axes) if len(corner) == 3 and len(axes) == 6 else None


def _numbers(groups: list[Dataset], sequence: str, keyword: str) -> NDArray[np.float64]:
    values = [group.get(keyword) for group in groups]
    values += [item.get(keyword) for group in groups for item in group.get(sequence) or []]
    found = [value for value in values if value]
    return np.array([float(number) for number in found[-1]] if found else [], dtype=np.float64)
