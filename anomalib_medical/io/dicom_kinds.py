"""DICOM objects that show no patient to learn from or to score, told by their SOP class."""

from __future__ import annotations

from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.uid import UID

from .dicom_header import looks_like_dicom, sanitised
from .errors import ImageReadError, NoImageError
from .signatures import HEAD_BYTES

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


def sop_class(header: Dataset) -> str:
    """Name what an object is of, from its ``KIND_TAGS``: its UID where nobody has named that, empty if it has none."""
    meta = getattr(header, "file_meta", None) or Dataset()
    uid = str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
    return _YOUNG.get(uid) or UID(uid).name


def is_image_class(name: str) -> bool:
    """Tell whether objects of an SOP class are images; of private classes nothing is known."""
    return "Image Storage" in name or name in _IMAGES


def kind_of(header: Dataset, *, of_mask: bool = False) -> str | None:
    """Name what an object is that shows no patient to score, from its ``KIND_TAGS``.

    Args:
        header: Its header.
        of_mask: Whether it is to be a mask, which Segmentations may be.
    """
    name = sop_class(header)
    if "Storage" in name and not is_image_class(name):
        kind = name.replace(" Storage", "")
        return None if of_mask and kind in _MASKS else kind
    return "result of anomalib-medical" if header.get("Manufacturer") == OWN_MANUFACTURER else None


def refuse_kinds(path: Path, header: Dataset, *, of_mask: bool) -> None:
    """Refuse an object that shows no patient to score."""
    if (kind := kind_of(header, of_mask=of_mask)) is not None:
        error = NoImageError.of(
            path,
            found=f"a DICOM file without an image to learn from or to score ({kind})",
            expected="a mask, such as a Segmentation" if of_mask else "an image of a patient",
            remedy="Remove it from the data folder.",
        )
        error.kind = kind
        raise error


def kind_of_file(path: Path, *, of_mask: bool = False) -> str | None:
    """Name what a file holds that `kind_of` names; None also for what is no DICOM, or is damaged."""
    with path.open("rb") as file:
        if not looks_like_dicom(file.read(HEAD_BYTES)):
            return None
        file.seek(0)
        try:
            with sanitised(path):
                # Both tags stand at the beginning: the rest of the header is not read.
                return kind_of(
                    read_partial(
                        file,
                        stop_when=lambda tag, _vr, _length: tag > _MANUFACTURER,
                        force=True,
                        specific_tags=[_SOP_CLASS, _MANUFACTURER],
                    ),
                    of_mask=of_mask,
                )
        except ImageReadError:
            return None
