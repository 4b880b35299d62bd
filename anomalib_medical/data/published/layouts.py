"""Listing the images of published datasets: a folder a class, a table of names, or the prepared `data.json`.

``data.json`` is ``{"train": {"0": [...], "unlabeled": {"0": [...], "1": [...]}}, "test": {"0": [...], "1": [...]}}``
with file names below the folder of images beside it; 0 is normal, 1 abnormal, and ``unlabeled`` may be left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anomalib.data.utils import LabelName
from pandas import DataFrame, Series

from anomalib_medical.data.checks import json_error, read_json, refuse_duplicates, refuse_rows, require_images
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import Listing, composed, counted, list_folder, on_disk

logger = logging.getLogger(__name__)

NO_SPLIT = ""
_PLAIN_NAME = r"[\w-][\w.-]*"

DATA_JSON = "data.json"
_LABELS = {"0": NORMAL_CLASS, "1": "abnormal"}
# The objects in the file; None stands for a list of names.
_LISTS = {"0": None, "1": None}
_CONTENT = {"train": {"0": None, UNLABELED: _LISTS}, "test": _LISTS}
_EXPECTED = (
    '{"train": {"0": [...], "unlabeled": {"0": [...], "1": [...]}}, "test": {"0": [...], "1": [...]}} with the file '
    "names of normal (0) and abnormal (1) images"
)


def image_row(
    path: Path, label: str, patient: str, *, split: str = NO_SPLIT, mask: Path | None = None
) -> dict[str, str | int]:
    """Build the row of an image in a published dataset's table; the label ``good`` is normal."""
    return {
        "image_path": str(path),
        "split": split,
        "label": label,
        "label_index": int(LabelName.NORMAL if label == NORMAL_CLASS else LabelName.ABNORMAL),
        "mask_path": "" if mask is None else str(mask),
        "patient_id": patient,
    }


def own_patient(path: Path, root: Path) -> str:
    """Name an image of an unknown patient as a patient of its own, wherever the data lies."""
    return path.relative_to(root).with_suffix("").as_posix()


def image_names(samples: DataFrame) -> Series[str]:
    """Return the names of a table's images, without folder and suffix."""
    return samples.image_path.map(lambda path: Path(path).stem)


def list_class_folders(folder: Path, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Listing]:
    """List what is at any depth of each class's folder, and refuse folders of other names, whose label nobody knows."""
    known = (*required, *optional)
    folders = sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    if unknown := [name for name in folders if name not in known and not name.startswith(".")]:
        msg = (
            f"{folder} has the folder {unknown[0]!r}, whose label is unknown; expected {', '.join(known)}. Rename it, "
            "or move it elsewhere."
        )
        raise MedicalError(msg)
    return {name: list_images(folder / name, required=name in required) for name in known}


def list_images(folder: Path, *, required: bool = True) -> Listing:
    """List what is at any depth of a folder, and refuse one without images if some are required."""
    listing = list_folder(folder)
    if required and not listing.images:
        msg = f"No images in {folder}. Complete the data. {listing.left_out()}".strip()
        raise FileNotFoundError(msg)
    return listing


def images_named(file: Path, table: DataFrame, column: str, folder: Path, suffix: str) -> list[Path]:
    """Return the files of the images that a table names, all of which must be there, in the folder and named once.

    Images that it does not name are counted in the log.
    """
    refuse_duplicates(file, table, column)
    wrong = ~table[column].map(composed).str.fullmatch(_PLAIN_NAME)
    refuse_rows(file, table, wrong, f"has the {column} {{{column}!r}}", f"the name of an image in {folder}")
    paths = [on_disk(folder / f"{name}{suffix}") for name in table[column]]
    require_images(file, folder, paths)
    if unnamed := len(set(list_folder(folder).images) - set(paths)):
        logger.warning("Left out %s in %s that %s does not name.", counted(unnamed, "image"), folder, file)
    return paths


def find_prepared(root: Path, folders: Sequence[str] = ("images",)) -> Path | None:
    """Return the first of the folders that lies beside ``data.json``; None if there is none, or no ``data.json``."""
    images = (root / name for name in folders if (root / name).is_dir() and (root / DATA_JSON).is_file())
    return next(images, None)


def read_data_json(images: Path) -> DataFrame:
    """Read what ``data.json`` says of each image in the folder beside it; it may name none twice and none elsewhere.

    The label is ``"good"`` or ``"abnormal"``, and every image is its own patient.
    """
    file = images.parent / DATA_JSON

    def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise json_error(file, f"the key {key!r} stands twice in one object", "each key once")
        return dict(pairs)

    rows = []
    seen: dict[Path, str] = {}
    folder = images.resolve()
    for keys, name in _names(file, read_json(file, _EXPECTED, without_repeats)):
        part = "/".join(keys)
        path = on_disk(images / name)
        # A link may point outside too.
        if Path(name).is_absolute() or ".." in Path(name).parts or not path.resolve().is_relative_to(folder):
            raise json_error(file, f"{part} names {name!r}, which is outside {images}", "names of files below it")
        if path in seen:
            raise json_error(file, f"{name!r} is in {seen[path]} and in {part}", "each image once")
        seen[path] = part
        # The patient is as spelled in the file, which is the same on every disk.
        rows.append(image_row(path, _LABELS[keys[-1]], Path(name).with_suffix("").as_posix(), split=keys[-2]))
    if not rows:
        raise json_error(file, "it lists no images", _EXPECTED)
    require_images(file, images, seen)
    return DataFrame(rows)


def _names(
    file: Path, content: object, expected: Mapping[str, Any] | None = _CONTENT, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each name and the keys that lead to its list; where ``expected`` is None there must be a list of names."""
    where = "/".join(keys) or "the file"
    if expected is None:
        if not isinstance(content, list):
            raise json_error(file, f"{where} is {type(content).__name__}, not a list of names", _EXPECTED)
        for name in content:
            if not isinstance(name, str) or not name:
                raise json_error(file, f"{where} holds {name!r}", "file names")
            yield keys, name
        return
    if not isinstance(content, dict):
        raise json_error(file, f"{where} is {type(content).__name__}, not an object", _EXPECTED)
    if unknown := sorted(content.keys() - expected.keys()):
        known = f"{' and '.join(sorted(expected))}: {_EXPECTED}"
        raise json_error(file, f"{where} has the unknown key {unknown[0]!r}", known)
    for key, inner in expected.items():
        if key in content:
            yield from _names(file, content[key], inner, (*keys, key))
