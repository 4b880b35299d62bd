"""Names of files and patients: what Unicode spells in two ways, what is no text, and what names nobody."""

from __future__ import annotations

import os
import re
import unicodedata
from functools import lru_cache
from pathlib import Path

_FLOAT = re.compile(r"(\d+)\.0+")
# What tools write in place of an id.
_NOBODY = re.compile(r"anon(ymi[sz]ed|ymous|ym)?|de-?identified|x+|n/?a|nan|none|null|unknown|removed|0+|-+|\?+")


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


def normalise_id(text: str) -> str:
    """Return an id without surrounding space, in composed Unicode, and without the ``.0`` that tables put behind it."""
    text = unicodedata.normalize("NFC", text).strip(" \0\t\r\n\u00a0")
    number = _FLOAT.fullmatch(text)
    return number[1] if number else text


def names_nobody(identifier: str) -> bool:
    """Whether an id is what anonymisers and tables put where one is missing."""
    return _NOBODY.fullmatch(identifier.casefold()) is not None
