"""What a command prints: what is ours or the user's business, once and in one form."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = "anomalib_medical"
_WRITERS = ("lightning", "lightning.fabric", "lightning.pytorch", "huggingface_hub")
# Categories of warnings that are about code or settings of libraries, never about data.
_BETWEEN_LIBRARIES = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)


class _Console(logging.Handler):
    """Writes records to stderr, above a progress bar if there is one."""

    def __init__(self, *, verbose: bool) -> None:
        super().__init__()
        self._verbose = verbose
        if verbose:
            self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s: %(message)s", "%H:%M:%S"))

    def filter(self, record: logging.LogRecord) -> bool:
        """Let through what is ours, and of others what is more than information."""
        ours = record.name.partition(".")[0] == _OURS
        return self._verbose or ours or record.levelno >= logging.WARNING

    def format(self, record: logging.LogRecord) -> str:
        """The message, with its level if that is of interest."""
        text = super().format(record)
        return text if self._verbose or record.levelno < logging.WARNING else f"{record.levelname.lower()}: {text}"

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        show(self.format(record))


@contextmanager
def without_their_handlers() -> Iterator[None]:
    """Leave records to the console alone: Lightning and the hub's client write theirs once more themselves."""
    loggers = [logging.getLogger(name) for name in _WRITERS]
    before = [(each, list(each.handlers), each.propagate) for each in loggers]
    for each in loggers:
        each.handlers, each.propagate = [], True
    try:
        yield
    finally:
        for each, handlers, propagate in before:
            each.handlers, each.propagate = handlers, propagate


def show(line: str) -> None:
    """Write a line to stderr, above a progress bar if there is one."""
    # Names of files that are no text, whatever stands in for stderr.
    line = line.encode("utf-8", "backslashreplace").decode()
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr)


@contextmanager
def console(*, verbose: bool) -> Iterator[None]:
    """Print within a command what users want to know; with ``verbose`` all that any library says.

    What was set before is set again at the end. Deprecations between libraries and Lightning's hints are not shown,
    warnings that may be about the data are.
    """
    root, handler = logging.getLogger(), _Console(verbose=verbose)
    level = root.level
    root.setLevel(logging.INFO)
    root.addHandler(handler)
    try:
        with warnings.catch_warnings():
            if not verbose:
                for category in _BETWEEN_LIBRARIES:
                    warnings.simplefilter("ignore", category)
                # Of Lightning: what may be better otherwise, such as the number of workers.
                warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning\.")
                # anomalib's engine asks for pinned memory whatever the device is.
                warnings.filterwarnings("ignore", category=UserWarning, message="'pin_memory' argument")
                warnings.showwarning = lambda message, *_, **__: show(f"warning: {message}")
            yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
