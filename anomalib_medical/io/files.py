"""What is written of files and numbers, whoever writes it."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

from .address import ImageAddress


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def picture_sha256(address: ImageAddress) -> str:
    """SHA-256 of a picture's file, with the frame or slice behind ``#`` where the file holds many."""
    return str(replace(address, path=Path(sha256(address.path))))


def finite_or_none(value: float) -> float | None:
    """The number, or None for NaN and infinity, which JSON does not have."""
    return float(value) if math.isfinite(value) else None
