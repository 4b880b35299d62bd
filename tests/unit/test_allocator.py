"""What a process frees it keeps, where the C library is glibc."""

import platform
import subprocess
import sys

import pytest

from anomalib_medical import allocator
from anomalib_medical.cli import main as command_line

# Pages that the system had to give, in ten rounds of what a training step does: large arrays, made and dropped.
SCRIPT = """
import resource, runpy, sys
import numpy as np
if len(sys.argv) > 1:
    runpy.run_path(sys.argv[1])["keep_freed_memory"]()

def step():
    arrays = [np.empty(size, np.uint8) for size in (2**20, 2**24, 2**27)]
    for array in arrays:
        array[::4096] = 1

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages(*arguments: str) -> int:
    return int(subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told anything")
def test_a_step_gets_the_pages_of_the_last_one():
    assert pages() > 1000
    assert pages(allocator.__file__) < 100


def test_every_command_keeps_what_it_frees(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(command_line, "keep_freed_memory", lambda: calls.append(1))
    with pytest.raises(SystemExit):
        command_line.main(["--version"])
    assert calls == [1]
    capsys.readouterr()


def test_a_system_with_another_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda _: object())
    allocator.keep_freed_memory()
    monkeypatch.setattr(allocator.sys, "platform", "darwin")
    monkeypatch.setattr(allocator.ctypes, "CDLL", None)
    allocator.keep_freed_memory()
