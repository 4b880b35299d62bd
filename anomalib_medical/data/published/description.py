"""What is known of a published dataset before looking at it, and the error for one that is not on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.data.download import Archive
from anomalib_medical.data.published.layouts import find_prepared, read_data_json
from anomalib_medical.data.samples import UNLABELED

_SHOWN = 10


@dataclass(frozen=True)
class PublishedCounts:
    """Images of each part in the papers."""

    train: int
    test_normal: int
    test_abnormal: int
    unlabeled_normal: int = 0
    unlabeled_abnormal: int = 0

    @classmethod
    def of(cls, samples: DataFrame) -> PublishedCounts:
        """Count what a table has."""
        kinds = list(zip(samples.split, samples.label_index, strict=True))
        parts = (("train", 0), ("test", 0), ("test", 1), (UNLABELED, 0), (UNLABELED, 1))
        return cls(*map(kinds.count, parts))

    def __str__(self) -> str:
        """Say the counts in words."""
        text = f"train {self.train}, test {self.test_normal} normal + {self.test_abnormal} abnormal"
        if self.unlabeled_normal + self.unlabeled_abnormal:
            text += f", unlabeled {self.unlabeled_normal} normal + {self.unlabeled_abnormal} abnormal"
        return text


@dataclass(frozen=True)
class PublishedSet:
    """A published dataset."""

    name: str  # of its datamodule
    title: str
    url: str  # of the page that describes it
    licence: str
    access: str  # account, request, plain download
    tree: str  # the expected files, one a line, below ``<root>``
    # Of each of these groups of files and folders one is there, where the dataset lies as its authors publish it.
    original: Sequence[Sequence[str]]
    counts: PublishedCounts
    # Names that the folder of images may have where it lies beside ``data.json``.
    prepared: Sequence[str] = ("images",)
    no_split: str = ""  # why the original files have no published split, and where that is
    archives: Sequence[Archive] = ()  # what needs no account; unpacked into the root

    def is_in(self, root: Path) -> bool:
        """Whether a folder holds the dataset in a layout that is understood."""
        return find_prepared(root, self.prepared) is not None or self._is_original(root)

    def list_images(self, root: Path, list_original: Callable[[Path], DataFrame]) -> DataFrame:
        """List the images that ``data.json`` names where it is, and those that `list_original` finds where not.

        Raises:
            FileNotFoundError: If the dataset is not there; the message says where to get it.
        """
        if images := find_prepared(root, self.prepared):
            return read_data_json(images)
        if not self._is_original(root):
            raise self.not_found(root)
        return list_original(root)

    def not_found(self, root: Path) -> FileNotFoundError:
        """Build the error for a root without the dataset."""
        download = "\nOr let us download it, if you accept its licence: set download=true." if self.archives else ""
        return FileNotFoundError(
            f"{self.title} is not in {root}: {_describe(root)}\n"
            f"Source: {self.url}\nLicence: {self.licence}\nHow to get it: {self.access}{download}\n"
            f"Expected:\n{self.tree.strip()}"
        )

    def _is_original(self, root: Path) -> bool:
        return all(first_there(root, names) for names in self.original)


def first_there(root: Path, names: Sequence[str]) -> Path | None:
    """Return the first of some files and folders that exists."""
    return next((root / name for name in names if (root / name).exists()), None)


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
