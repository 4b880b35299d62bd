"""Measure speed, memory and size of models in torch and of their bundles' graphs, in one run.

    python benchmarks/edge_latency.py --threads 2

Scrd (resnet18, wide_resnet50_2), Ddad, D24fad, ReverseDistillation and PatchCore, with random weights and the
statistics of random images (speed does not depend on them): torch eager, OpenVINO FP32, FP16 and INT8, each in a
process of its own. An image of 256x256 in [0, 1] goes in at batch 1; score and map come out. Variants of a model take
turns in rounds, so that whatever else the machine does hits all of them; the medians of the rounds are shown.

Cold start: from starting the process to the first score, with the imports that the variant needs. Peak memory: of that
process, before the throughput is measured. Async: images a second with OpenVINO's queue of requests, THROUGHPUT hint.

The second table is of `python -m edge run` on a folder of DICOM files, with heatmaps (`edge_folder.py`).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edge_folder import ARCHIVE, RESULTS
from edge_models import MODELS, SIDE, VARIANTS, file_of

NAMES = {"torch": "torch", "fp32": "OpenVINO FP32", "fp16": "OpenVINO FP16", "int8": "OpenVINO INT8"}
OF_THE_RUNTIME = ("fp32", "int8")
WARM_UP, FEWEST = 4, 10


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument(
        "--seconds", type=float, default=3, help="of timing images one by one in a round, and side by side"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--files", type=int, default=40, help="in the folder that the runtime is measured on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        variant, path, started = args.measure
        _measure(variant, Path(path), float(started), args.threads, args.seconds)
        return
    rows: list[dict[str, Any]] = []
    folders: list[dict[str, Any]] = []
    for name in args.models:
        with tempfile.TemporaryDirectory() as folder:
            # The export needs much memory: a process of its own gives it back.
            _python("-c", f"import edge_models; edge_models.prepare({name!r}, {folder!r})")
            for variant, results in _rounds(Path(folder), args).items():
                rows.append({"model": name, "variant": variant, **_median(results)})
                print(json.dumps(rows[-1]), flush=True)
            for variant in OF_THE_RUNTIME:
                call = f"edge_folder.measure({str(Path(folder) / variant)!r}, {args.files}, {args.threads})"
                for result in json.loads(_python("-c", f"import edge_folder; {call}").splitlines()[-1]):
                    folders.append({"model": name, "variant": variant, **result})
                    print(json.dumps(folders[-1]), flush=True)
        # The last section is another script's.
        archive = args.out.read_text("utf-8").partition(ARCHIVE)[1:] if args.out.exists() else ()
        args.out.write_text("\n".join([_page(rows, folders, args), "".join(archive)]), encoding="utf-8")


def _rounds(folder: Path, args: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {
        variant: [] for variant in VARIANTS if file_of(folder, variant).exists()
    }
    for _ in range(args.rounds):
        for variant, found in results.items():
            options = ["--threads", args.threads, "--seconds", args.seconds]
            measure = ["--measure", variant, file_of(folder, variant), time.time()]
            found.append(json.loads(_python(__file__, *options, *measure).splitlines()[-1]))
    return results


def _python(*arguments: object) -> str:
    command = [sys.executable, "-W", "ignore", *map(str, arguments)]
    result = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{result.stderr[-3000:]}")
    return result.stdout


def _median(results: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(result[key] for result in results) for key in results[0]}


def _measure(variant: str, path: Path, started: float, threads: int, seconds: float) -> None:
    """Measure one variant in this process; prints JSON."""
    import numpy as np
    import psutil

    rng = np.random.default_rng(0)
    images = rng.random((8, 1, 3, SIDE, SIDE), dtype=np.float32)
    score = _torch_scorer(path, threads) if variant == "torch" else _openvino_scorer(path, threads)
    score(images[0])
    cold = time.time() - started
    for image in images[:WARM_UP]:
        score(image)
    times: list[float] = []
    while sum(times) < seconds or len(times) < FEWEST:
        begin = time.perf_counter()
        score(images[len(times) % len(images)])
        times.append(time.perf_counter() - begin)
    memory = psutil.Process().memory_info()
    # Windows calls it peak_wset; elsewhere the kernel's account is at hand.
    peak = getattr(memory, "peak_wset", None) or _peak_rss()
    result = {
        "cold_start_s": cold,
        "median_ms": 1e3 * float(np.median(times)),
        "p95_ms": 1e3 * float(np.percentile(times, 95)),
        "async_per_s": float("nan") if variant == "torch" else _throughput(path, threads, images, seconds),
        "peak_mib": peak / 2**20,
        "size_mib": sum(file.stat().st_size for file in path.parent.glob(f"{path.stem}.*")) / 2**20
        if variant != "torch"
        else path.stat().st_size / 2**20,
    }
    print(json.dumps(result))


def _torch_scorer(path: Path, threads: int) -> Any:  # noqa: ANN401 - a function
    import torch

    import anomalib_medical  # noqa: F401 - the pickled classes

    torch.set_num_threads(threads)
    # The file is ours, made a moment ago: only such a file may be unpickled.
    model = torch.load(path, weights_only=False).eval()

    def score(image: Any) -> Any:  # noqa: ANN401
        with torch.inference_mode():
            return model.model(model.pre_processor.transform(torch.from_numpy(image)))

    return score


def _openvino_scorer(path: Path, threads: int) -> Any:  # noqa: ANN401 - a function
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    return openvino.Core().compile_model(path, "CPU", options)


def _throughput(path: Path, threads: int, images: Any, seconds: float) -> float:  # noqa: ANN401 - an array
    import openvino

    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "THROUGHPUT"}
    compiled = openvino.Core().compile_model(path, "CPU", options)
    queue = openvino.AsyncInferQueue(compiled)
    for image in images[:WARM_UP]:
        queue.start_async({0: image})
    queue.wait_all()
    count, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds or count < FEWEST:
        queue.start_async({0: images[count % len(images)]})
        count += 1
    queue.wait_all()
    return count / (time.perf_counter() - begin)


def _peak_rss() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _page(rows: list[dict[str, Any]], folders: list[dict[str, Any]], args: argparse.Namespace) -> str:
    packages = ", ".join(f"{name} {version(name)}" for name in ("anomalib", "torch", "openvino", "nncf"))
    options = f"--threads {args.threads} --seconds {args.seconds:g} --rounds {args.rounds} --files {args.files}"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        "# Speed of bundles",
        "",
        f"    python benchmarks/edge_latency.py {options}",
        "",
        (
            f"{datetime.now(UTC).date()}, {os.cpu_count()} x {platform.machine()} cores, {args.threads} threads, "
            f"{packages}. Load of the machine over 1, 5 and 15 minutes at the end: {load}; this measurement alone "
            f"makes about {args.threads}. Batch 1, images of {SIDE}x{SIDE}, array in, score and map out; medians of "
            f"{args.rounds} rounds of {args.seconds:g} s."
        ),
        "",
        "| model | | median | p95 | faster than torch | async | cold start | peak memory | size |",
        "|---" * 9 + "|",
    ]
    reference = {row["model"]: row["median_ms"] for row in rows if row["variant"] == "torch"}
    lines += [
        f"| {row['model']} | {NAMES[row['variant']]} | {row['median_ms']:.1f} ms | {row['p95_ms']:.1f} ms | "
        f"{reference[row['model']] / row['median_ms']:.2f}x | "
        f"{'-' if row['variant'] == 'torch' else format(row['async_per_s'], '.1f') + '/s'} | "
        f"{row['cold_start_s']:.2f} s | {row['peak_mib']:.0f} MiB | {row['size_mib']:.1f} MiB |"
        for row in rows
    ]
    lines += [
        "",
        "## A folder of DICOM files",
        "",
        (
            f"`python -m edge run` on {args.files} uncompressed CT slices, with heatmaps. Start: from starting the "
            "command to its end, with one file, hashes of the bundle included. Reading and writing: the share of the "
            "time that scoring alone what was read before does not take. Last: shares of the cores' time."
        ),
        "",
        "| model | | files | start | images a second | scoring alone | reading and writing | read, score, write |",
        "|---" * 8 + "|",
    ]
    lines += [
        f"| {one['model']} | {NAMES[one['variant']]} | {one['side']}x{one['side']} | {one['start_s']:.2f} s | "
        f"{one['count'] / one['run_s']:.1f} | {one['count'] / one['score_s']:.1f} | "
        f"{1 - one['score_s'] / one['run_s']:.0%} | {_shares(one)} |"
        for one in folders
    ]
    return "\n".join([*lines, ""])


def _shares(result: dict[str, float]) -> str:
    read, score, whole = (result[f"{name}_cpu_s"] for name in ("read", "score", "run"))
    parts = read, score, max(0, whole - read - score)
    return ", ".join(f"{part / sum(parts):.0%}" for part in parts)


if __name__ == "__main__":
    main()
