"""Headers of originals as what is made of them needs them, and texts that nobody could read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.charset import convert_encodings, default_encoding
from pydicom.dataset import Dataset

# What the objects cannot do without, absent in some files: empty is allowed, absence is not.
_EMPTY_IF_ABSENT = (
    "AccessionNumber",
    "PatientBirthDate",
    "PatientID",
    "PatientName",
    "PatientSex",
    "ReferringPhysicianName",
    "StudyDate",
    "StudyID",
    "StudyTime",
)
# Values that a character set says how to read.
_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
# The escape sequence of GB 2312.
_CHINESE = "\x1b$)A"


def read_original(path: Path) -> Dataset:
    """Read a header without its pixels, made complete, with its texts as Unicode."""
    original = dcmread(path, stop_before_pixels=True)
    _complete(original)
    _to_unicode(original)
    return original


def lacking_uid(original: Dataset) -> str:
    """Name the UID without which nothing can refer to an original; empty if none lacks."""
    uids = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    return next((keyword for keyword in uids if not original.get(keyword)), "")


def orientation(original: Dataset) -> list[str]:
    """Directions of a picture's rows and columns, empty where the file does not say."""
    found = original.get("PatientOrientation")
    if found and len(found) == 2:
        return [str(found[0]), str(found[1])]
    cosines = original.get("ImageOrientationPatient")
    if not cosines or len(cosines) != 6:
        return []
    # Right to left, anterior to posterior and feet to head are DICOM's positive directions.
    letters, values = ("RL", "AP", "FH"), np.asarray(cosines, float).reshape(2, 3)
    return [
        letters[axis][int(vector[axis] > 0)] for axis, vector in zip(abs(values).argmax(axis=1), values, strict=True)
    ]


def _complete(original: Dataset) -> None:
    """Make the patient's and the study's elements such as highdicom takes them."""
    for keyword in _EMPTY_IF_ABSENT:
        if keyword not in original:
            setattr(original, keyword, "")
    # The forms of the standard's predecessor.
    original.StudyDate = str(original.StudyDate).replace(".", "")
    original.StudyTime = str(original.StudyTime).replace(":", "")


def leave_out_place(originals: Sequence[Dataset]) -> tuple[str, bool]:
    """Leave out places in the patient, or pixel sizes, that lack a part, instead of inventing it.

    Names what lacks, and says whether anything was left out. Where slices do not tell their thickness, it is taken to
    be their distance.
    """
    needed = ["FrameOfReferenceUID"]
    if "SharedFunctionalGroupsSequence" not in originals[0]:  # which have the rest, in enhanced files
        needed += ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"]
    distance = _distance(originals)
    for original in originals:
        if not original.get("SliceThickness"):
            original.SliceThickness = original.get("SpacingBetweenSlices") or distance
    lacking = [keyword for keyword in needed if not all(original.get(keyword) for original in originals)]
    had_place = any("ImagePositionPatient" in original for original in originals)
    for original in originals if lacking else ():
        for keyword in ("ImagePositionPatient", "PixelSpacing"):
            original.pop(keyword, None)
    return ", ".join(lacking), bool(lacking) and had_place


def in_one_space(originals: Sequence[Dataset]) -> list[list[int]]:
    """Divide images into those that an object can lie over, by their numbers.

    Each lies over all slices; where several lie at one place, as of several phases, over the first of each place, the
    second, and so on. Images that lie in no common space, as radiographs, have an object each.
    """
    places = [tuple(original.get("ImagePositionPatient") or ()) for original in originals]
    if not all(places):
        return [[index] for index in range(len(originals))]
    groups: list[list[int]] = []
    times: Counter[tuple[float, ...]] = Counter()
    for index, place in enumerate(places):
        if times[place] == len(groups):
            groups.append([])
        groups[times[place]].append(index)
        times[place] += 1
    return groups


def _distance(originals: Sequence[Dataset]) -> float | None:
    """The usual distance of neighbours among slices in order, in mm; None where they do not say where they are."""
    if len(originals) < 2 or not all(original.get("ImagePositionPatient") for original in originals):
        return None
    corners = np.array([original.ImagePositionPatient for original in originals], float)
    steps = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    return round(float(np.median(steps[steps > 0])), 6) if (steps > 0).any() else None


def _to_unicode(original: Dataset) -> None:
    """Let texts be written as Unicode: highdicom knows only some of the combinations of character sets."""
    known = set(convert_encodings(original.get("SpecificCharacterSet"))) != {default_encoding}
    # Where nothing says what bytes beyond ASCII mean, pydicom writes them as it read them.
    original.SpecificCharacterSet = "ISO_IR 192" if known else None


def unread_text(made: Dataset) -> Iterator[str]:
    """Name the elements whose bytes pydicom could not read, and replaced or left escape sequences of."""
    # Reads everything: what is still bytes, in sequences, would be written as it is.
    for element in made.iterall():
        if element.VR not in _TEXT or not element.value:
            continue
        texts = [str(text) for text in (element.value if element.VM > 1 else [element.value])]
        if any(_CHINESE in text for text in texts):
            # pydicom reads what follows, and leaves this where it was.
            element.value = "\\".join(text.replace(_CHINESE, "") for text in texts)
        if {"\ufffd", "\x1b"} & set(str(element.value)):
            yield element.keyword or "a private element"
