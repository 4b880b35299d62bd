"""Where a benchmark runs: devices, versions, machine, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import psutil
import torch

from anomalib_medical.benchmark.plan import PlanError
from anomalib_medical.benchmark.records import RunInfo

_PACKAGES = ("anomalib-medical", "anomalib", "torch", "torchvision", "timm", "lightning", "openvino", "numpy")


def find_devices(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Resolve the plan's devices: ``auto`` is every GPU, or the CPU without one.

    Raises:
        PlanError: If a device is not there.
    """
    gpus = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    if wanted == "auto":
        return gpus or ("cpu",)
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    there = ("cpu", *gpus)
    missing = [name for name in names if name not in there]
    if missing or not names:
        msg = f"devices: got {', '.join(map(repr, missing)) or 'none'}, this machine has {', '.join(there)}."
        raise PlanError(msg)
    return names


def describe_run(name: str) -> RunInfo:
    """Describe this run for its plan.json."""
    return RunInfo(
        name=name,
        command=shlex.join([Path(sys.argv[0]).name, *map(_portable, sys.argv[1:])]),
        commit=_commit(),
        versions={package: importlib.metadata.version(package) for package in _PACKAGES}
        | {"python": platform.python_version()},
        machine={
            "processor": _processor(),
            "cores": str(os.cpu_count()),
            "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
            "system": f"{platform.system()} {platform.machine()}",
        },
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _portable(argument: str) -> str:
    """Leave folders of this machine out of an argument: results are published."""
    option, equals, value = argument.rpartition("=")
    path = Path(value)
    if not path.is_absolute():
        return argument
    for root in (*Path(__file__).resolve().parents[1:3], Path.cwd()):
        if path.is_relative_to(root):
            return f"{option}{equals}{path.relative_to(root).as_posix()}"
    return f"{option}{equals}{path.name}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _commit() -> str:
    """Name the code that runs; uncommitted changes are told."""
    git, folder = shutil.which("git"), Path(__file__).resolve().parent
    if git is None or not any((parent / ".git").exists() for parent in folder.parents[:2]):
        return ""
    command = [git, "describe", "--always", "--dirty", "--abbrev=12"]
    result = subprocess.run(command, cwd=folder, capture_output=True, check=False, text=True)  # noqa: S603 - as above
    return result.stdout.strip()
