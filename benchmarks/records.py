"""Benchmark results as JSON lines: appended atomically, read back to resume, printed as a Markdown table."""

import json
import os
from pathlib import Path
from typing import Any

Record = dict[str, Any]

# Two runs that agree in these are the same run.
IDENTITY = (
    "data",
    "job",
    "backbone",
    "image_size",
    "batch_size",
    "minutes",
    "max_steps",
    "threads",
    "accelerator",
    "seed",
    "teacher_sha256",
)


def read(path: Path) -> list[Record]:
    """Return all records of a file; a file that is not there has none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def append(path: Path, record: Record) -> None:
    """Append one record in a single write, so that a kill or a second process never leaves half a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (json.dumps(record) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find(records: list[Record], identity: Record) -> Record | None:
    """Return the newest record of a run, if it has finished before."""
    same = [record for record in records if all(record.get(key) == identity[key] for key in IDENTITY)]
    return same[-1] if same else None


def table(records: list[Record]) -> str:
    """Print the newest record of every run, one table per data set and setting, best image AUROC first."""
    newest = {tuple(record.get(key) for key in IDENTITY): record for record in records}
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in newest.values():
        setting = ("data", "backbone", "image_size", "batch_size", "minutes", "max_steps", "threads", "accelerator")
        groups.setdefault(tuple(record.get(key) for key in setting), []).append(record)
    return "\n\n".join(_table(group) for group in groups.values())


def _table(records: list[Record]) -> str:
    first = records[0]
    caption = (
        f"{first['data']}: {first['n_train']} training images, {first['n_held_out']} held-out normals, "
        f"{first['n_images']} test images ({first['n_abnormal']} abnormal) of {first['n_patients']} patients; "
        f"{first['image_size']}x{first['image_size']}, {first['backbone']}, batch {first['batch_size']}, "
        f"{first['threads']} threads on {first['machine']}, torch {first['versions']['torch']}, "
        f"anomalib {first['versions']['anomalib']}. 95% intervals: bootstrap over patients; specificity and "
        "sensitivity, at the threshold from held-out normals: Wilson."
    )
    columns = ["job", "seed", "image AUROC", "AUROC, map mean", "AUROC, map max", "AP", "pixel AUROC", "AUPRO"]
    columns += ["specificity", "sensitivity", "training", "steps", "peak RSS"]
    commands = [f"    {command}" for command in dict.fromkeys(record["command"] for record in records)]
    head = [caption, "", *commands, "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    rows = sorted(records, key=lambda record: -record["image_auroc"]["value"])
    return "\n".join([*head, *(_row(record) for record in rows)])


def _row(record: Record) -> str:
    thresholds = record["thresholds"]
    rates = thresholds.get("post_processor") or thresholds["quantile_0.95"]
    cells = [
        record["job"],
        str(record["seed"]),
        *(
            _cell(record[key])
            for key in ("image_auroc", "image_auroc_mean", "image_auroc_max", "image_ap", "pixel_auroc", "aupro")
        ),
        _cell(rates["specificity"]),
        _cell(rates["sensitivity"]),
        f"{record['train_seconds']:.0f} s",
        str(record["steps"]),
        f"{record['peak_rss_mib']:.0f} MiB",
    ]
    return f"| {' | '.join(cells)} |"


def _cell(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "-"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
