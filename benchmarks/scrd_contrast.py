"""Compare SCRD's contrasts and synthetic anomalies after equal numbers of steps, on phantoms and two development sets.

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/scrd_contrast.py --backbone tf_efficientnet_lite0 --seeds 0 1

Each run adds one line to the results, and a finished run is not repeated; the table is written anew after each.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import append_record, data_set, quiet_trainer, read_records
from sklearn.metrics import roc_auc_score
from torch.nn.functional import interpolate

from anomalib_medical import Phantom, Scrd

LARGE = {"noise_size": (0.1, 0.4)}
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {"contrast": "none"},
    "ratio": {},
    "ratio, large strong patches": {"noise_strength": 1.0, **LARGE},
    "ratio, varied": {"noise": "varied", "noise_strength": 0.4, **LARGE},
    "local": {"contrast": "local"},
    "local, large strong patches": {"contrast": "local", "noise_strength": 1.0, **LARGE},
    "local, varied": {"contrast": "local", "noise": "varied", "noise_strength": 0.4, **LARGE},
}
# Phantoms of a seed that no other figure uses.
PHANTOMS = {f"phantom, {difficulty}": difficulty for difficulty in ("medium", "easy")}
SCORES = ("auroc_max", "auroc_top_1_percent", "auroc_mean", "auroc_pixel")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=[*PHANTOMS, "brain_flair", "breast_ultrasound"])
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--teacher_weights", default=None)
    parser.add_argument("--weighting", default="scale_aware")
    parser.add_argument("--warmup_steps", type=int, default=0)
    parser.add_argument("--steps", type=int, default=125)
    parser.add_argument("--image_size", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scrd_contrast.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    shared = {name: getattr(args, name) for name in ("backbone", "weighting", "warmup_steps", "steps", "image_size")}
    for seed in args.seeds:
        for data in args.data:
            for setting in args.settings:
                key = {"data": data, "setting": setting, **shared, "seed": seed}
                if any(key.items() <= line.items() for line in read_records(args.out)):
                    continue
                append_record(args.out, key | _run(key, args.teacher_weights))
                args.out.with_suffix(".md").write_text(_page(read_records(args.out)), encoding="utf-8")


def _run(key: dict[str, Any], teacher_weights: str | None) -> dict[str, Any]:
    """Train for a fixed number of steps and score the test images with the last weights."""
    if key["data"] in PHANTOMS:
        data: Any = Phantom(difficulty=PHANTOMS[key["data"]], image_size=key["image_size"], seed=1000, num_workers=0)
        data.prepare_data()
        data.setup()
    else:
        data = data_set(key["data"])
    data.train_batch_size = 16
    arguments = {name: key[name] for name in ("backbone", "weighting", "warmup_steps", "image_size", "seed")}
    model = Scrd(teacher_weights=teacher_weights, **arguments | SETTINGS[key["setting"]])
    started = time.monotonic()
    quiet_trainer(-1, steps=key["steps"]).fit(model, train_dataloaders=data.train_dataloader())
    seconds = time.monotonic() - started
    model.eval()
    maps, masks, labels = [], [], []
    with torch.no_grad():
        for batch in data.test_dataloader():
            maps.append(model.model(model.pre_processor.transform(batch.image)).anomaly_map)
            masks.append(interpolate(batch.gt_mask[:, None].float(), maps[-1].shape[-2:])[:, 0] > 0)
            labels.extend(batch.gt_label.tolist())
    pixels = torch.cat(maps).flatten(1)
    highest = pixels.topk(round(0.01 * pixels.shape[1]), dim=1).values
    scores = {
        "auroc_max": roc_auc_score(labels, pixels.amax(dim=1)),
        "auroc_top_1_percent": roc_auc_score(labels, highest.mean(dim=1)),
        "auroc_mean": roc_auc_score(labels, pixels.mean(dim=1)),
        "auroc_pixel": roc_auc_score(torch.cat(masks).flatten().numpy(), pixels.flatten().numpy()),
    }
    return {name: round(float(value), 4) for name, value in scores.items()} | {
        "seconds": round(seconds, 1),
        "teacher": model.teacher_source,
        "n_test": len(labels),
    }


def _page(lines: list[dict[str, Any]]) -> str:
    """Mean over seeds of each setting, a table for every data set and set of shared arguments."""
    rows: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    names = ("data", "setting", "backbone", "weighting", "warmup_steps", "steps")
    for line in lines:
        rows.setdefault(tuple(line[name] for name in names), []).append(line)
    head = [*names, "seeds", *SCORES, "seconds"]
    page = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row, runs in sorted(rows.items()):
        means = [f"{np.mean([run[name] for run in runs]):.3f}" for name in SCORES]
        cells = [*row, len(runs), *means, f"{np.mean([run['seconds'] for run in runs]):.0f}"]
        page.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    settings = "\n".join(
        f"- {name}: `{json.dumps(given)}`"
        for name, given in SETTINGS.items()
        if any(name == line["setting"] for line in lines)
    )
    return _HEAD + "\n".join(page) + f"\n\nSettings, beside the defaults of `Scrd`:\n\n{settings}\n"


_HEAD = """# SCRD's contrasts and synthetic anomalies

Made by `benchmarks/scrd_contrast.py` (its text says how). Means over seeds;
batches of 16, the last weights. Other jobs shared the machine: the seconds say little.

"""

if __name__ == "__main__":
    main()
