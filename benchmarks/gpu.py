"""Everything that is to be measured on a GPU, in one call of at most eight minutes.

    ANOMALIB_MEDICAL_TEACHER=/path/to/resnet18.safetensors \
        python benchmarks/gpu.py --images /path/to/brain_flair --out results/gpu

1. The tests with the marker ``gpu``.
2. A training step of Scrd, D24fad and Ddad in float32, bf16-mixed, with channels_last and compiled, each against the
   released schedule (`step_schedules.py`) of the same run: time, images per second, peak memory. Ddad's networks also
   in a loop and stacked.
3. Scoring, an image and a batch at a time.
4. Scrd, Reverse Distillation and PatchCore on a folder of real images (in the layout of `MedicalFolder`), a minute of
   training each, by `anomalib-medical benchmark`.

Compiling takes longest and comes last. What the minutes do not suffice for is named, and what fails is a row that says
so. ``OUT.json`` and ``OUT.md`` are written after every part. ``--dry_run`` does the same with small sizes, on a CPU
too: it shows that the script works, and nothing else.
"""

import argparse
import gc
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from ddad_training import compare_forms
from step_schedules import Case, Scorer, Setting, host_images, training_step

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("tests", "steps", "scoring", "images", "compiled")
CASES = (
    Case("Scrd", "wide_resnet50_2", 256, 16),
    Case("Scrd", "wide_resnet50_2", 256, 64),
    Case("D24fad", "wide_resnet50_2", 128, 16, shots=4),
    Case("Ddad", image_size=64, batch_size=64),
)
DRY_CASES = (
    Case("Scrd", "resnet18", 64, 2),
    Case("D24fad", "resnet18", 64, 2, shots=2),
    Case("Ddad", image_size=16, batch_size=4),
)
SETTINGS = (
    Setting("released"),
    Setting(),
    Setting(half=True),
    Setting(half=True, channels_last=True),
)
COMPILED = (Setting(half=True, channels_last=True, compiled=True),)


class Report:
    """What was found, written after every part."""

    def __init__(self, out: Path, command: str, device: torch.device) -> None:
        self.out = out
        self.found: dict[str, Any] = {"command": command, "machine": machine(device), "steps": [], "scoring": []}

    def write(self) -> None:
        """Write the JSON and the Markdown."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.with_suffix(".json").write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        self.out.with_suffix(".md").write_text(markdown(self.found), encoding="utf-8")


def machine(device: torch.device) -> str:
    """What it was measured on."""
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{os.cpu_count()} {platform.machine()} cores"
    return f"{where}, torch {torch.__version__}, CUDA {torch.version.cuda}"


def wait(device: torch.device) -> None:
    """Wait for what the device has still to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(run: Callable[[], object], device: torch.device, seconds: float) -> dict[str, float]:
    """Median time of a call over five rounds of so many seconds altogether, and the peak of the memory."""
    for _ in range(2):
        run()
    wait(device)
    started = time.perf_counter()
    run()
    wait(device)
    calls = max(1, int(seconds / 5 / max(time.perf_counter() - started, 1e-6)))
    rounds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(calls):
            run()
        wait(device)
        rounds.append((time.perf_counter() - started) / calls)
    peak = torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else float("nan")
    return {
        "ms": 1000 * median(rounds),
        "ms_least": 1000 * min(rounds),
        "ms_most": 1000 * max(rounds),
        "peak_mib": peak,
    }


