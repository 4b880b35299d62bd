"""mercure's contract: images in `MERCURE_IN_DIR`, results and `result.json` in `MERCURE_OUT_DIR`, and exit status 0."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...io import counted, finite_or_none, group_series
from .. import EdgeError
from ..results import write_atomically
from ..series import SeriesScorer

logger = logging.getLogger("edge")

_IN, _OUT, _RESULT = "MERCURE_IN_DIR", "MERCURE_OUT_DIR", "result.json"
# Of a row of series; the worst slice's address is that of a file whose name is its series' UID.
_TOLD = ("series", "raw_score", "score", "label", "threshold", "slices", "note")


def run(make: Callable[[Path, list[Path]], SeriesScorer]) -> int:
    """Score what mercure gives, once; `make` makes a scorer for a folder of results, with a list of the objects.

    Returns 1 where a file could not be read: mercure keeps the task among its errors then.
    """
    source, target = _folder(_IN), _folder(_OUT)
    files = sorted(source.glob("*.dcm"))
    if not files:
        msg = f"There is no *.dcm in {_IN}: mercure puts the images of a series or study there."
        raise EdgeError(msg)
    with tempfile.TemporaryDirectory() as folder:
        written: list[Path] = []
        done = list(make(Path(folder), written)(group_series(files)))
        for file in written:
            write_atomically(target / file.name, file.read_bytes())
    rows = [row for each in done for row in each.rows]
    failed = sum(bool(file.reason and not file.no_image) for each in done for file in each.files)
    abnormal = sum(row.label == "abnormal" for row in rows)
    text = f"{abnormal} of {counted(len(rows), 'series', 'series')} abnormal (research only)"
    result: dict[str, Any] = {
        "series": [{name: _plain(asdict(row)[name]) for name in _TOLD} for row in rows],
        "unreadable": failed,
        "__mercure_notification": {"text": text, "requested": abnormal > 0},
    }
    # Last: mercure reads it when the module has ended.
    write_atomically(target / _RESULT, json.dumps(result, indent=2, allow_nan=False).encode())
    logger.info("%s; %s written.", text, counted(len(written), "object"))
    return 1 if failed else 0


def _folder(name: str) -> Path:
    folder = Path(os.environ.get(name, ""))
    if not os.environ.get(name) or not folder.is_dir():
        msg = f"{name} names no folder: `--mercure` is for mercure to start, which sets {_IN} and {_OUT}."
        raise EdgeError(msg)
    return folder


def _plain(value: object) -> object:
    return finite_or_none(value) if isinstance(value, float) else value
