"""The prepared layout of published datasets: a folder of images, and `data.json` that divides them.

``data.json`` is ``{"train": {"0": [...], "unlabeled": {"0": [...], "1": [...]}}, "test": {"0": [...], "1": [...]}}``
with file names below the folder; 0 is normal, 1 abnormal, and ``unlabeled`` may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandas import DataFrame

from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import agree, counted, on_disk

FILE = "data.json"
_LABELS = {"0": "good", "1": "abnormal"}
_EXPECTED = (
    '{"train": {"0": [...], "unlabeled": {"0": [...], "1": [...]}}, "test": {"0": [...], "1": [...]}} with the file '
    "names of normal (0) and abnormal (1) images"
)


class DataJsonError(MedicalError, ValueError):
    """A ``data.json`` that cannot be used as it is."""


@dataclass(frozen=True)
class PreparedLayout:
    """A prepared dataset on disk.

    Attributes:
        file: Its ``data.json``.
        images: The folder that its names are relative to.
    """

    file: Path
    images: Path


def find_prepared(root: Path, folders: Sequence[str] = ("images",)) -> PreparedLayout | None:
    """Find the prepared layout.

    Args:
        root: Folder that ``data.json`` is in.
        folders: Names that the image folder may have; the first that exists is taken.

    Returns:
        The layout, None if the root has no ``data.json`` or no such folder.
    """
    file = root / FILE
    images = next((root / name for name in folders if (root / name).is_dir()), None)
    return PreparedLayout(file, images) if file.is_file() and images is not None else None


def read_data_json(layout: PreparedLayout) -> DataFrame:
    """Read what ``data.json`` says of each image.

    Args:
        layout: Where it is.

    Returns:
        Columns image_path, split (``"train"``, ``"unlabeled"``, ``"test"``), label (``"good"``, ``"abnormal"``),
        label_index, and patient_id (the name without suffix: every image is its own patient until more is known).

    Raises:
        DataJsonError: If its content is not as expected, or names an image twice or outside the folder.
        FileNotFoundError: If it names an image that is not there.
    """
    rows: list[dict[str, str | int]] = []
    seen: dict[Path, str] = {}
    folder = layout.images.resolve()
    for part, split, key, name in _entries(layout.file, _load(layout.file)):
        path = _inside(layout, folder, part, name)
        if path in seen:
            raise _error(layout.file, f"{name!r} is in {seen[path]} and in {part}", "each image once")
        seen[path] = part
        rows.append(
            {
                "image_path": str(path),
                "split": split,
                "label": _LABELS[key],
                "label_index": int(key),
                "patient_id": Path(name).with_suffix("").as_posix(),
            }
        )
    if not rows:
        raise _error(layout.file, "it lists no images", _EXPECTED)
    _require_files(layout, list(seen))
    return DataFrame(rows)


def _load(file: Path) -> Any:  # noqa: ANN401 # JSON may hold anything
    try:
        return json.loads(
            file.read_text(encoding="utf-8-sig"), object_pairs_hook=lambda pairs: _no_repeats(file, pairs)
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _error(file, f"it is not JSON text ({error})", _EXPECTED) from None


def _no_repeats(file: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if repeated := {key for key in keys if keys.count(key) > 1}:
        raise _error(file, f"the key {min(repeated)!r} stands twice in one object", "each key once")
    return dict(pairs)


def _entries(file: Path, content: Any) -> Iterator[tuple[str, str, str, str]]:  # noqa: ANN401
    """Yield (part in words, split, label, file name)."""
    parts = _section(file, "the file", content, {"train", "test"})
    train = _section(file, "train", parts.get("train", {}), {"0", UNLABELED})
    yield from _names(file, "train", "train", {key: train[key] for key in train if key == "0"})
    yield from _names(file, f"train/{UNLABELED}", UNLABELED, train.get(UNLABELED, {}))
    yield from _names(file, "test", "test", parts.get("test", {}))


def _section(file: Path, where: str, content: Any, keys: set[str]) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(content, dict):
        raise _error(file, f"{where} is {type(content).__name__}, not an object", _EXPECTED)
    if unknown := sorted(set(content) - keys):
        raise _error(file, f"{where} has the unknown key {unknown[0]!r}", f"{' and '.join(sorted(keys))}: {_EXPECTED}")
    return content


def _names(file: Path, part: str, split: str, content: Any) -> Iterator[tuple[str, str, str, str]]:  # noqa: ANN401
    for key, names in _section(file, part, content, set(_LABELS)).items():
        if not isinstance(names, list):
            raise _error(file, f"{part}/{key} is {type(names).__name__}, not a list of names", _EXPECTED)
        for name in names:
            if not isinstance(name, str) or not name:
                raise _error(file, f"{part}/{key} holds {name!r}", "file names")
            yield f"{part}/{key}", split, key, name


def _inside(layout: PreparedLayout, folder: Path, part: str, name: str) -> Path:
    path = on_disk(layout.images / name)
    # A link may point outside too.
    if Path(name).is_absolute() or ".." in Path(name).parts or not path.resolve().is_relative_to(folder):
        raise _error(layout.file, f"{part} names {name!r}, which is outside {layout.images}", "names of files below it")
    return path


def _require_files(layout: PreparedLayout, paths: Sequence[Path]) -> None:
    missing = [path for path in paths if not path.is_file()]
    if missing:
        msg = (
            f"{layout.file}: {len(missing)} of {counted(len(paths), 'image')} that it names "
            f"{agree(len(missing), 'is', 'are')} not in {layout.images}, such as "
            f"{missing[0].relative_to(layout.images)}. Complete the folder, or take the names out."
        )
        raise FileNotFoundError(msg)


def _error(file: Path, found: str, expected: str) -> DataJsonError:
    return DataJsonError(f"{file}: {found}; expected {expected}.")
