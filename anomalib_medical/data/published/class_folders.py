"""Listing the images of published datasets: a folder a class, or a table of names."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from pathlib import Path

from anomalib.data.utils import LabelName
from pandas import DataFrame

from anomalib_medical.data.checks import refuse_duplicates, require_images, row_error
from anomalib_medical.data.entries import NORMAL_CLASS
from anomalib_medical.data.published.dataset import NO_SPLIT
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import Listing, composed, counted, list_folder, on_disk

logger = logging.getLogger(__name__)

_PLAIN_NAME = re.compile(r"[\w-][\w.-]*")


class ClassFolderError(MedicalError, ValueError):
    """Folders of a published dataset that cannot be used as they are."""


def image_row(
    path: Path,
    root: Path,
    label: str,
    *,
    split: str = NO_SPLIT,
    patient: str | None = None,
    mask: Path | None = None,
) -> dict[str, str | int]:
    """Build the row of an image in a published dataset's table.

    Args:
        path: The image.
        root: The dataset's folder: images of unknown patients are patients of their own, named by their path below it.
        label: The class; ``good`` is normal.
        split: The part, ``""`` if the files do not say.
        patient: The patient, None if unknown.
        mask: The mask, None if there is none.
    """
    return {
        "image_path": str(path),
        "split": split,
        "label": label,
        "label_index": int(LabelName.NORMAL if label == NORMAL_CLASS else LabelName.ABNORMAL),
        "mask_path": "" if mask is None else str(mask),
        "patient_id": path.relative_to(root).with_suffix("").as_posix() if patient is None else patient,
    }


def list_class_folders(folder: Path, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Listing]:
    """List what the folder of each class holds.

    Args:
        folder: Holds a folder a class.
        required: Classes that must have images.
        optional: Classes that may be there.

    Returns:
        What is at any depth of each class's folder, by the class's name as given here.

    Raises:
        ClassFolderError: If there is a folder of another name, whose label nobody knows.
        FileNotFoundError: If a required class has no images.
    """
    known = (*required, *optional)
    folders = sorted(child.name for child in folder.iterdir() if child.is_dir()) if folder.is_dir() else []
    unknown = [name for name in folders if name not in known and not name.startswith(".")]
    if unknown:
        msg = (
            f"{folder} has the folder {unknown[0]!r}, whose label is unknown; expected {', '.join(known)}. Rename it, "
            "or move it elsewhere."
        )
        raise ClassFolderError(msg)
    listings = {name: list_folder(folder / name) for name in known}
    empty = [name for name in required if not listings[name].images]
    if empty:
        msg = f"No images in {folder / empty[0]}; expected some of each of {', '.join(required)}. Complete the data."
        raise FileNotFoundError(f"{msg} {listings[empty[0]].left_out()}".strip())
    return listings


def images_named(file: Path, table: DataFrame, column: str, folder: Path, suffix: str) -> list[Path]:
    """Return the files of the images that a table names; those that it does not name are counted in the log.

    Args:
        file: Where the table is from, for errors.
        table: What ``read_table`` returned.
        column: Column of the names, without suffix.
        folder: The images' folder.
        suffix: The files' suffix.

    Raises:
        TableError: If a name stands twice, or is none of a file in the folder.
        FileNotFoundError: If a file is missing.
    """
    refuse_duplicates(file, table, column)
    for line, name in table[column].items():
        if not _PLAIN_NAME.fullmatch(composed(name)):
            raise row_error(file, line, f"has the {column} {name!r}", f"the name of an image in {folder}")
    paths = [on_disk(folder / f"{name}{suffix}") for name in table[column]]
    require_images(file, folder, paths)
    if unnamed := len(set(list_folder(folder).images) - set(paths)):
        logger.warning("Left out %s in %s that %s does not name.", counted(unnamed, "image"), folder, file)
    return paths
