"""What is seen of a benchmark while it runs: on a terminal a bar, and the steps of running jobs; in a log the ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

_SECONDS = 0.5
# More would push what jobs said at their end off the screen.
_MOST_LINES = 8


class Screen:
    """A bar over all jobs, below it a line for each that runs, and above both, for good, how jobs ended.

    Where stderr is no terminal only the last is said, with how far the run is.

    Args:
        total: Number of jobs.
    """

    def __init__(self, total: int) -> None:
        form = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        self._bar = tqdm(total=total, unit="job", bar_format=form, dynamic_ncols=True, disable=None if total else True)
        self._lines: list[tqdm[Any]] = []
        self._total, self._ended, self._drawn = total, 0, 0.0

    def __enter__(self) -> Self:
        """Show the bar."""
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Leave the bar as it is, without the lines."""
        for line in (*self._lines, self._bar):
            line.close()

    @property
    def due(self) -> bool:
        """Whether `show` has something to do: not in a log, nor more than twice a second."""
        return not self._bar.disable and time.monotonic() - self._drawn >= _SECONDS

    def show(self, left: str, running: Sequence[str]) -> None:
        """Show what is left, in words, and a line for each running job, as far as they fit."""
        self._drawn = time.monotonic()
        lines = list(running[:_MOST_LINES])
        if more := len(running) - len(lines):
            lines[-1] = f"and {more + 1} more"
        while len(self._lines) < len(lines):
            place = len(self._lines) + 1
            self._lines.append(tqdm(bar_format="{desc}", position=place, leave=False, disable=self._bar.disable))
        while len(self._lines) > len(lines):
            self._lines.pop().close()
        width = shutil.get_terminal_size().columns - 1
        for line, text in zip(self._lines, lines, strict=True):
            line.set_description_str(f"  {text}"[:width])
        self._bar.set_postfix_str(left)

    def ended(self, said: str, left: str = "") -> None:
        """Say how a job ended, and what is left then."""
        self._ended += 1
        self._drawn = 0.0
        self._bar.set_postfix_str(left, refresh=False)
        self._bar.update()
        how_far = f"{self._ended} of {self._total}" + (f", {left}" if left else "")
        tqdm.write(f"{said} ({how_far})" if self._bar.disable else said)
