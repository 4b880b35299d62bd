"""`run`: score folders, files or lists of files, once: all of them, or one part."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from ..io import (
    FORMATS,
    STANDARD_INPUT,
    Archive,
    Listing,
    Part,
    Progress,
    begin_part,
    counted,
    group_series,
    has_image_name,
    irregular,
    is_image,
    list_folder,
)
from . import EdgeError
from .manifest import PostProcessing
from .processing import Processor
from .reading import FileResult
from .results import FAILED, PATIENTS, PREDICTIONS, SERIES, Failure, PatientRow, Row, SeriesRow, Table
from .series import SeriesScorer
from .series_rows import why_no_threshold

logger = logging.getLogger("edge")


def find_files(sources: Sequence[str], part: Part | None = None) -> Archive:
    """List the files to score, see `Archive`: those of one part, or all."""
    archive = Archive(sources, part or Part())
    folders = [Path(source) for source in sources if Path(source).is_dir()]
    # What is no image goes to the table of failures, or is counted: but alone it is nothing to score.
    if not archive.count or (part is None and len(folders) == len(sources) and not any(map(_is_image, archive))):
        others = sum(map(list_folder, folders), Listing()).left_out(names=False)
        where = "on standard input" if list(sources) == [STANDARD_INPUT] else f"in {', '.join(sources)}"
        msg = f"There is no image {where}: expected {FORMATS} files. {others}".strip()
        raise EdgeError(msg)
    return archive


def _is_image(path: Path) -> bool:
    return irregular(path) is None and (has_image_name(path) or is_image(path))


def prepare_output(output: Path) -> None:
    """Make the folder of results; results of another run are not mixed with."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        msg = f"{output} is there and not empty, and nothing is overwritten: choose another --output."
        raise EdgeError(msg)
    output.mkdir(parents=True, exist_ok=True)


def run(archive: Archive, output: Path, scorer: SeriesScorer, facts: PostProcessing, limit: int | None = None) -> int:
    """Score files, series by series, and write the tables; returns 1 if a file could not be read, or none was scored.

    The order is that of the archive, but for the files of a series, which are brought together at its first one.
    """
    total = len(archive) if limit is None else min(limit, len(archive))
    tables = Table(output, PREDICTIONS, Row), Table(output, FAILED, Failure)
    series, patients = Table(output, SERIES, SeriesRow), Table(output, PATIENTS, PatientRow)

    def files() -> Iterator[FileResult]:
        headers = tqdm(islice(archive, limit), total=total, desc="Reading headers", unit="file", disable=None)
        for result in scorer(group_series(headers)):
            if result.rows:
                series.append(result.rows)
            yield from result.files

    try:
        scored = _score(files(), total, 0, *tables)
    finally:
        # Also of a run that is stopped: as far as it came.
        if len(scorer.patients):
            patients.replace(scorer.patients)
    if series.exists and (sentence := why_no_threshold(facts)):
        logger.info("%s", sentence)
    return 1 if scored == 0 or tables[1].exists else 0


def run_part(archive: Archive, output: Path, processor: Processor, model: str, *, resume: bool) -> int:
    """Score a part with the model of this digest, or go on with it; returns 1 if a file of it could not be read.

    File by file: a series may lie in several parts, and nothing is said of it.
    """
    stems = (f"{stem}_{archive.part}" for stem in (PREDICTIONS, FAILED))
    predictions, failed = (Table(output, stem, kind) for stem, kind in zip(stems, (Row, Failure), strict=True))
    with begin_part(archive, output, [predictions.files, failed.files], model, resume=resume) as (done, files):
        if done:
            logger.info("Going on with %s: %s were done before.", archive.part, counted(done, "file"))
        _score(processor(files), len(archive), done, predictions, failed)
    return 1 if failed.exists else 0


def _score(results: Iterable[FileResult], total: int, done: int, predictions: Table, failed: Table) -> int:
    """Write the tables, say how far it is, and return how many images were scored."""
    if not predictions.exists:
        predictions.replace([])
    scored = failures = 0
    no_images: Counter[str] = Counter()
    start = time.perf_counter()
    progress = Progress(total, done)
    bar = tqdm(results, initial=done, total=total, desc="Scoring", unit="file", disable=None)
    for number, result in enumerate(bar, start=done + 1):
        if result.no_image:
            # Exports from archives bring reports and presentation states along, and earlier results.
            no_images[result.no_image] += 1
        elif result.reason:
            failures += 1
            failed.append([result.failure])
        else:
            predictions.append(result.rows)
            scored += len(result.rows)
        if bar.disable and (line := progress.line(number)):
            logger.info("%s", line)
    elapsed = time.perf_counter() - start
    counts = counted(scored, "image"), counted(total - done, "file")
    logger.info("%s of %s scored in %.1f s (%.1f a second).", *counts, elapsed, scored / max(elapsed, 1e-9))
    if no_images:
        kinds = ", ".join(f"{kind}: {count}" for kind, count in sorted(no_images.items()))
        logger.info("Not scored, since they hold no image of a patient to score: %s.", kinds)
    if failures:
        logger.error(
            "%s could not be read; %s in the output folder says why.", counted(failures, "file"), failed.files[0].name
        )
    return scored
