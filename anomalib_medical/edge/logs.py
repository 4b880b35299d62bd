"""The log, as text or as JSON lines. It names images by their content, and quotes nothing of a header."""

from __future__ import annotations

import json
import logging
import sys
import threading
import traceback
import warnings
from datetime import UTC, datetime
from types import TracebackType

FORMATS = ("text", "json")
_LIBRARIES = ("PIL", "dicomweb_client", "highdicom", "nibabel", "pydicom", "pynetdicom", "tifffile", "urllib3")
_Error = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class JsonLines(logging.Formatter):
    """An object a line: `time` (ISO 8601, UTC), `level`, `message`, and of an error its kind and place as `error`."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; an error's own words, which may quote a header, are left out."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        content = {"time": time, "level": record.levelname.lower(), "message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            content["error"] = _kind_and_place(record.exc_info)
        return json.dumps(content)


def start_log(kind: str) -> None:
    """Log to standard error, and keep what libraries say of files out of it: it may quote names from headers.

    As JSON, errors that nobody foresaw become a line too, instead of a traceback with their words.
    """
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonLines() if kind == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    warnings.simplefilter("ignore")
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if kind == "json":
        sys.excepthook = lambda *error: _unforeseen(error)
        threading.excepthook = lambda args: _unforeseen((args.exc_type, args.exc_value, args.exc_traceback))


def _unforeseen(error: _Error) -> None:
    logging.getLogger("edge").critical("An error that was not foreseen.", exc_info=error)  # type: ignore[arg-type]


def _kind_and_place(error: _Error) -> str:
    place = traceback.extract_tb(error[2])[-1:]
    where = "".join(f" in {frame.name}, {frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in place)
    return f"{error[0].__name__ if error[0] else ''}{where}"
