"""Files of predictions that grow under a partial name and appear under their final name only when complete."""

import csv
import itertools
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from anomalib_medical.io import first_free, numbered

STEM = "predictions"


class Prediction(NamedTuple):
    """One row; its fields are the file's columns. An empty text stands for "not known"."""

    path: str  # the image, as the data gave it
    raw_score: str  # of the model, before normalisation (anomalib's own clamps, so that extreme scores tie)
    score: str  # normalised, in [0, 1]
    label: str  # `normal` or `abnormal`, as predicted
    threshold: str  # the raw score above which an image is called abnormal
    gt_label: str  # `normal` or `abnormal`, if the data says so
    # Files of earlier versions end before these.
    patient: str = ""  # salted hash of the patient, the same within the run's folder
    uncertainty: str = ""  # how uncertain the model is of the score, if it says so: raw, larger is less certain
    series: str = ""  # salted hash of the series or volume, as in series.csv; empty of an image by itself


def check_writable(folder: Path) -> None:
    """Make `folder` and write a nameless file there; an `OSError` says which folder and what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        msg = (
            f"Cannot write predictions to {folder} ({error.strerror}). "
            "Make the folder writable or choose another with --default_root_dir."
        )
        raise type(error)(msg) from error


class PartialFile:
    """A growing file of predictions, under a name that says that it is partial; if it exists, it must be gone on with.

    Attributes:
        path: The file.
        count: Number of rows that were added.
    """

    def __init__(self, path: Path, *, go_on: bool = False) -> None:
        self.path = path
        self.count = 0
        # Names of files that are no text become text that every reader takes.
        self._file = path.open("a" if go_on else "x", encoding="utf-8", errors="backslashreplace", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n")
        if not self._file.tell():
            self._csv.writerow(Prediction._fields)

    @classmethod
    def first_free(cls, folder: Path) -> Self:
        """Open the first of `predictions_partial.csv`, `predictions_partial_1.csv`, ... that does not exist."""
        return first_free(lambda number: cls(numbered(folder, f"{STEM}_partial", number, ".csv")))

    def write(self, rows: Iterable[Prediction]) -> None:
        """Append rows and hand them to the operating system, so that a killed run keeps them."""
        rows = list(rows)
        self._csv.writerows(rows)
        self._file.flush()
        self.count += len(rows)

    def close(self) -> None:
        """Close the file; it keeps its partial name."""
        self._file.close()


def rank_path(first: Path, rank: int) -> Path:
    """Name of the partial file of process `rank`, given that of the first process."""
    return first.with_name(f"{first.stem}_rank{rank}.csv")


def claim_number(folder: Path, companion: str) -> int:
    """Make the folder `<companion>`, `<companion>_1`, ... of the first number that no predictions have either."""

    def take(number: int) -> int:
        if numbered(folder, STEM, number, ".csv").exists():
            raise FileExistsError
        numbered(folder, companion, number).mkdir()
        return number

    return first_free(take)


def publish(partial: Path, number: int = 0) -> Path:
    """Rename a complete file to the first free of `predictions.csv`, `predictions_1.csv`, ..., from `number` on."""

    def take(number: int) -> Path:
        return rename_complete(partial, numbered(partial.parent, STEM, number, ".csv"))

    return first_free(take, number)


def rename_complete(partial: Path, target: Path) -> Path:
    """Rename a complete file; a FileExistsError if the target is there, also when two runs end at once."""
    try:
        os.link(partial, target)  # unlike a rename, fails if the target exists
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if target.exists():
            raise FileExistsError from None
        partial.rename(target)
    else:
        partial.unlink()
    return target


def read_predictions(path: Path) -> list[Prediction]:
    """Rows of a file of predictions."""
    return list(each_prediction(path))


def each_prediction(path: Path) -> Iterator[Prediction]:
    """Go through the rows of a file of predictions, of any length."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        next(reader, None)
        for row in reader:
            yield Prediction(*row)


def merge_ranks(ranks: Sequence[Sequence[Prediction]], expected: int | None) -> list[Prediction]:
    """Rows of several processes, by rank, in the order of the dataset, which has `expected` images if that is known.

    The distributed sampler deals images in turn and repeats some so that every process gets equally many. From the end,
    as many rows as exceed `expected` are dropped if their path has occurred before. Only so many: two images may share
    a path (slices of a volume).
    """
    turns = itertools.zip_longest(*ranks)
    rows = [row for turn in turns for row in turn if row is not None]
    surplus = 0 if expected is None else len(rows) - expected
    occurrences = Counter(row.path for row in rows)
    kept: list[Prediction] = []
    for row in reversed(rows):
        if surplus > 0 and occurrences[row.path] > 1:
            occurrences[row.path] -= 1
            surplus -= 1
        else:
            kept.append(row)
    return kept[::-1]
