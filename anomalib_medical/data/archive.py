"""The files of an archive, read one after another: what cannot be read is handed on, and does not end the run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from torch.utils.data import IterableDataset

from anomalib_medical.data.batch import MedicalImageBatch, MedicalImageItem, collate
from anomalib_medical.data.dataset import predict_item
from anomalib_medical.io import Archive, ImageReadError, NoImageError, Slicing, Window, list_pictures


class Unreadable(NamedTuple):
    """A file that could not be read, and how many pictures came before it."""

    pictures: int
    path: Path
    reason: str


class ArchiveDataset(IterableDataset[MedicalImageItem]):
    """The pictures of a part's files, in their order, as `MedicalPredictDataset` has those of a folder.

    Args:
        archive: The files.
        window: Which values of DICOM and NIfTI files become black and white, see ``read_image``.
        slicing: How volumes become slices; all axial slices if None.

    Attributes:
        files: The files to read: all of the archive's, until somebody knows that some are done.
        read: Number of files that were read, or could not be.
        unreadable: What could not be read, for somebody to take away.
    """

    def __init__(self, archive: Archive, window: Window | None = None, slicing: Slicing | None = None) -> None:
        self.archive = archive
        self.window = window
        self.slicing = slicing
        self.name: str | None = None
        self.files: Iterable[Path] = archive
        self.read = 0
        self.unreadable: deque[Unreadable] = deque()

    def __iter__(self) -> Iterator[MedicalImageItem]:
        """Read the pictures; objects that hold no image to score are passed over."""
        pictures = 0
        for path in self.files:
            try:
                for address in list_pictures(path, self.slicing):
                    item = predict_item(address, self.window)
                    pictures += 1
                    yield item
            except NoImageError:
                pass
            except (ImageReadError, OSError, MemoryError) as error:
                reason = getattr(error, "reason", "") or getattr(error, "strerror", None) or type(error).__name__
                self.unreadable.append(Unreadable(pictures, path, reason))
            self.read += 1

    @property
    def collate_fn(self) -> Callable[[list[MedicalImageItem]], MedicalImageBatch]:
        """Collate images, see `MedicalPredictDataset`."""
        return collate
