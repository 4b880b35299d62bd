"""Files of the unlabeled pool that are copies, under other names, of images that are known or tested."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from anomalib_medical.data.entries import Entry
from anomalib_medical.data.samples import UNLABELED
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import ImageReadError, agree, counted, sha256

_SHOWN_PAIRS = 3
_SAMPLE = 4096
# Copies of test images are named first: they spoil the results.
_PARTS = {"test": "test", "val": "validation", "train": "training", "": "labelled"}


def refuse_copies(entries: Sequence[Entry]) -> None:
    """Refuse a pool that holds other images of the data set once more, byte for byte; blank images do not count."""
    pool = {entry.path.path for entry in entries if entry.split == UNLABELED}
    part_of = {entry.path.path: entry.split for entry in entries if entry.split != UNLABELED}
    ranks = list(_PARTS)
    # One original for each copy: (rank of its part, copy, original).
    pairs = sorted(
        min((ranks.index(part_of[original]), copy, original) for original in originals)
        for copy, originals in find_copies(pool, part_of).items()
    )
    # Reading stops at the first few that have something to show.
    telling = list(itertools.islice((pair for pair in pairs if not _is_blank(pair[1])), _SHOWN_PAIRS))
    if not telling:
        return
    names = ", ".join(f"{copy} = {original} ({_PARTS[ranks[rank]]})" for rank, copy, original in telling)
    more = f" and {len(pairs) - len(telling)} more" if len(pairs) > len(telling) else ""
    are = agree(len(pairs), "is a copy of another image", "are copies of other images")
    msg = (
        f"{len(pairs)} of {counted(len(pool), 'unlabeled file')} {are}, byte for byte: {names}{more}. "
        "Whoever learns from the test images cannot be tested on them, and known normals are not unlabeled: take the "
        "copies out of the pool, or set deduplicate=true, which drops them."
    )
    raise MedicalError(msg)


def find_copies(files: Iterable[Path], others: Iterable[Path]) -> dict[Path, list[Path]]:
    """Find the files that have the content of others, empty files aside, and their copies; none is one of itself.

    Only files of the same size are opened, and only those that also agree in two small pieces are read.
    """
    keys: list[dict[Path, tuple[object, ...]]] = [dict.fromkeys(paths, ()) for paths in (files, others)]
    measures: tuple[Callable[[Path], object], ...] = (_size, _sample, sha256)
    for measure in measures:
        keys = [{path: (*key, measure(path)) for path, key in side.items()} for side in keys]
        shared = set(keys[0].values()) & set(keys[1].values()) - {(0,)}
        keys = [{path: key for path, key in side.items() if key in shared} for side in keys]
    originals: dict[tuple[object, ...], list[Path]] = {}
    for path, key in keys[1].items():
        originals.setdefault(key, []).append(path)
    copies = {path: [other for other in originals[key] if other != path] for path, key in keys[0].items()}
    return {path: found for path, found in copies.items() if found}


def _size(path: Path) -> int:
    return path.stat().st_size


def _sample(path: Path) -> bytes:
    """Read the start and the middle: uncompressed files of one scanner share their size, and often their margins."""
    with path.open("rb") as file:
        start = file.read(_SAMPLE)
        file.seek(path.stat().st_size // 2)
        return start + file.read(_SAMPLE)


def _is_blank(path: Path) -> bool:
    """Whether there is nothing to learn from an image: the exports of many volumes hold the same black slice."""
    # Here, for the imports are slow and copies rare.
    from anomalib_medical.data.duplicates import is_blank
    from anomalib_medical.data.fingerprints import fingerprint

    try:
        return is_blank(fingerprint(path))
    except ImageReadError:  # one of many pictures, or damaged, which its reader will say
        return False
