"""Where a published dataset comes from, and the error for one that is not on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from anomalib_medical.data.download import Archive
from anomalib_medical.errors import MedicalError

_SHOWN = 10


class DatasetNotFoundError(MedicalError, FileNotFoundError):
    """A published dataset is not where it was looked for."""


@dataclass(frozen=True)
class DatasetSource:
    """Where a published dataset comes from.

    Attributes:
        title: Its name in full.
        url: Page that describes it.
        licence: What may be done with it.
        access: How to get it: account, request, plain download.
        tree: The expected files, one a line, with ``<root>``.
        archives: What can be downloaded without an account; unpacked into the root. Empty where there is no such.
    """

    title: str
    url: str
    licence: str
    access: str
    tree: str
    archives: tuple[Archive, ...] = ()

    def not_found(self, root: Path) -> DatasetNotFoundError:
        """Build the error for a root without the dataset.

        Args:
            root: Where it was looked for.
        """
        download = "\nOr let us download it, if you accept its licence: set download=true." if self.archives else ""
        return DatasetNotFoundError(
            f"{self.title} is not in {root}: {_describe(root)}\n"
            f"Source: {self.url}\nLicence: {self.licence}\nHow to get it: {self.access}{download}\n"
            f"Expected:\n{self.tree.strip()}"
        )


def _describe(root: Path) -> str:
    if not root.exists():
        return "there is no such folder."
    if not root.is_dir():
        return "it is a file, expected a folder."
    names = sorted(child.name for child in root.iterdir())
    if not names:
        return "the folder is empty."
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"found only {', '.join(names[:_SHOWN])}{more}."
