"""Scrd with a teacher for the edge, a usual and the paper's: a training step on a CPU, and a score by OpenVINO.

    python benchmarks/scrd_teachers.py

Random weights, which speed does not depend on. A step (loss, gradients, Adam) is that of `step_schedules.py`, in a
process of its own, as memory is by itself and with `keep_freed_memory`, which `anomalib-medical` calls; teachers and
forms take turns in rounds. A score: image in, score and map out, FP32. Writes ``results/scrd_teachers.md``.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from step_schedules import Case, Setting, training_step

from anomalib_medical import Scrd
from anomalib_medical.allocator import keep_freed_memory
from anomalib_medical.deploy.graph import raw_graph

TEACHERS = ("tf_efficientnet_lite0", "resnet18", "wide_resnet50_2")
RESULTS = Path(__file__).resolve().parent / "results" / "scrd_teachers.md"
WARM_UP, STEPS, SCORES, ROUNDS = 1, 4, 100, 3
Row = dict[str, float]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--step", choices=TEACHERS, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.step:
        print(json.dumps(time_steps(args)))
        return
    RESULTS.write_text(page(measure(args), args), encoding="utf-8")


def time_steps(args: argparse.Namespace) -> Row:
    """Time steps in this process."""
    if args.keep:
        keep_freed_memory()
    step = training_step(Case("Scrd", args.step, args.image_size, args.batch_size), Setting(), torch.device("cpu"))
    return {"seconds": median_of(step, STEPS)}


def median_of(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of a call."""
    times = []
    for turn in range(WARM_UP + repeats):
        started = time.perf_counter()
        call()
        times += [time.perf_counter() - started] if turn >= WARM_UP else []
    return statistics.median(times)


def measure(args: argparse.Namespace) -> dict[str, Row]:
    """Medians of all rounds, by teacher."""
    found: dict[str, list[Row]] = {teacher: [] for teacher in TEACHERS}
    scorers = {teacher: scorer(teacher, args) for teacher in TEACHERS}
    for _ in range(ROUNDS):
        for teacher, rounds in found.items():
            plain, kept = (steps_elsewhere(teacher, keep, args) for keep in (False, True))
            latency = median_of(scorers[teacher], SCORES)
            rounds.append({"latency": latency, "step": plain["seconds"], "step, kept": kept["seconds"]})
            print(teacher, rounds[-1], flush=True)
    return {name: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for name, rows in found.items()}


def steps_elsewhere(teacher: str, keep: bool, args: argparse.Namespace) -> Row:
    """Time steps in a process of their own."""
    command = [sys.executable, "-W", "ignore", __file__, "--step", teacher, *(["--keep"] if keep else [])]
    for option in ("image_size", "batch_size", "threads"):
        command += [f"--{option}", str(getattr(args, option))]
    answer = subprocess.run(command, capture_output=True, check=True, text=True)
    row: Row = json.loads(answer.stdout.splitlines()[-1])
    return row


def scorer(teacher: str, args: argparse.Namespace) -> Callable[[], object]:
    """What scores an image by OpenVINO."""
    import openvino

    graph = raw_graph(Scrd(backbone=teacher, pre_trained=False, image_size=args.image_size).eval())
    options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": args.threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(graph, "CPU", options)
    image = np.random.default_rng(0).random((1, 3, args.image_size, args.image_size), dtype=np.float32)
    return lambda: compiled(image)


def page(rows: dict[str, Row], args: argparse.Namespace) -> str:
    """Write the table."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    options = f"--image_size {args.image_size} --batch_size {args.batch_size} --threads {args.threads}"
    usual = rows["resnet18"]
    lines = [
        "# Teachers of Scrd on a CPU",
        "",
        f"    python benchmarks/scrd_teachers.py {options}",
        "",
        (
            f"{os.cpu_count()} x {platform.machine()} cores, torch {torch.__version__}, openvino "
            f"{version('openvino')}; load over 1, 5 and 15 minutes at the end: {load}. Images of "
            f"{args.image_size}x{args.image_size}, float32; a step has {args.batch_size} of them. Medians of {ROUNDS} "
            "rounds. Kept: with `keep_freed_memory`, as in `anomalib-medical`. In brackets: in units of resnet18."
        ),
        "",
        "| teacher | step | step, kept | faster | score by OpenVINO |",
        "|---" * 5 + "|",
    ]
    lines += [
        f"| {teacher} | {row['step']:.2f} s | {row['step, kept']:.2f} s "
        f"({row['step, kept'] / usual['step, kept']:.2f}) | {row['step'] / row['step, kept']:.2f}x | "
        f"{1e3 * row['latency']:.1f} ms ({row['latency'] / usual['latency']:.2f}) |"
        for teacher, row in rows.items()
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
