"""What the headers of a dataset's files say, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pandas import DataFrame
from tqdm import tqdm

from anomalib_medical.data.patients import file_facts, identify_patients
from anomalib_medical.data.samples import METADATA

# From here on somebody waits.
_MANY_FILES = 2000


def read_headers(paths: Sequence[str]) -> tuple[list[str | None], DataFrame]:
    """Read the headers of files; only DICOM says anything.

    Args:
        paths: The files.

    Returns:
        Pseudonym of each file's patient (None if unknown), and the columns ``meta_*``, ``""`` where a file does not
        say.

    Raises:
        ImageReadError: If a header cannot be read.
    """
    facts = [
        file_facts(Path(path))
        for path in tqdm(paths, desc="Reading headers", unit="file", disable=len(paths) < _MANY_FILES)
    ]
    metadata = DataFrame([{f"{METADATA}{name}": value for name, value in fact.metadata.items()} for fact in facts])
    return identify_patients(facts), metadata.fillna("")
