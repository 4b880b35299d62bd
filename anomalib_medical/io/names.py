"""Names of files: those that Unicode spells in two ways, and those that are no text."""

from __future__ import annotations

import os
import unicodedata
from functools import lru_cache
from pathlib import Path


def composed(name: str) -> str:
    """Return the one spelling (NFC) by which names are compared: a copy from macOS may have brought the other one."""
    return unicodedata.normalize("NFC", name)


def on_disk(path: Path) -> Path:
    """Return the path as the disk spells it; as it is where the disk has it so, or has no such file."""
    if str(path).isascii() or os.path.lexists(path) or path.parent == path:
        return path
    folder = on_disk(path.parent)
    try:
        names = _names_in(folder, folder.stat().st_mtime_ns)
    except OSError:
        return path
    name = names.get(composed(path.name))
    return path if name is None else folder / name


@lru_cache(maxsize=8)
def _names_in(folder: Path, changed: int) -> dict[str, str]:
    del changed
    return {composed(path.name): path.name for path in sorted(folder.iterdir(), reverse=True)}


def readable(text: str) -> str:
    r"""Return text that every reader of UTF-8 takes: bytes of a name that are none become ``\udce9`` and the like."""
    return text.encode("utf-8", errors="backslashreplace").decode()
