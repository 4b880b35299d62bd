"""Which files belong together: the slices of a DICOM series, in their order in space, and volumes by themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from .dicom_file import is_dicom_file, read_header, sanitised
from .dicom_header import FACT_TAGS, KIND_TAGS, DicomFacts, digest_of, facts_of, kind_of
from .dicom_module import count_frames, first_number
from .errors import ImageReadError
from .files import ImageAddress, irregular
from .listing import RASTER_SUFFIXES
from .reader import holds_volume
from .text import agree, counted

_PLACE_TAGS = [
    "FrameOfReferenceUID",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "NumberOfFrames",
    "SOPInstanceUID",
]
# By which the directions of slices of one stack may differ, as a part of their length.
_SAME_DIRECTION = 1e-2
# Of the usual distance of neighbours: a wider gap lacks a slice.
_GAP = 1.5


@dataclass(frozen=True)
class SliceFacts:
    """What a file says of where it belongs. `series` and `patient` come from its header: they are written nowhere."""

    path: Path
    series: str  # empty for a picture that is of no series
    patient: str
    kind: tuple[object, ...] = ()  # slices of one stack agree in it
    axes: tuple[float, ...] = ()  # ImageOrientationPatient; empty where there is none
    position: float | None = None  # along the normal of the slice, in mm
    number: float | None = None  # InstanceNumber
    instance: str = ""  # of its SOPInstanceUID

    @property
    def has_others(self) -> bool:
        """Whether other files may belong to the same series."""
        return self.series not in {"", str(self.path)}

    @property
    def place(self) -> tuple[float, float, str]:
        """What slices are ordered by: position, number, name."""
        first, second = (math.inf if value is None else value for value in (self.position, self.number))
        return first, second, str(self.path)


@dataclass
class Series:
    """Files that are scored as one: a stack of slices in order, or a file that is a whole by itself."""

    files: list[Path]  # in the order of their positions
    key: str = ""  # of the series; empty for a picture that is of none. It comes from headers: it is written nowhere
    patient: str = ""  # the same of the patient
    notes: list[str] = field(default_factory=list)  # what is odd; no header is quoted
    copies: list[Path] = field(default_factory=list)  # slices that are here a second time: scored, and not counted


def slice_facts(path: Path) -> SliceFacts:
    """Read where a file belongs; one that cannot be read, or is no image, is of no series."""
    if irregular(path) is not None or _is_picture(path):
        return SliceFacts(path, "", str(path))
    try:
        if is_dicom_file(path):
            return _dicom_facts(path)
        volume = holds_volume(path)
    except (ImageReadError, OSError):
        volume = False
    return SliceFacts(path, str(path) if volume else "", str(path))


def series_key(address: ImageAddress, facts: DicomFacts | None) -> str:
    """Name the series of a picture, given what a DICOM header says: one name a series or volume, "" if it is of none.

    It is made of ids and paths: what is written to files is a hash of it.
    """
    if facts is None:
        if _is_picture(address.path) or not holds_volume(address.path):
            return ""
        # A series over time has several volumes.
        volume = [index for name, index in address.selection if name == "volume"]
        return str(ImageAddress(address.path, tuple(("volume", index) for index in volume)))
    return facts.series or (str(address.path) if address.selection else "")


def group_series(paths: Iterable[Path]) -> list[Series]:
    """Put together what belongs together, in the order of the first file of each.

    A DICOM series is divided into stacks of slices that agree in direction, size, frame of reference and kind of
    object; localisers and multi-frame files stand by themselves. Slices are in the order of their position along their
    normal, then of InstanceNumber, then of their names.
    """
    return group_slices(map(slice_facts, paths))


def group_slices(slices: Iterable[SliceFacts]) -> list[Series]:
    """Do the same with what was read of files before."""
    series: dict[str, list[SliceFacts]] = {}
    for facts in slices:
        series.setdefault(facts.series or f"\0{facts.path}", []).append(facts)
    return [stack for each in series.values() for stack in _stacks(each)]


def _is_picture(path: Path) -> bool:
    """Whether a file is a picture by its name, which spares opening each of many."""
    return path.suffix.lower() in RASTER_SUFFIXES


def _dicom_facts(path: Path) -> SliceFacts:
    with sanitised(path), path.open("rb") as file:
        header = read_header(path, file, [*_PLACE_TAGS, *FACT_TAGS, *KIND_TAGS]).header
        if kind_of(header) is not None:
            return SliceFacts(path, "", str(path))
        facts = facts_of(header)
        axes, corner = (_numbers(header, name) for name in ("ImageOrientationPatient", "ImagePositionPatient"))
        is_whole = count_frames(path, header) > 1
        number, position = first_number(header, "InstanceNumber"), None
        if len(axes) == 6 and len(corner) == 3:
            # To a thousandth of a millimetre: slices that are nearer lie at one place.
            position = round(float(np.cross(axes[:3], axes[3:]) @ corner), 3)
        return SliceFacts(
            path=path,
            series=facts.series or (str(path) if is_whole else ""),
            patient=facts.patient or facts.study or facts.series or str(path),
            kind=(
                *(facts.metadata.get(name) for name in ("rows", "columns")),
                digest_of(str(header.get("FrameOfReferenceUID") or "")),
                "LOCALIZER" in str(header.get("ImageType") or "").upper(),
                path if is_whole else None,
            ),
            axes=tuple(axes.tolist()) if len(axes) == 6 else (),
            position=position,
            number=None if number is None or math.isnan(number) else number,
            instance=digest_of(str(header.get("SOPInstanceUID") or "")) or "",
        )


def _numbers(header: Dataset, keyword: str) -> NDArray[np.float64]:
    """The values of an element, none where one of them is no number."""
    try:
        values = np.array([float(value) for value in header.get(keyword) or ()], np.float64)
    except (TypeError, ValueError):
        return np.empty(0)
    return values if np.isfinite(values).all() else np.empty(0)


def _stacks(slices: list[SliceFacts]) -> list[Series]:
    """Divide the files of a series into stacks, in the order of the first file of each."""
    stacks: list[list[SliceFacts]] = []
    for each in slices:
        stack = next((stack for stack in stacks if _belongs(each, stack[0])), None)
        if stack is None:
            stacks.append([each])
        else:
            stack.append(each)
    made = [_series(stack) for stack in stacks]
    if len(made) > 1:
        for number, series in enumerate(made, start=1):
            series.key += f" {number}"
            series.notes.insert(0, f"part {number} of {len(made)} of a series of {_differences(stacks)}")
    return made


def _belongs(each: SliceFacts, first: SliceFacts) -> bool:
    if each.kind != first.kind or len(each.axes) != len(first.axes):
        return False
    return all(abs(a - b) <= _SAME_DIRECTION for a, b in zip(each.axes, first.axes, strict=True))


def _differences(stacks: list[list[SliceFacts]]) -> str:
    """Say in what the stacks of a series differ."""
    firsts = [stack[0] for stack in stacks]
    sizes, frames, localisers, whole = (len({first.kind[part] for first in firsts}) > 1 for part in (slice(2), 2, 3, 4))
    turned = any(
        len(first.axes) != len(firsts[0].axes)
        or any(abs(a - b) > _SAME_DIRECTION for a, b in zip(first.axes, firsts[0].axes, strict=True))
        for first in firsts
    )
    found = [
        name
        for name, differs in (
            ("several sizes", sizes),
            ("several directions", turned),
            ("several frames of reference", frames),
            ("slices and localisers", localisers),
            ("multi-frame files", whole),
        )
        if differs
    ]
    return " and ".join(found)


def _series(slices: list[SliceFacts]) -> Series:
    """Put the slices of a stack in order, and say what is odd about them."""
    ordered = sorted(slices, key=lambda each: each.place)
    kept: list[SliceFacts] = []
    copies: list[Path] = []
    seen: set[tuple[object, ...]] = set()
    for each in ordered:
        identity = (each.instance, each.position, each.number)
        if each.instance and identity in seen:
            copies.append(each.path)
        else:
            seen.add(identity)
            kept.append(each)
    notes = []
    if copies:
        notes.append(f"{counted(len(copies), 'slice')} {agree(len(copies), 'is', 'are')} here twice and counted once")
    positions = [each.position for each in kept if each.position is not None]
    if positions and len(positions) < len(kept):
        without = len(kept) - len(positions)
        notes.append(f"{counted(without, 'slice')} {agree(without, 'has', 'have')} no position: put behind the others")
    if missing := _count_missing(positions):
        notes.append(f"{counted(missing, 'slice')} {agree(missing, 'seems', 'seem')} to be missing, by their positions")
    if same := len(positions) - len(set(positions)):
        notes.append(f"{counted(same, 'slice')} {agree(same, 'lies', 'lie')} where another does")
    first = ordered[0]
    return Series([each.path for each in kept], first.series, first.patient, notes, copies)


def _count_missing(positions: list[float]) -> int:
    """How many slices would fill the gaps between positions, going by the usual distance."""
    distances = np.diff(np.unique(positions))
    if len(distances) < 2:
        return 0
    usual = float(np.median(distances))
    return sum(round(distance / usual) - 1 for distance in distances.tolist() if distance > _GAP * usual)
