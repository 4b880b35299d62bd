"""Measure Scrd on real images beside anomalib's models, under one wall-clock cap, with intervals.

    ANOMALIB_MEDICAL_DATA=/path/to/data ANOMALIB_MEDICAL_TEACHER=/path/to/resnet18.safetensors \
        python benchmarks/scrd_real.py --data brain_flair --jobs main ablation --minutes 10 --image_size 128
    python benchmarks/scrd_real.py --table

The data folder holds data sets in the layout of anomalib's `Folder` (`train/good`, `test/<class>`,
`ground_truth/<class>`). Every job runs in its own process, adds one line to the results when it is done, and is
skipped when it is started again; a job that fails does not stop the others. Nothing is chosen on the test set: the
last weights are scored, and thresholds come from held-out training normals. Raw scores per image go to
`--scores_dir`, which must stay outside the repository: file names may name patients.
"""

import argparse
import hashlib
import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import records

if TYPE_CHECKING:
    from anomalib_medical.data import MedicalFolder

REPOSITORY = Path(__file__).resolve().parent.parent
PATIENT_PATTERNS = {
    "brain_flair": r"^(TCGA_[A-Z0-9]+_[A-Z0-9]+)_",
    "chest_xray": r"^((?:NORMAL2-)?IM-\d+|person\d+|u\d+)",
}


def main() -> int:
    """Run the command line; returns the exit code."""
    args = _parse()
    if args.table:
        print(records.table(records.read(args.out)))
        return 0
    root = os.environ.get("ANOMALIB_MEDICAL_DATA")
    if not root:
        print("skipped: set ANOMALIB_MEDICAL_DATA to the folder that holds the data sets (brain_flair, ...).")
        return 0
    folder = Path(root) / args.data
    if not folder.is_dir():
        print(f"there is no data set {args.data!r} in ANOMALIB_MEDICAL_DATA: {folder} is no folder.")
        return 2
    if args.child:
        _run(args.jobs[0], folder, args)
        return 0
    return _run_all(args)


def _parse() -> argparse.Namespace:
    teacher = os.environ.get("ANOMALIB_MEDICAL_TEACHER")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "anomalib-medical" / "scrd_real"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="brain_flair", help="data set: a folder of ANOMALIB_MEDICAL_DATA")
    parser.add_argument("--jobs", nargs="+", default=["main"], help="job names, or the groups main, ddad and ablation")
    parser.add_argument("--minutes", type=float, default=10, help="wall-clock cap of each training")
    parser.add_argument("--max_steps", type=int, help="also stop after so many optimizer steps")
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--accelerator", choices=["cpu", "gpu"], default="cpu")
    parser.add_argument("--teacher_weights", type=Path, default=Path(teacher) if teacher else None)
    parser.add_argument("--n_resamples", type=int, default=1000)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "scrd_real.jsonl")
    parser.add_argument("--scores_dir", type=Path, default=cache)
    parser.add_argument("--force", action="store_true", help="run finished jobs again")
    parser.add_argument("--table", action="store_true", help="print the results as Markdown and stop")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--requested", help=argparse.SUPPRESS)  # the jobs as the user named them
    return parser.parse_args()


def _run_all(args: argparse.Namespace) -> int:
    """Run each job in a process of its own, which also makes its peak memory its own."""
    from scrd_jobs import JOBS, TrainedJob, job_names

    try:
        names = job_names(args.jobs)
    except ValueError as error:
        print(error)
        return 2
    needing = [name for name in names if isinstance(job := JOBS[name], TrainedJob) and job.teacher]
    if needing and args.teacher_weights is None:
        print(f"{needing} need --teacher_weights or ANOMALIB_MEDICAL_TEACHER; the jobs ending in _random do not.")
        return 2
    if args.teacher_weights is not None and not args.teacher_weights.is_file():
        print(f"there is no teacher file {args.teacher_weights}.")
        return 2
    threads = str(args.threads)
    # The warnings and progress bars of our dependencies drown the results.
    quiet = {"PYTHONWARNINGS": "ignore", "TQDM_DISABLE": "1"}
    environment = os.environ | quiet | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    failed = []
    for number, name in enumerate(names, 1):
        if not args.force and records.find(records.read(args.out), _identity(name, args)):
            print(f"[{number}/{len(names)}] {name}: done before")
            continue
        print(f"[{number}/{len(names)}] {name} ...", flush=True)
        requested = " ".join(args.jobs)
        command = [sys.executable, __file__, *sys.argv[1:], "--jobs", name, "--child", "--requested", requested]
        if subprocess.run(command, env=environment, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"failed: {failed}; the other jobs are saved. Run the same command again to retry.")
    return int(bool(failed))