def row_of(case: Case, setting: Setting, device: torch.device, build: Callable[[], Callable[[], object]]) -> dict:
    """A row of a table; one that fails says why."""
    row: dict[str, Any] = {"case": case.name, "setting": setting.name}
    gc.collect()
    torch.compiler.reset()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        row |= measure(build(), device, 0.0 if device.type == "cpu" else 3.0)
    except Exception as error:  # noqa: BLE001 - the other rows are worth having
        row["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    print(row, flush=True)
    return row


def step_rows(cases: tuple[Case, ...], settings: tuple[Setting, ...], device: torch.device) -> Iterator[dict]:
    """Training steps, case by case."""
    for case in cases:
        for setting in settings:
            row = row_of(case, setting, device, lambda: training_step(case, setting, device))  # noqa: B023 - called at once
            if "ms" in row:
                row["images_per_s"] = 1000 * case.batch_size / row["ms"]
            yield row


def scoring_rows(cases: tuple[Case, ...], settings: tuple[Setting, ...], device: torch.device) -> Iterator[dict]:
    """Scoring of one image and of a batch, from prepared images on the device to the score."""
    for case in cases:
        for setting in settings:
            for count in (1, case.batch_size):

                def build() -> Callable[[], object]:
                    scorer = Scorer(case, setting, device)  # noqa: B023 - called at once
                    images = host_images(case, count, device).to(device)  # noqa: B023
                    return lambda: scorer(images)

                row = row_of(case, setting, device, build)
                row["images"] = count
                if "ms" in row:
                    row["ms_an_image"] = row["ms"] / count
                yield row


def run_tests(seconds: float) -> dict[str, Any]:
    """Run the tests with the marker; the last line of pytest's answer."""
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/integration/test_gpu.py"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"code": None, "said": f"not over after {seconds:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    return {"code": done.returncode, "said": lines[-1] if lines else done.stderr[-300:], "named": failed[:20]}


def train_on_images(folder: Path | None, seconds: float, *, dry: bool) -> dict[str, Any]:
    """Train three models for equal times with the benchmark; the table of its report."""
    teacher = os.environ.get("ANOMALIB_MEDICAL_TEACHER")
    data: dict[str, Any] = {"class_path": "MedicalFolder", "init_args": {"root": str(folder)}}
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            sizes = {"train_count": 24, "test_normal_count": 4, "test_abnormal_count": 4, "image_size": 64}
            data = {"class_path": "Phantom", "init_args": {"root": f"{temporary}/phantom", **sizes}}
        models = {"scrd": "Scrd", "rd": "ReverseDistillation", "patchcore": "Patchcore"}
        models = {"random": "RandomScore"} if dry else models
        plan = {
            "name": "gpu",
            "image_size": 64 if dry else 256,
            "backbone": "resnet18",
            **({"teacher_weights": teacher} if teacher else {}),
            "train_batch_size": 4 if dry else 32,
            "num_workers": 0 if dry else 8,
            "gallery": 0,
            "latency_repeats": 1 if dry else 20,
            "keep_weights": False,
            "limits": {"train_minutes": 1, "job_minutes": max(1.0, seconds / 60)},
            "models": {name: {"class_path": kind} for name, kind in models.items()},
            "datasets": {"carried": data},
        }
        path = Path(temporary) / "plan.yaml"
        path.write_text(yaml.safe_dump(plan), encoding="utf-8")
        run = Path(temporary) / "run"
        command = [
            sys.executable,
            "-m",
            "anomalib_medical.cli",
            "benchmark",
            "--config",
            str(path),
            "--output",
            str(run),
        ]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": f"not over after {seconds:.0f} s"}
        reports = sorted(run.rglob("report.md"))
        if done.returncode or not reports:
            return {"failed": (done.stderr or done.stdout)[-600:]}
        text = reports[0].read_text(encoding="utf-8")
        tables = re.findall(r"^\|.*\n(?:\|.*\n)+", text, flags=re.MULTILINE)
        chosen = [table for table in tables if re.match(r"\| model \| .*(AUROC|training)", table)]
        return {"backbone_weights": teacher and Path(teacher).name, "tables": chosen}


def markdown(found: dict[str, Any]) -> str:
    """Tables of everything that was found."""
    lines = ["# Training and scoring on a GPU", "", f"    {found['command']}", "", f"{found['machine']}.", ""]
    if "dry" in found:
        lines += ["**A dry run: small sizes, which say nothing about speed.**", ""]
    if "tests" in found:
        lines += [f"Tests with the marker `gpu`: {found['tests']['said']}.", ""]
    if found["steps"]:
        lines += [
            "| model | schedule | step | images/s | against released | peak memory |",
            "|---|---|---|---|---|---|",
        ]
        released = {row["case"]: row.get("ms") for row in found["steps"] if row["setting"].startswith("released")}
        lines += [_step_line(row, released.get(row["case"])) for row in found["steps"]]
        lines.append("")
    if forms := found.get("ddad_forms"):
        told = ", ".join(f"{name} {1000 * seconds:.1f} ms" for name, seconds in forms.items())
        lines += [f"Gradients of one of Ddad's modules (three networks): {told}.", ""]
    if found["scoring"]:
        lines += ["| model | setting | images at once | an image |", "|---|---|---|---|"]
        for row in found["scoring"]:
            cell = f"{row['ms_an_image']:.2f} ms" if "ms_an_image" in row else row["failed"]
            lines.append(f"| {row['case']} | {row['setting'].removeprefix('ours, ')} | {row['images']} | {cell} |")
        lines.append("")
    if images := found.get("images"):
        lines += [*images.get("tables", []), images.get("failed", ""), ""]
    if left := found.get("left_out"):
        lines += [f"Left out, because the minutes were over: {', '.join(left)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


def _step_line(row: dict[str, Any], released: float | None) -> str:
    if "failed" in row:
        return f"| {row['case']} | {row['setting']} | {row['failed']} | | | |"
    ratio = "" if released is None else f"{released / row['ms']:.2f}x"
    spread = f"{row['ms']:.2f} ms ({row['ms_least']:.2f} to {row['ms_most']:.2f})"
    memory = f"{row['peak_mib']:.0f} MiB" if row["peak_mib"] == row["peak_mib"] else "not measured"
    return f"| {row['case']} | {row['setting']} | {spread} | {row['images_per_s']:.0f} | {ratio} | {memory} |"


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="without a suffix")
    parser.add_argument("--images", type=Path, help="folder of real images; phantoms without it, in a dry run")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--only", default="", help="cases whose name this regular expression finds")
    parser.add_argument("--dry_run", action="store_true")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    over = time.monotonic() + 60 * args.minutes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and not args.dry_run:
        print("There is no GPU: these sizes would take hours. Give --dry_run to see that the script works.")
        return 1
    report = Report(args.out, " ".join(["python benchmarks/gpu.py", *sys.argv[1:]]), device)
    found = report.found
    if args.dry_run:
        found["dry"] = True
    cases = tuple(each for each in (DRY_CASES if args.dry_run else CASES) if re.search(args.only, each.name))

    def extend(key: str, rows: Iterator[dict], needs: float) -> None:
        for row in rows:
            found[key].append(row)
            report.write()
            if time.monotonic() + needs > over:
                found.setdefault("left_out", []).append(f"the rest of {key} after {row['case']}, {row['setting']}")
                return

    def forms() -> None:
        found["ddad_forms"] = compare_forms(2 if args.dry_run else 30, device.type, 4 if args.dry_run else 64)

    def images() -> None:
        if args.images is None and not args.dry_run:
            found.setdefault("left_out", []).append("real images (no --images)")
            return
        found["images"] = train_on_images(args.images, max(30.0, over - time.monotonic()), dry=args.dry_run)

    reserve = 0.0 if args.dry_run else 210.0  # for the real images
    settings = SETTINGS[::3] if args.dry_run else SETTINGS
    compiled_cases = cases[:0] if args.dry_run else cases
    work: dict[str, list[Callable[[], None]]] = {
        "tests": [lambda: found.update(tests=run_tests(120))],
        "steps": [lambda: extend("steps", step_rows(cases, settings, device), reserve + 5), forms],
        "scoring": [lambda: extend("scoring", scoring_rows(cases, settings[1:], device), reserve + 5)],
        "images": [images],
        "compiled": [
            lambda: extend("steps", step_rows(compiled_cases, COMPILED, device), 40),
            lambda: extend("scoring", scoring_rows(compiled_cases, COMPILED, device), 40),
        ],
    }
    for part in (each for each in PARTS if each in args.parts):
        for each in work[part]:
            each()
            report.write()
    print((args.out.with_suffix(".md")).read_text(encoding="utf-8"))
    return int(found.get("tests", {}).get("code") not in {0, None})


if __name__ == "__main__":
    sys.exit(main())
