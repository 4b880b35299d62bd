"""The error that every reader raises for content it cannot read."""

from __future__ import annotations

from pathlib import Path


class ImageReadError(ValueError):
    """A file's content is not an image that we can read.

    Its message tells users all they need, and is its only argument: a DataLoader worker's error is rebuilt from it.
    """

    @classmethod
    def of(cls, path: Path, *, found: str, expected: str, remedy: str) -> ImageReadError:
        """Build the error.

        Args:
            path: The file.
            found: What is in it.
            expected: What a readable file would hold.
            remedy: What the user can do.
        """
        return cls(f"Cannot read the image {path}: found {found}, expected {expected}. {remedy}")


class NoImageError(ImageReadError):
    """A file of a readable format holds something else than an image, such as a DICOM report."""