def _identity(name: str, args: argparse.Namespace) -> records.Record:
    from scrd_jobs import JOBS, TrainedJob

    job = JOBS[name]
    with_teacher = isinstance(job, TrainedJob) and job.teacher
    keys = ("data", "backbone", "image_size", "batch_size", "minutes", "max_steps", "threads", "accelerator", "seed")
    return {
        "job": name,
        **{key: getattr(args, key) for key in keys},
        "teacher_sha256": hashlib.sha256(args.teacher_weights.read_bytes()).hexdigest() if with_teacher else None,
    }


def _run(name: str, folder: Path, args: argparse.Namespace) -> None:
    import numpy as np
    import torch
    from scrd_jobs import JOBS, ModelOptions, TrainedJob
    from scrd_run import RunOptions, run_job

    torch.set_num_threads(args.threads)
    job = JOBS[name]
    identity = _identity(name, args)
    pattern = PATIENT_PATTERNS.get(args.data)
    with_teacher = isinstance(job, TrainedJob) and job.teacher
    result, scored = run_job(
        job,
        _datamodule(folder, pattern, args),
        ModelOptions(args.backbone, args.image_size, args.seed, args.teacher_weights if with_teacher else None),
        RunOptions(
            minutes=args.minutes,
            max_steps=args.max_steps,
            batch_size=args.batch_size,
            accelerator=args.accelerator,
            num_workers=args.num_workers,
            patient_pattern=pattern,
            n_resamples=args.n_resamples,
        ),
    )
    args.scores_dir.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    np.savez_compressed(
        args.scores_dir / f"{args.data}_{name}_{args.image_size}_seed{args.seed}_{stamp}.npz",
        paths=np.array([str(Path(path).relative_to(folder)) for path in scored.paths]),
        labels=scored.labels,
        scores=scored.scores,
        **({} if scored.maps is None else {"map_mean": scored.maps.mean((1, 2)), "map_max": scored.maps.max((1, 2))}),
    )
    # Kibibytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    record = {
        **identity,
        **result,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
        "peak_gpu_mib": torch.cuda.max_memory_allocated() / 2**20 if args.accelerator == "gpu" else None,
        "machine": f"{os.cpu_count()} x {platform.machine()} cores"
        + (f", {torch.cuda.get_device_name()}" if args.accelerator == "gpu" else ""),
        "versions": {
            package: importlib.metadata.version(package)
            for package in ("anomalib", "anomalib-medical", "torch", "timm")
        }
        | {"python": platform.python_version()},
        "commit": _commit(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(args),
    }
    records.append(args.out, record)
    auroc = result["image_auroc"]
    print(
        f"{name}: image AUROC {auroc['value']:.3f} [{auroc['low']}, {auroc['high']}], {result['steps']} steps in "
        f"{result['train_seconds']:.0f} s",
        flush=True,
    )


def _datamodule(folder: Path, pattern: str | None, args: argparse.Namespace) -> "MedicalFolder":
    from anomalib_medical.data import MedicalFolder

    return MedicalFolder(
        root=folder,
        name=args.data,
        train_batch_size=args.batch_size,
        eval_batch_size=args.batch_size,
        num_workers=args.num_workers,
        val_split_mode="from_train",
        patient_pattern=pattern,
        seed=args.seed,
    )


def _command(args: argparse.Namespace) -> str:
    """Rebuild the command without machine paths and without the job, so that one table can show one command."""
    steps = "" if args.max_steps is None else f" --max_steps {args.max_steps}"
    return (
        f"python benchmarks/scrd_real.py --data {args.data} --jobs {args.requested} --minutes {args.minutes:g}{steps} "
        f"--image_size {args.image_size} --batch_size {args.batch_size} --backbone {args.backbone} --seed {args.seed} "
        f"--threads {args.threads} --accelerator {args.accelerator}"
    )


def _commit() -> str:
    """Name the code that ran; uncommitted changes are told."""
    git = shutil.which("git")
    if git is None:
        return "unknown"
    command = [git, "describe", "--always", "--dirty", "--abbrev=12"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False, text=True)
    return result.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
