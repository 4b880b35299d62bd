"""The error that every reader raises for content it cannot read, and what is common on the way to it."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

# What users can do about a file.
COPY_AGAIN = "Copy or export the file again, or remove it from the data folder."
EXPORT_AGAIN = "Export the file again, or remove it from the data folder."
CORRECT_ELEMENT = "Correct the element, or export the file again."
CORRECT_HEADER = "Correct the header, or export the file again."

Errors = tuple[type[Exception], ...]
# What decoders raise on broken content; a damaged header may promise more than any memory holds.
DECODING_ERRORS: Errors = (
    *(ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error),
)


class ImageReadError(ValueError):
    """A file's content is not an image that we can read.

    Its message tells users all they need, and is its only argument: a DataLoader worker's error is rebuilt from it.
    """

    reason = ""  # the message without the file's name, which may say who it is of; empty where there is no such form

    @classmethod
    def of(cls, path: Path, found: str, expected: str, remedy: str) -> Self:
        """Build the error from what is in a file, what a readable one would hold, and what the user can do."""
        reason = f"found {found}, expected {expected}. {remedy}"
        error = cls(f"Cannot read the image {path}: {reason}")
        # A decoder's words may hold the path.
        error.reason = reason.replace(str(path), "the file")
        return error

    @classmethod
    def damaged(cls, path: Path, expected: str, reason: object = "") -> Self:
        """Build the error for a file that a decoder gives up on, for the reason that it names."""
        decoder = f"; decoder: {reason}" if str(reason) else ""
        return cls.of(path, f"a damaged or truncated file ({path.stat().st_size} bytes{decoder})", expected, COPY_AGAIN)


class NoImageError(ImageReadError):
    """A file of a readable format holds something else than an image to learn from or to score, such as a report."""

    kind = "object without an image"  # in the words of the standard


class ArchiveError(ValueError):
    """Many files, or a part of them, cannot be gone through as asked; the message says what to do."""


@contextmanager
def quiet(*loggers: str) -> Generator[None, None, None]:
    """Drop warnings, and what the named loggers log: both may quote what a header says."""

    def silent(record: logging.LogRecord) -> bool:
        del record
        return False

    # A filter of this call's own: two threads that read at once take away each their own.
    for name in loggers:
        logging.getLogger(name).addFilter(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in loggers:
            logging.getLogger(name).removeFilter(silent)
