"""Where the frames of a DICOM file lie in the patient."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from .address import ImageAddress
from .dicom_file import read_header
from .dicom_header import is_dicom_file, sanitised

_TAGS = [
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PerFrameFunctionalGroupsSequence",
    "SharedFunctionalGroupsSequence",
]
# In mm, and as a part of a direction's length.
_SAME_POSITION = 0.1
_SAME_DIRECTION = 1e-3


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
        header = read_header(address.path, file, _TAGS).header
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
