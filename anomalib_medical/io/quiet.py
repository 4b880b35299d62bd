"""Silencing the libraries that read files: their warnings and log lines may quote what a header says."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet(*loggers: str) -> Generator[None, None, None]:
    """Drop warnings, and what the named loggers log.

    Args:
        loggers: Names of loggers.
    """

    def silent(record: logging.LogRecord) -> bool:
        del record
        return False

    # A filter of this call's own: two threads that read at once take away each their own.
    for name in loggers:
        logging.getLogger(name).addFilter(silent)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in loggers:
            logging.getLogger(name).removeFilter(silent)
