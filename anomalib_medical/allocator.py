"""How this process's memory is allocated."""

import ctypes
import sys

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_TOP_PAD_BYTES = 64 * 2**20


def keep_freed_memory() -> None:
    """Let this process keep memory that it frees, until it ends: the next step takes the same pages again.

    glibc gives large arrays back to the system when they are freed; a training step on a CPU asks for the same ones
    again and waits for the system to empty their pages. Does nothing without glibc. As environment variables:
    ``MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1 MALLOC_TOP_PAD_=67108864``.
    """
    if sys.platform != "linux":
        return
    if (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_TOP_PAD, _TOP_PAD_BYTES)):
            mallopt(option, value)
