"""A CSV file that says what each image is."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_medical.data.datasets.entries import NORMAL_CLASS, Entry
from anomalib_medical.data.io import ImageAddress
from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.data.splits import hold_out_patients
from anomalib_medical.errors import MedicalError

COLUMNS = ("path", "label", "patient", "mask", "split")
METADATA = "meta_"
SPLITS = ("train", "val", "test", UNLABELED)
# A patient may have images both in the training and in the unlabeled pool.
_SIDES = {"train": 0, UNLABELED: 0, "val": 1, "test": 2}
_NORMAL = frozenset({"normal", "0", NORMAL_CLASS})
_ABNORMAL = {"abnormal": "abnormal", "1": "abnormal"}
_PREFIX = "abnormal:"
# Without a split column this share of the normal images goes to the test.
_TEST_SHARE = 0.2


class ManifestError(MedicalError, ValueError):
    """A manifest that cannot be used as it is."""


@dataclass(frozen=True)
class _Row:
    number: int  # of the line in the file, as an editor counts
    cells: dict[str, str]

    def __getitem__(self, column: str) -> str:
        return (self.cells.get(column) or "").strip()


def read_manifest(file: Path, root: Path) -> list[Entry]:
    """Read a manifest.

    Its columns: ``path`` (below ``root``), ``label`` (``normal`` or ``abnormal``, 0 or 1, or ``abnormal:<class>``;
    empty in the unlabeled pool), and optionally ``patient``, ``mask`` (below ``root``), ``split`` (``train``, ``val``,
    ``test``, ``unlabeled``) and anything that starts with ``meta_``.

    Args:
        file: The CSV file, UTF-8, with a header.
        root: Folder that paths are relative to.

    Returns:
        The files; without a ``split`` column those with a label have the split ``""``, see `split_samples`.

    Raises:
        FileNotFoundError: If the file, or an image or mask that it names, is missing.
        ManifestError: If its content cannot be used; the message names the row.
    """
    entries = []
    seen: dict[Path, int] = {}
    for row in _read_rows(file):
        entry = _entry(file, row, root)
        path = Path(str(entry.path)).resolve()
        if path in seen:
            raise _error(file, row.number, f"lists the same image as line {seen[path]}", "each image once")
        seen[path] = row.number
        entries.append(entry)
    return entries


def split_samples(samples: DataFrame, seed: int = 0) -> DataFrame:
    """Decide on the split of images that have none, by patient.

    Abnormal images and all others of their patients go to the test, with a fifth of the other normal images.

    Args:
        samples: Columns split (``""`` where it is to be decided), label_index and patient_id.
        seed: Decides which normal patients are in the test.
    """
    undecided = samples[samples.split == ""]
    ill = set(undecided[undecided.label_index == LabelName.ABNORMAL].patient_id)
    healthy = [patient for patient in undecided.patient_id if patient not in ill]
    tested = set(ill)
    if len(set(healthy)) > 1:
        tested |= hold_out_patients(healthy, max(1, round(len(healthy) * _TEST_SHARE)), seed)
    decided = ["test" if patient in tested else "train" for patient in samples.patient_id]
    return samples.assign(split=samples.split.where(samples.split != "", decided))


def check_patients(file: Path, entries: Sequence[Entry]) -> None:
    """Refuse patients who stand on both sides of the test or of the validation.

    Raises:
        ManifestError: Naming the lines; ids are not shown.
    """
    first: dict[str | None, Entry] = {}
    for entry in (entry for entry in entries if entry.split):
        other = first.setdefault(entry.patient, entry)
        if _SIDES[other.split] != _SIDES[entry.split]:
            raise _error(
                file,
                entry.line,
                f"is in the split {entry.split}, while line {other.line} puts the same patient into {other.split}",
                "a patient of the test or val nowhere else (without a split column we divide by patient)",
            )


def _read_rows(file: Path) -> list[_Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or [])
            _check_columns(file, columns)
            rows = [_checked_length(file, reader.line_num, row) for row in reader]
    except UnicodeDecodeError as error:
        msg = f"The manifest {file} is not UTF-8 text (byte {error.start}). Save it as CSV in UTF-8."
        raise ManifestError(msg) from None
    except csv.Error as error:
        msg = f"The manifest {file} is not a CSV file: {error}."
        raise ManifestError(msg) from error
    if not rows:
        msg = f"The manifest {file} lists no images."
        raise ManifestError(msg)
    return rows


def _check_columns(file: Path, columns: list[str]) -> None:
    unknown = [column for column in columns if column not in COLUMNS and not column.startswith(METADATA)]
    missing = [column for column in ("path", "label") if column not in columns]
    twice = {column for column in columns if columns.count(column) > 1}
    if unknown or missing or twice:
        found = ", ".join(columns) or "none"
        msg = (
            f"The manifest {file} has the columns {found}; expected path and label, optionally patient, mask and "
            f"split, and others only if their names start with {METADATA} (such as {METADATA}view). "
            + " ".join(
                f"{what}: {', '.join(sorted(names))}."
                for what, names in (("Unknown", unknown), ("Missing", missing), ("Twice", twice))
                if names
            )
        )
        raise ManifestError(msg)


def _checked_length(file: Path, number: int, row: dict[str | None, str | None]) -> _Row:
    if None in row or None in row.values():
        raise _error(file, number, "has more or fewer cells than the header", "one cell a column")
    return _Row(number, {str(column): str(value) for column, value in row.items()})


def _entry(file: Path, row: _Row, root: Path) -> Entry:
    split = row["split"]
    if "split" in row.cells and split not in SPLITS:
        raise _error(file, row.number, f"has the split {split!r}", f"one of {', '.join(SPLITS)}")
    if not row["path"]:
        raise _error(file, row.number, "has no path", "an image below the data folder")
    label = _label(file, row)
    if split in {"train", "val"} and label != NORMAL_CLASS:
        raise _error(
            file,
            row.number,
            f"puts an image labelled {row['label']!r} into {split}",
            "normal images only: those of unknown label go to the split unlabeled, abnormal ones to test",
        )
    if split == "test" and label == UNLABELED:
        raise _error(file, row.number, "puts an image without a label into the test", "a label")
    return Entry(
        path=_inside(file, row, "path", root),
        split=split or (UNLABELED if label == UNLABELED else ""),
        # What is known of an image in the pool stays out of the table.
        label=UNLABELED if split == UNLABELED else label,
        mask=_inside(file, row, "mask", root) if row["mask"] and _may_have_mask(split, label) else None,
        patient=row["patient"] or None,
        metadata={
            name.removeprefix(METADATA): value.strip()
            for name, value in row.cells.items()
            if name.startswith(METADATA)
        },
        line=row.number,
    )


def _may_have_mask(split: str, label: str) -> bool:
    return split != UNLABELED and label not in {NORMAL_CLASS, UNLABELED}


def _label(file: Path, row: _Row) -> str:
    label = row["label"]
    if not label:
        return UNLABELED
    if label.lower() in _NORMAL:
        return NORMAL_CLASS
    if label.lower() in _ABNORMAL:
        return _ABNORMAL[label.lower()]
    if label.lower().startswith(_PREFIX) and len(label) > len(_PREFIX):
        return label[len(_PREFIX) :]
    raise _error(
        file,
        row.number,
        f"has the label {label!r}",
        "normal or abnormal (or 0 or 1), abnormal:<class>, or nothing for an unlabeled image",
    )


def _inside(file: Path, row: _Row, column: str, root: Path) -> ImageAddress:
    """Resolve a path of the manifest, which must stay below the root."""
    address = ImageAddress.parse(root / row[column])
    if not address.path.resolve().is_relative_to(root.resolve()):
        found = f"names the {column} {row[column]!r}, which is outside {root}"
        raise _error(file, row.number, found, "a path below it")
    if not address.path.is_file():
        msg = f"{file}, line {row.number}: there is no file {address.path} ({column} {row[column]!r})."
        raise FileNotFoundError(msg)
    return address


def _error(file: Path, number: int, found: str, expected: str) -> ManifestError:
    return ManifestError(f"{file}, line {number}: this row {found}; expected {expected}.")
