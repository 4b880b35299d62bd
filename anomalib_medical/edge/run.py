"""`run`: score a folder, a file or a list of files, once."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from tqdm import tqdm

from ..io import FORMATS, counted, list_folder
from . import EdgeError
from .processing import Processor
from .results import FAILED, PREDICTIONS, Failure, Row, Table

logger = logging.getLogger("edge")


def find_files(source: str, limit: int | None) -> list[Path]:
    """List the files to score, the first so many of them.

    `source` is a folder, searched at any depth; a file; or ``-`` for paths on standard input, one a line.
    """
    path, others = Path(source), ""
    if source == "-":
        files = [Path(line.rstrip("\r\n")) for line in sys.stdin if line.strip()]
    elif path.is_dir():
        listing = list_folder(path)
        others = listing.left_out(names=False)
        # What is no image goes to the table of failures, or is counted: but alone it is nothing to score.
        more = (*listing.unread.values(), *listing.no_images.values()) if listing.images else ()
        files = sorted(chain(listing.images, *more))
        if files and others:
            logger.warning("%s", others)
    elif os.path.lexists(path):
        files = [path]
    else:
        msg = f"There is no file or folder {source}."
        raise EdgeError(msg)
    if not files:
        where = "on standard input" if source == "-" else f"in {source}"
        msg = f"There is no image {where}: expected {FORMATS} files. {others}".strip()
        raise EdgeError(msg)
    return files[:limit]


def prepare_output(output: Path) -> None:
    """Make the folder of results; results of another run are not mixed with."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        msg = f"{output} is there and not empty, and nothing is overwritten: choose another --output."
        raise EdgeError(msg)
    output.mkdir(parents=True, exist_ok=True)


def run(files: Sequence[Path], output: Path, processor: Processor) -> int:
    """Score files and write the tables; returns 1 if a file could not be read, or none was scored."""
    predictions, failed = Table(output, PREDICTIONS, Row), Table(output, FAILED, Failure)
    predictions.replace([])
    scored = failures = 0
    no_images: Counter[str] = Counter()
    start = time.perf_counter()
    for result in tqdm(processor(files), total=len(files), desc="Scoring", unit="file", disable=None):
        if result.no_image:
            # Exports from archives bring reports and presentation states along, and earlier results.
            no_images[result.no_image] += 1
        elif result.reason:
            failures += 1
            failed.append([result.failure])
        else:
            predictions.append(result.rows)
            scored += len(result.rows)
    elapsed = time.perf_counter() - start
    counts = counted(scored, "image"), counted(len(files), "file")
    logger.info("%s of %s scored in %.1f s (%.1f a second).", *counts, elapsed, scored / max(elapsed, 1e-9))
    if no_images:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(no_images.items()))
        logger.info("Not scored, since they hold no image of a patient to score: %s.", kinds)
    if failures:
        logger.error("%s could not be read; failed.csv in the output folder says why.", counted(failures, "file"))
    return 1 if failures or not scored else 0
