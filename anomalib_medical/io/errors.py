"""The error that every reader raises for content it cannot read."""

from __future__ import annotations

from pathlib import Path
from typing import Self


class ImageReadError(ValueError):
    """A file's content is not an image that we can read.

    Its message tells users all they need, and is its only argument: a DataLoader worker's error is rebuilt from it.

    Attributes:
        reason: The message without the file's name, which may say who it is of; empty where there is no such form.
    """

    reason = ""

    @classmethod
    def of(cls, path: Path, *, found: str, expected: str, remedy: str) -> Self:
        """Build the error.

        Args:
            path: The file.
            found: What is in it.
            expected: What a readable file would hold.
            remedy: What the user can do.
        """
        reason = f"found {found}, expected {expected}. {remedy}"
        error = cls(f"Cannot read the image {path}: {reason}")
        # A decoder's words may hold the path.
        error.reason = reason.replace(str(path), "the file")
        return error


class NoImageError(ImageReadError):
    """A file of a readable format holds something else than an image to learn from or to score, such as a report.

    Attributes:
        kind: What it holds, in the words of the standard.
    """

    kind = "object without an image"
