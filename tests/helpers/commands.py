"""Running the command line: in fresh processes, or in this one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from anomalib_medical.cli import main as cli


def start(program: str, *arguments: object, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Run a console script of the environment the tests run in."""
    command = [str(Path(sys.executable).with_name(program)), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )


def succeed(program: str, *arguments: object, cwd: Path) -> str:
    """Run a console script that must succeed; returns all it printed."""
    result = start(program, *arguments, cwd=cwd)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout + result.stderr


def fail(capsys, *arguments: object) -> str:
    """Run `anomalib-medical` in this process, which must fail with one line; returns it."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    assert stop.value.code == 1
    shown = capsys.readouterr().err
    assert "Traceback" not in shown
    (error,) = [line for line in shown.splitlines() if line.startswith("error: ")]
    return error
