"""One patient, one id, however it was written."""

from __future__ import annotations

import re
import unicodedata

_FLOAT = re.compile(r"(\d+)\.0+")
# What tools write in place of an id.
_NOBODY = re.compile(r"anon(ymi[sz]ed|ymous|ym)?|de-?identified|x+|n/?a|nan|none|null|unknown|removed|0+|-+|\?+")


def normalise_id(text: str) -> str:
    """Return an id without surrounding space, in composed Unicode, and without the ``.0`` that tables put behind it."""
    text = unicodedata.normalize("NFC", text).strip(" \0\t\r\n\u00a0")
    number = _FLOAT.fullmatch(text)
    return number[1] if number else text


def names_nobody(identifier: str) -> bool:
    """Whether an id is what anonymisers and tables put where one is missing."""
    return _NOBODY.fullmatch(identifier.casefold()) is not None
