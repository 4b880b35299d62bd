"""Decoded volumes are kept, so that a volume is not unpacked again for each of its slices."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock

# Room for two of the larger CTs. Each process has its own: with DataLoader workers, each of them.
DEFAULT_LIMIT = 512 * 2**20


class VolumeCache:
    """Unpacked files; those used longest ago make room before the limit is passed.

    One is unpacked at a time, by whichever thread comes first. A forked process (a DataLoader worker) starts empty.

    Args:
        limit: Bytes that all together may take.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self.clear()
        if hasattr(os, "register_at_fork"):
            # The fork may come while another thread holds the lock or moves entries.
            os.register_at_fork(after_in_child=self.clear)

    def clear(self) -> None:
        """Forget everything."""
        self._lock = Lock()
        self._buffers: OrderedDict[Hashable, bytearray] = OrderedDict()

    @property
    def bytes(self) -> int:
        """What is taken now."""
        return sum(len(buffer) for buffer in self._buffers.values())

    def get(self, key: Hashable, size: int, unpack: Callable[[], bytearray]) -> bytearray:
        """Return what belongs to a key.

        Args:
            key: What is unpacked.
            size: Its bytes; room is made for it beforehand. What is larger than the limit is returned and not kept.
            unpack: Called if it is not there.
        """
        with self._lock:
            if key in self._buffers:
                self._buffers.move_to_end(key)
                return self._buffers[key]
            if size > self.limit:
                return unpack()
            while self.bytes + size > self.limit:
                self._buffers.popitem(last=False)
            return self._buffers.setdefault(key, unpack())
