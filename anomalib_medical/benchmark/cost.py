"""What a trained model costs: parameters, size, and how long one image takes in torch and in OpenVINO."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from anomalib.models.components import AnomalibModule
from torch import nn

from anomalib_medical.benchmark.records import Cost, Latency

_WARM_UP = 3
_LONGEST_SECONDS = 30.0


def measure_cost(model: AnomalibModule, image: torch.Tensor, repeats: int, threads: int) -> Cost:
    """Measure size and latency.

    Args:
        model: A trained model.
        image: ``(1, 3, H, W)`` in [0, 1], an image of the data at its own size.
        repeats: Timed repeats; fewer where they would take more than half a minute.
        threads: Threads of OpenVINO, as many as torch has.
    """
    model = model.eval()
    network: nn.Module = model.model
    tensors = [*network.parameters(), *network.buffers()]
    latency: dict[str, Latency] = {}
    not_measured: dict[str, str] = {}
    for name, measure in (("torch", _torch_latency), ("openvino", _openvino_latency)):
        try:
            latency[name] = measure(model, image, repeats, threads)
        except Exception as error:  # noqa: BLE001 - whatever fails here must not cost a finished training its scores
            not_measured[f"latency.{name}"] = f"{type(error).__name__}: {_first_line(error)}"
    return Cost(
        latency=latency,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        model_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        not_measured=not_measured,
    )


def peak_memory_mib() -> float:
    """Largest resident memory that this process has had, in MiB."""
    if os.name == "nt":
        return float(psutil.Process().memory_info().peak_wset) / 2**20
    import resource
    import sys

    # Kibibytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _torch_latency(model: AnomalibModule, image: torch.Tensor, repeats: int, threads: int) -> Latency:
    del threads  # torch has them already
    device = model.device
    image = image.to(device)

    def run() -> None:
        model(image)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch.inference_mode():
        return _time(run, repeats, str(device))


def _openvino_latency(model: AnomalibModule, image: torch.Tensor, repeats: int, threads: int) -> Latency:
    from anomalib_medical.edge.few_shot_device import openvino_core

    device = model.device
    with tempfile.TemporaryDirectory() as folder:
        # Exporting changes nothing in the model but its device.
        path = model.cpu().to_openvino(Path(folder))
        model.to(device)
        core = openvino_core()
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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
