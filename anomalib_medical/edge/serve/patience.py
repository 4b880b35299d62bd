"""Waiting longer after each failure."""

from __future__ import annotations

import time


class Patience:
    """Says when to try again: after 1 s, 2 s, 4 s, at last every `longest` seconds, on a clock that nobody sets."""

    def __init__(self, longest: float = 300.0, first: float = 1.0) -> None:
        self._first, self._longest = first, longest
        self._next = -float("inf")
        self.failures = 0

    @property
    def is_over(self) -> bool:
        """Whether it is time to try."""
        return time.monotonic() >= self._next

    def failed(self) -> float:
        """Take a failure into account; returns the seconds to wait."""
        wait = min(self._first * 2.0 ** min(self.failures, 30), self._longest)
        self.failures += 1
        self._next = time.monotonic() + wait
        return wait

    def succeeded(self) -> None:
        """Forget the failures."""
        self.failures, self._next = 0, -float("inf")
