"""Finding the images in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from .reader import is_image

# A folder is searched by these names; of files with other names or none, such as DICOM's IM0001, the content decides.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".ima", ".nii"})
# Companions of images that are none, so that they need not be opened.
_OTHER_SUFFIXES = frozenset({".csv", ".html", ".json", ".md", ".npy", ".pdf", ".txt", ".xml", ".yaml", ".yml"})


def list_images(folder: Path) -> list[Path]:
    """List image files at any depth, in a fixed order.

    Hidden files and folders (macOS's ``._x.png``, ``.ipynb_checkpoints``) are left out, linked folders are followed. A
    DICOMDIR, which indexes a folder of DICOM files, is no image.

    Raises:
        PermissionError: If a folder cannot be listed.
    """
    return sorted(path for path in _files(folder) if _looks_like_image(path))


def _files(folder: Path) -> Iterator[Path]:
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, onerror=_refuse_forbidden, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent) / name for name in names if not name.startswith("."))


def _refuse_forbidden(error: OSError) -> None:
    if isinstance(error, PermissionError):
        raise error


def image_stem(path: Path) -> str:
    """Return the file's name without its suffix, ``.nii.gz`` being one."""
    return Path(path.name.removesuffix(".gz")).stem if path.name.lower().endswith(".nii.gz") else path.stem


def _looks_like_image(path: Path) -> bool:
    name = path.name.lower()
    if path.suffix.lower() in IMAGE_SUFFIXES or name.endswith(".nii.gz"):
        return True
    if path.suffix.lower() in _OTHER_SUFFIXES or name == "dicomdir":
        return False
    return path.is_file() and is_image(path)
