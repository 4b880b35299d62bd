"""Unpacked volumes are kept within a bound, one copy a process."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest

from anomalib_medical.io.nifti_voxels import VolumeCache


class Unpacker:
    def __init__(self, size: int) -> None:
        self.size = size
        self.calls = 0

    def __call__(self) -> bytearray:
        self.calls += 1
        sleep(0.01)
        return bytearray(self.size)


def test_what_was_used_longest_ago_makes_room() -> None:
    cache = VolumeCache(limit=100)
    first, second, third = Unpacker(40), Unpacker(40), Unpacker(40)
    for key, unpack in (("first", first), ("second", second), ("first", first), ("third", third)):
        assert len(cache.get(key, 40, unpack)) == 40
        assert cache.bytes <= 100
    cache.get("first", 40, first)
    cache.get("second", 40, second)
    assert (first.calls, second.calls, third.calls) == (1, 2, 1)


def test_room_is_made_before_unpacking() -> None:
    cache = VolumeCache(limit=100)
    cache.get("first", 60, Unpacker(60))
    seen = []

    def unpack() -> bytearray:
        seen.append(cache.bytes)
        return bytearray(60)

    cache.get("second", 60, unpack)
    assert seen == [0]


def test_what_is_larger_than_the_limit_is_not_kept() -> None:
    cache = VolumeCache(limit=100)
    small, large = Unpacker(100), Unpacker(101)
    cache.get("small", 100, small)
    assert [len(cache.get("large", 101, large)) for _ in range(2)] == [101, 101]
    cache.get("small", 100, small)
    assert (small.calls, large.calls, cache.bytes) == (1, 2, 100)


def test_a_failure_is_not_kept() -> None:
    cache = VolumeCache(limit=100)

    def fail() -> bytearray:
        raise EOFError

    with pytest.raises(EOFError):
        cache.get("key", 10, fail)
    assert len(cache.get("key", 10, Unpacker(10))) == 10


def test_threads_unpack_once() -> None:
    cache, unpack = VolumeCache(limit=100), Unpacker(10)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cache.get("key", 10, unpack), range(8)))
    assert unpack.calls == 1
    assert all(buffer is found[0] for buffer in found)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_forked_process_starts_empty_and_unlocked() -> None:
    cache = VolumeCache(limit=100)
    cache.get("key", 10, Unpacker(10))

    def child() -> None:
        assert cache.bytes == 0
        assert len(cache.get("key", 20, Unpacker(20))) == 20

    process = multiprocessing.get_context("fork").Process(target=child)
    with cache._lock:
        process.start()
        process.join(20)
    alive = process.is_alive()
    process.kill()
    assert not alive
    assert process.exitcode == 0
    assert cache.bytes == 10
