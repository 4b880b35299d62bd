"""A CSV file that says what each image is."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_medical.data.checks import read_table, row_error
from anomalib_medical.data.entries import NORMAL_CLASS, Entry, is_abnormal_class
from anomalib_medical.data.samples import METADATA, UNLABELED, hold_out_patients
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import ImageAddress, ImageReadError, composed, counted, image_size, irregular, normalise_id

logger = logging.getLogger(__name__)

_COLUMNS = ("path", "label", "patient", "mask", "split")
# A patient may have images both in the training and in the unlabeled pool.
_SIDES = {"train": 0, "val": 1, "test": 2, UNLABELED: 0}
_LABELS = {"": UNLABELED, "normal": NORMAL_CLASS, "0": NORMAL_CLASS, NORMAL_CLASS: NORMAL_CLASS}
_LABELS |= {"abnormal": "abnormal", "1": "abnormal"}
_PREFIX = "abnormal:"
# Without a split column this share of the normal images goes to the test.
_TEST_SHARE = 0.2


@dataclass(frozen=True)
class Wording:
    """What a table that was made for something else calls our columns and labels.

    Attributes:
        columns: Our column -> the file's; where it is given, the file's other columns are passed over.
        labels: The file's label -> ours, for those that `read_manifest` does not know; upper and lower case are one.

    Raises:
        MedicalError: If a column or a label is none of ours.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what is none of ours."""
        for name in self.columns:
            if name not in _COLUMNS and not name.startswith(METADATA):
                ours = f"{', '.join(_COLUMNS)} or {METADATA}<name>"
                msg = f"columns has {name!r}, expected {ours}: the file's name is the value."
                raise MedicalError(msg)
        for label, ours in self.labels.items():
            if _label(ours) is None:
                expected = "normal, abnormal, abnormal:<class> or nothing (unlabeled)"
                msg = f"labels makes {ours!r} of {label!r}, expected {expected}."
                raise MedicalError(msg)
        folded = {label.casefold(): ours for label, ours in self.labels.items()}
        if len(folded) < len(self.labels):
            msg = f"labels names a label twice, but for upper and lower case: {', '.join(self.labels)}."
            raise MedicalError(msg)
        object.__setattr__(self, "labels", folded)

    def read(self, file: Path) -> DataFrame:
        """Read the table, with our columns and labels."""
        if not self.columns:
            table = read_table(file, _COLUMNS[:2], _COLUMNS[2:], METADATA)
        else:
            needed = {**{name: name for name in _COLUMNS[:2]}, **self.columns}
            found = read_table(file, tuple(needed.values()), None)
            beside = {name: name for name in map(str, found) if name in _COLUMNS or name.startswith(METADATA)}
            table = DataFrame({ours: found[theirs] for ours, theirs in {**beside, **needed}.items()})
        return table.assign(label=[self.labels.get(label.casefold(), label) for label in table.label])


def read_manifest(file: Path, root: Path, wording: Wording | None = None) -> list[Entry]:
    """Read a CSV file, UTF-8, with a header.

    Its columns: ``path`` (below ``root``), ``label`` (``normal`` or ``abnormal``, 0 or 1, or ``abnormal:<class>``;
    empty in the unlabeled pool), and optionally ``patient``, ``mask`` (below ``root``), ``split`` (``train``, ``val``,
    ``test``, ``unlabeled``) and anything that starts with ``meta_``; or what ``wording`` has for them.

    Returns:
        The files; without a ``split`` column those with a label have the split ``""``, see `split_samples`.

    Raises:
        FileNotFoundError: If the file, or an image or mask that it names, is missing.
        MedicalError: If its content cannot be used; the message names the row.
    """
    entries = []
    seen: dict[Path, int] = {}
    table = (wording or Wording()).read(file)
    for line, row in zip(table.index, table.to_dict("records"), strict=True):
        entry = _entry(file, line, row, root)
        path = Path(str(entry.path)).resolve()
        if path in seen:
            raise row_error(file, line, f"lists the same image as line {seen[path]}", "each image once")
        seen[path] = line
        entries.append(entry)
    return entries


def split_samples(samples: DataFrame, seed: int = 0) -> DataFrame:
    """Decide on the split of images that have none (``""``), by patient.

    Abnormal images and all others of their patients go to the test, with a fifth of the other normal images. Images of
    tested patients leave the unlabeled pool; how many is logged.
    """
    undecided = samples[samples.split == ""]
    ill = set(undecided[undecided.label_index == LabelName.ABNORMAL].patient_id)
    healthy = [patient for patient in undecided.patient_id if patient not in ill]
    tested = set(ill)
    if len(set(healthy)) > 1:
        tested |= hold_out_patients(healthy, max(1, round(len(healthy) * _TEST_SHARE)), seed)
    decided = ["test" if patient in tested else "train" for patient in samples.patient_id]
    samples = samples.assign(split=samples.split.where(samples.split != "", decided))
    leaking = (samples.split == UNLABELED) & samples.patient_id.isin(tested)
    if leaking.any():
        dropped = counted(int(leaking.sum()), "unlabeled image")
        logger.info("Dropped %s of patients who have images in the test.", dropped)
    return samples[~leaking].reset_index(drop=True)


def check_patients(file: Path, entries: Sequence[Entry]) -> None:
    """Refuse patients who stand on both sides of the test or of the validation; ids are not shown."""
    first: dict[str | None, Entry] = {}
    for entry in (entry for entry in entries if entry.split):
        other = first.setdefault(entry.patient, entry)
        if _SIDES[other.split] != _SIDES[entry.split]:
            where = f"line {other.line} puts" if other.line else f"{other.path} puts"
            if not entry.line:
                msg = f"{file}: {entry.path} is of a patient whom {where} into {other.split}. Take it out of the pool."
                raise MedicalError(msg)
            raise row_error(
                file,
                entry.line,
                f"is in the split {entry.split}, while {where} the same patient into {other.split}",
                "a patient of the test or val nowhere else (without a split column we divide by patient)",
            )


def _entry(file: Path, line: int, row: dict[Any, str], root: Path) -> Entry:
    split, patient, mask = (row.get(column, "") for column in ("split", "patient", "mask"))
    if "split" in row and split not in _SIDES:
        raise row_error(file, line, f"has the split {split!r}", f"one of {', '.join(_SIDES)}")
    if not row["path"]:
        raise row_error(file, line, "has no path", "an image below the data folder")
    label = _label(row["label"])
    if label is None:
        classes = (
            "normal or abnormal (or 0 or 1), abnormal:<class of a name that means abnormal>, a word that `labels` has"
        )
        raise row_error(file, line, f"has the label {row['label']!r}", f"{classes}, or nothing if it is unlabeled")
    if split in {"train", "val"} and label != NORMAL_CLASS:
        others = "those of unknown label go to the split unlabeled, abnormal ones to test"
        raise row_error(
            file, line, f"puts an image labelled {row['label']!r} into {split}", f"normal images only: {others}"
        )
    if split == "test" and label == UNLABELED:
        raise row_error(file, line, "puts an image without a label into the test", "a label")
    may_have_mask = split != UNLABELED and label not in {NORMAL_CLASS, UNLABELED}
    return Entry(
        path=_inside(file, line, "path", row["path"], root),
        split=split or (UNLABELED if label == UNLABELED else ""),
        # What is known of an image in the pool stays out of the table.
        label=UNLABELED if split == UNLABELED else label,
        mask=_inside(file, line, "mask", mask, root) if mask and may_have_mask else None,
        patient=normalise_id(patient) or None,
        metadata={name.removeprefix(METADATA): value for name, value in row.items() if name.startswith(METADATA)},
        line=line,
    )


def _label(label: str) -> str | None:
    """The class, None for what is no label."""
    name = composed(label[len(_PREFIX) :]) if label.lower().startswith(_PREFIX) else ""
    return name if is_abnormal_class(name) else _LABELS.get(label.lower())


def _inside(file: Path, line: int, column: str, path: str, root: Path) -> ImageAddress:
    """Resolve a path of the manifest, which must stay below the root."""
    if "\0" in path:
        raise row_error(file, line, f"has a {column} with a NUL byte", "a path")
    names = f"names the {column} {path!r}"
    address = ImageAddress.parse(root / path)
    # A link to itself has a real path, but cannot be resolved.
    if not Path(os.path.realpath(address.path)).is_relative_to(root.resolve()):
        raise row_error(file, line, f"{names}, which is outside {root}", "a path below it")
    if (kind := irregular(address.path)) is not None:
        raise row_error(file, line, f"{names}, which is {kind}", "a file")
    if not address.path.is_file():
        msg = f"{file}, line {line}: there is no file {address.path} ({column} {path!r})."
        raise FileNotFoundError(msg)
    if address.selection:
        try:
            image_size(address)
        except ImageReadError as error:
            raise row_error(file, line, names, f"a picture that is there ({error})") from error
    return address
