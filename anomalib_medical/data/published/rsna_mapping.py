"""Which NIH images, and so which patients, the images of the RSNA challenge are."""

from __future__ import annotations

import json
from pathlib import Path

from anomalib_medical.data.checks import read_table
from anomalib_medical.errors import MedicalError

MAPPING_FILE = "pneumonia-challenge-dataset-mappings_2018.json"
MAPPING_URL = f"https://s3.amazonaws.com/east1.public.rsna.org/AI/2018/{MAPPING_FILE}"


class MappingError(MedicalError, ValueError):
    """A mapping file that cannot be used as it is."""


def read_mapping(file: Path) -> dict[str, str]:
    """Read RSNA's mapping: a JSON list of objects with ``subset_img_id`` and ``img_id``, others are not looked at.

    Args:
        file: The mapping.

    Returns:
        NIH file name (such as ``00000001_000.png``) by the challenge's image id.

    Raises:
        FileNotFoundError: If there is no such file.
        MappingError: If it is not such a list.
    """
    try:
        entries = json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _error(file, f"it is not JSON text ({error})") from None
    if not isinstance(entries, list):
        raise _error(file, f"it is {type(entries).__name__}, not a list")
    names: dict[str, str] = {}
    for number, entry in enumerate(entries, start=1):
        image = entry.get("subset_img_id") if isinstance(entry, dict) else None
        name = entry.get("img_id") if isinstance(entry, dict) else None
        if not isinstance(image, str) or not isinstance(name, str) or not nih_patient(name).isdigit():
            raise _error(file, f"its entry {number} lacks a subset_img_id, or an img_id that starts with a number")
        if names.setdefault(image, name) != name:
            raise _error(file, f"its entry {number} maps an image a second time, to another")
    return names


def nih_patient(name: str) -> str:
    """Return the patient's number, which an NIH file name starts with."""
    return name.partition("_")[0]


def find_views(root: Path) -> dict[str, str]:
    """Read the views from NIH's own list, where a copy of ``Data_Entry_2017*.csv`` lies in the root.

    Args:
        root: The dataset's folder.

    Returns:
        View (such as ``PA``) by NIH file name; empty if the list is not there.

    Raises:
        TableError: If the list is damaged.
    """
    for file in sorted(root.glob("Data_Entry_2017*.csv")):
        table = read_table(file, ("Image Index", "View Position"), optional=None)
        return dict(zip(table["Image Index"], table["View Position"], strict=True))
    return {}


def _error(file: Path, found: str) -> MappingError:
    return MappingError(
        f'{file}: {found}; expected [{{"subset_img_id": "<challenge id>", "img_id": "00000001_000.png", ...}}, ...]. '
        f"Get it from {MAPPING_URL}"
    )
