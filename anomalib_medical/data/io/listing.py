"""Finding the images in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from anomalib_medical.data.io.reader import is_image

# A folder is searched by these names; of files with other names or none, such as DICOM's IM0001, the content decides.
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".dcm", ".dicom", ".ima", ".nii"})
# Companions of images that are none, so that they need not be opened.
_OTHER_SUFFIXES = frozenset({".csv", ".html", ".json", ".md", ".npy", ".pdf", ".txt", ".xml", ".yaml", ".yml"})


def list_images(folder: Path) -> list[Path]:
    """List image files at any depth, hidden ones (such as macOS's ``._x.png``) left out, in a fixed order.

    A DICOMDIR, which indexes a folder of DICOM files, is no image.
    """
    found = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if not path.name.startswith(".") and _looks_like_image(path))


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
