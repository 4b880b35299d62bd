"""Measure a training step of Scrd against the schedule of the released code, in one run.

    python benchmarks/scrd_step.py --backbone wide_resnet50_2 --image_size 256 --batch_size 16

The schedules take turns (A B, B A, ...), so that a machine that slows down slows both; the table shows medians over the
repeats and the median of the ratios within each repeat. Peak memory is measured in a process of its own for each.
Where there is a GPU, bf16-mixed with channels_last is measured beside float32, and with --compile also compiled.

The released schedule: noise per sample in the main process, the frozen teacher twice under no_grad, bottleneck and
decoder also on the noisy images (thrown away). Its noise is drawn with the `opensimplex` package, which is far slower
where numba is not installed; the table therefore also compares the steps without either one's noise.
"""

import argparse
import importlib.util
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path

import torch
from step_schedules import Setting, Step

RESULTS = Path(__file__).resolve().parent / "results"
INSTRUCTION_SETS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def main() -> None:
    """Run the command line."""
    # Outside a trainer Lightning warns at each self.log.
    warnings.filterwarnings("ignore")
    args = _parse()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    settings = [Setting("released"), Setting("ours")]
    if device.type == "cuda":
        settings += [Setting("released", half=True), Setting("ours", half=True)]
        settings += [Setting("ours", half=True, compiled=True)] if args.compile else []
    if args.memory_of is not None:
        print(json.dumps(_memory(settings[args.memory_of], args, device)))
        return
    memory = [_memory_in_child(index) for index in range(len(settings))]
    steps = [Step(setting, args.backbone, args.image_size, device) for setting in settings]
    report = _report(settings, _time(steps, args), memory, args, device)
    print(report)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(report, encoding="utf-8")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="wide_resnet50_2")
    parser.add_argument("--image_size", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="steps of each schedule in a repeat; more on a GPU")
    parser.add_argument("--threads", type=int, help="CPU threads; all cores by default")
    parser.add_argument("--cpu", action="store_true", help="leave a GPU alone")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile (GPU)")
    parser.add_argument("--out", type=Path, default=RESULTS / "scrd_step.md")
    parser.add_argument("--memory_of", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def _images(args: argparse.Namespace) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(args.batch_size, 3, args.image_size, args.image_size, generator=generator)


def _time(steps: list[Step], args: argparse.Namespace) -> list[list[tuple[float, float]]]:
    """Return for each schedule and repeat the seconds of a step and its share for noise."""
    images = _images(args)
    for step in steps:
        step(images)
    times: list[list[tuple[float, float]]] = [[] for _ in steps]
    for repeat in range(args.repeats):
        order = list(enumerate(steps))
        for index, step in order if repeat % 2 == 0 else reversed(order):
            step.noise_seconds = 0.0
            started = time.perf_counter()
            for _ in range(args.steps):
                step(images)
            seconds = time.perf_counter() - started
            times[index].append((seconds / args.steps, step.noise_seconds / args.steps))
            print(f"repeat {repeat + 1}/{args.repeats}: {step.setting.name}: {times[index][-1][0]:.3f} s", flush=True)
    return times


def _memory(setting: Setting, args: argparse.Namespace, device: torch.device) -> dict[str, float]:
    """Return the peak memory of two steps in MiB: the process's, or what the GPU allocated."""
    before = _peak_rss()
    step, images = Step(setting, args.backbone, args.image_size, device), _images(args)
    # Adam's state is only there from the second step on.
    for _ in range(2):
        step(images)
    if device.type == "cuda":
        return {"before": 0.0, "peak": torch.cuda.max_memory_allocated() / 2**20}
    return {"before": before, "peak": _peak_rss()}


def _memory_in_child(index: int) -> dict[str, float]:
    command = [sys.executable, __file__, *sys.argv[1:], "--memory_of", str(index)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float] = json.loads(output.strip().splitlines()[-1])
    return result


def _peak_rss() -> float:
    # Kibibytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _report(
    settings: list[Setting],
    times: list[list[tuple[float, float]]],
    memory: list[dict[str, float]],
    args: argparse.Namespace,
    device: torch.device,
) -> str:
    rows = []
    for index, setting in enumerate(settings):
        reference = times[settings.index(Setting("released", half=setting.half))]
        whole = statistics.median(a[0] / b[0] for a, b in zip(reference, times[index], strict=True))
        bare = statistics.median((a[0] - a[1]) / (b[0] - b[1]) for a, b in zip(reference, times[index], strict=True))
        seconds = statistics.median(pair[0] for pair in times[index])
        noise = statistics.median(pair[1] for pair in times[index])
        rows.append(
            f"| {setting.name} | {seconds:.3f} s | {noise:.3f} s | {args.batch_size / seconds:.2f} | {whole:.2f}x | "
            f"{bare:.2f}x | {memory[index]['peak']:.0f} MiB |"
        )
    kind = "allocated on the GPU" if device.type == "cuda" else "resident, of which about "
    if device.type == "cpu":
        kind += f"{memory[0]['before']:.0f} MiB before the model is built"
    numba = "with" if importlib.util.find_spec("numba") else "without"
    command = (
        f"python benchmarks/scrd_step.py --backbone {args.backbone} --image_size {args.image_size} "
        f"--batch_size {args.batch_size} --repeats {args.repeats} --steps {args.steps} "
        f"--threads {torch.get_num_threads()}" + " --cpu" * args.cpu + " --compile" * args.compile
    )
    caption = (
        f"{args.backbone}, {args.image_size}x{args.image_size}, batch {args.batch_size}; medians of {args.repeats} "
        f"interleaved repeats of {args.steps} step(s) each. {_machine(device)}, torch {torch.__version__}, "
        f"{torch.get_num_threads()} threads, opensimplex {numba} numba. Peak memory is {kind}."
    )
    lines = [
        "# A training step of Scrd and of the released schedule",
        "",
        f"    {command}",
        "",
        caption,
        "",
        "| schedule | step | of which noise | images/s | speed-up | speed-up without noise | peak memory |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


def _machine(device: torch.device) -> str:
    """Describe the machine by what matters for speed, never by its name."""
    flags: list[str] = []
    info = Path("/proc/cpuinfo")
    if info.exists():
        present = set(info.read_text(encoding="utf-8").split())
        flags = [flag for flag in INSTRUCTION_SETS if flag in present]
    cpu = f"{os.cpu_count()} {platform.machine()} cores ({', '.join(flags)})"
    return f"{torch.cuda.get_device_name()}, {cpu}" if device.type == "cuda" else cpu


if __name__ == "__main__":
    main()
