"""Where a benchmark runs, and what a model costs there: devices, versions, memory, latency in torch and OpenVINO."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from anomalib.models.components import AnomalibModule

from anomalib_medical.benchmark.records import Cost, Latency, RunInfo
from anomalib_medical.errors import MedicalError

_PACKAGES = ("anomalib-medical", "anomalib", "torch", "torchvision", "timm", "lightning", "openvino", "numpy")
_WARM_UP = 3
_LONGEST_SECONDS = 30.0


def find_devices(wanted: str | Sequence[str]) -> tuple[str, ...]:
    """Resolve the plan's devices: ``auto`` is every GPU, or the CPU without one.

    Raises:
        MedicalError: If a device is not there.
    """
    gpus = tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
    if wanted == "auto":
        return gpus or ("cpu",)
    names = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    there = ("cpu", *gpus)
    missing = [name for name in names if name not in there]
    if missing or not names:
        msg = f"devices: got {', '.join(map(repr, missing)) or 'none'}, this machine has {', '.join(there)}."
        raise MedicalError(msg)
    return names


def describe_run(name: str) -> RunInfo:
    """Describe this run, of a plan of this name."""
    return RunInfo(
        name=name,
        command=shlex.join([Path(sys.argv[0]).name, *map(_portable, sys.argv[1:])]),
        commit=_commit(),
        versions={package: importlib.metadata.version(package) for package in _PACKAGES}
        | {"python": platform.python_version()},
        machine=describe_machine(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def describe_machine() -> dict[str, str]:
    """Describe this machine, without its name."""
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "system": f"{platform.system()} {platform.machine()}",
    }


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
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _commit() -> str:
    """Name the code that runs; uncommitted changes are told."""
    git, folder = shutil.which("git"), Path(__file__).resolve().parent
    if git is None or not any((parent / ".git").exists() for parent in folder.parents[:2]):
        return ""
    command = [git, "describe", "--always", "--dirty", "--abbrev=12"]
    result = subprocess.run(command, cwd=folder, capture_output=True, check=False, text=True)  # noqa: S603 - as above
    return result.stdout.strip()


def measure_cost(cost: Cost, model: AnomalibModule, image: torch.Tensor, repeats: int) -> Cost:
    """Add size and latency to what the training cost.

    Args:
        cost: Of the training.
        model: A trained model.
        image: ``(1, 3, H, W)`` in [0, 1], an image of the data at its own size.
        repeats: Timed repeats; fewer where they would take more than half a minute.
    """
    model = model.eval()
    tensors = [*model.model.parameters(), *model.model.buffers()]
    latency: dict[str, Latency] = {}
    not_measured: dict[str, str] = {}
    for name, measure in (("torch", _torch_latency), ("openvino", _openvino_latency)):
        try:
            latency[name] = measure(model, image, repeats)
        except Exception as error:  # noqa: BLE001 - whatever fails here must not cost a finished training its scores
            reason = next(iter(str(error).strip().splitlines()), "no message")
            not_measured[f"latency.{name}"] = f"{type(error).__name__}: {reason[:300]}"
    return replace(
        cost,
        latency=latency,
        parameters=sum(parameter.numel() for parameter in model.model.parameters()),
        model_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        not_measured=not_measured,
    )


def peak_memory_mib() -> float:
    """Largest resident memory that this process has had, in MiB."""
    if os.name == "nt":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource

    # Kibibytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _torch_latency(model: AnomalibModule, image: torch.Tensor, repeats: int) -> Latency:
    device = model.device
    image = image.to(device)

    def run() -> None:
        model(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        return _time(run, repeats, str(device))


def _openvino_latency(model: AnomalibModule, image: torch.Tensor, repeats: int) -> Latency:
    from anomalib_medical.edge.few_shot_device import openvino_core
    from anomalib_medical.models.components import ONE_IMAGE

    device = model.device
    with tempfile.TemporaryDirectory() as folder:
        # Exporting changes nothing in the model but its device.
        path = model.cpu().to_openvino(Path(folder), onnx_kwargs={"dynamic_axes": ONE_IMAGE})
        model.to(device)
        if path is None:
            msg = f"{type(model).__name__} has no export in anomalib"
            raise NotImplementedError(msg)
        core = openvino_core()
        threads = torch.get_num_threads()
        hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        compiled: Any = core.compile_model(core.read_model(path), "CPU", hints)
        array = image.cpu().numpy()
        return _time(lambda: compiled(array), repeats, "cpu")


def _time(run: Callable[[], object], repeats: int, device: str) -> Latency:
    for _ in range(_WARM_UP):
        run()
    times: list[float] = []
    while len(times) < repeats and sum(times) < _LONGEST_SECONDS:
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    median, p95 = np.quantile(times, [0.5, 0.95]) * 1000
    return Latency(float(median), float(p95), len(times), device)
