"""How a service is asked to end."""

from __future__ import annotations

import signal
from types import FrameType


class Stop:
    """After SIGTERM, what is under way is finished, and no more is begun; a second one, or Ctrl-C, ends it at once.

    Attributes:
        requested: Whether to end.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> Stop:
        """Listen to the signal until the end of the block."""
        self._before = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        signal.signal(signal.SIGTERM, self._before)

    def _request(self, number: int, frame: FrameType | None) -> None:
        # Nothing is logged here: the signal may have come in the middle of a line.
        del number, frame
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
