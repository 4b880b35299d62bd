"""Finding the images in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from anomalib_medical.data.io.reader import IMAGE_SUFFIXES


def list_images(folder: Path) -> list[Path]:
    """List image files at any depth, hidden ones (such as macOS's ``._x.png``) left out, in a fixed order."""
    found = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return sorted(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."))
