"""Words, ids and numbers: as sentences and JSON want them, in Unicode's one spelling, and those that name nobody."""

from __future__ import annotations

import math
import re
import unicodedata

_FLOAT = re.compile(r"(\d+)\.0+")
# What tools write in place of an id.
_NOBODY = re.compile(r"anon(ymi[sz]ed|ymous|ym)?|de-?identified|x+|n/?a|nan|none|null|unknown|removed|0+|-+|\?+")


def agree(number: float, one: str, many: str) -> str:
    """The word that a count asks for: ``agree(1, "is", "are")``."""
    return one if number == 1 else many


def counted(number: int, noun: str, plural: str = "") -> str:
    """A count and its noun: ``1 image``, ``2 images``; ``counted(2, "study", "studies")``."""
    return f"{number} {agree(number, noun, plural or f'{noun}s')}"


def finite_or_none(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None


def composed(name: str) -> str:
    """The one spelling (NFC) by which names are compared: a copy from macOS may have brought the other one."""
    return unicodedata.normalize("NFC", name)


def readable(text: str) -> str:
    r"""The text as every reader of UTF-8 takes it: bytes of a name that are none become ``\udce9`` and the like."""
    return text.encode("utf-8", errors="backslashreplace").decode()


def normalise_id(text: str) -> str:
    """The id without surrounding space, in composed Unicode, and without the ``.0`` that tables put behind it."""
    text = composed(text).strip(" \0\t\r\n\u00a0")
    number = _FLOAT.fullmatch(text)
    return number[1] if number else text


def names_nobody(identifier: str) -> bool:
    """Whether an id is what anonymisers and tables put where one is missing."""
    return _NOBODY.fullmatch(identifier.casefold()) is not None
