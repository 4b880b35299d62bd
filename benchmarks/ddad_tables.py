"""Scores of what `ddad_pools.py` and `ddad_refinement.py` left behind: tables with intervals, and a plot.

    python benchmarks/ddad_tables.py --out benchmarks/results

Writes `ddad_chest_xray.jsonl` (every figure) and `ddad_anomaly_rate.png`, and prints Markdown. Intervals are 95
percent, by bootstrap over patients, and speak of the test images, not of the seeds: each seed has a column of its own.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import torch
from ddad_pools import MODULE_B, Job, default_scratch
from ddad_refinement import assemble
from scipy import stats

from anomalib_medical.metrics import image_auroc, image_average_precision
from anomalib_medical.models.ddad.networks import Reconstruction
from anomalib_medical.models.ddad.torch_model import discrepancies

RATES = ("0.0", "0.2", "0.4", "0.6")
Scores = dict[str, npt.NDArray[np.float64]]


def maps_of(scratch: Path, job: Job, epochs: int, test: dict[str, Any]) -> Scores | None:
    """Image scores of one pool beside its module B, None where a file is missing."""
    paths = [scratch / name / f"epochs{epochs}.npy" for name in (job.name, Job(MODULE_B, job.seed, job.antialias).name)]
    if not all(path.exists() for path in paths):
        return None
    mean_a, members_b = (torch.from_numpy(np.load(path)) for path in paths)
    maps = discrepancies(
        torch.from_numpy(test["images"])[:, None],
        Reconstruction(mean_a[None, :, None]),
        Reconstruction(members_b[:, :, None]),
    )
    found = {
        name: value.mean(dim=(1, 2, 3)).double().numpy() for name, value in maps._asdict().items() if value is not None
    }
    refined = scratch / job.name / f"refined{epochs}.npy"
    if refined.exists() and job.antialias:
        found["refined"] = np.load(refined).mean(axis=(1, 2)).astype(np.float64)
    return found


def measure(values: npt.NDArray[np.float64], test: dict[str, Any]) -> dict[str, Any]:
    """AUROC and AP with their intervals."""
    patients = [str(patient) for patient in test["patients"]]
    metrics = {"auroc": image_auroc, "ap": image_average_precision}
    return {name: asdict(metric(values, test["labels"], patients)) for name, metric in metrics.items()}


def figures(scratch: Path) -> Iterator[dict[str, Any]]:
    """Measure everything there is."""
    for antialias in (True, False):
        path = scratch / f"test{'' if antialias else '_aliased'}.npz"
        if not path.exists():
            continue
        test = dict(np.load(path))
        for folder in sorted(scratch.iterdir()):
            part, _, rest = folder.name.partition("_seed")
            if not folder.is_dir() or part == MODULE_B or rest.endswith("_aliased") == antialias:
                continue
            job = Job(part, int(rest.removesuffix("_aliased")), antialias)
            for epochs in sorted(int(file.stem.removeprefix("epochs")) for file in folder.glob("epochs*.npy")):
                scores = maps_of(scratch, job, epochs, test)
                for name, values in (scores or {}).items():
                    yield {
                        "part": part,
                        "seed": job.seed,
                        "antialias": antialias,
                        "epochs": epochs,
                        "score": name,
                        **measure(values, test),
                    }


def print_tables(found: list[dict[str, Any]]) -> None:
    """Print one table per number of epochs, a column per seed."""
    seeds = sorted({record["seed"] for record in found})
    for epochs in sorted({record["epochs"] for record in found}):
        heads = [f"{metric}, seed {seed}" for metric in ("AUROC", "AP") for seed in seeds]
        print(f"\n{epochs} epochs\n\n| pool | score | {' | '.join(heads)} |\n{'|---' * (2 + len(heads))}|")
        cells: dict[tuple[str, str], dict[tuple[str, int], str]] = {}
        for record in found:
            if record["epochs"] == epochs:
                pool = record["part"] + ("" if record["antialias"] else ", not antialiased")
                row = cells.setdefault((pool, record["score"]), {})
                for metric in ("auroc", "ap"):
                    row[metric, record["seed"]] = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**record[metric])
        for (pool, score), row in cells.items():
            told = [row.get((metric, seed), "-") for metric in ("auroc", "ap") for seed in seeds]
            print(f"| {pool} | {score} | {' | '.join(told)} |")


def print_shortcut(scratch: Path, epochs: int) -> None:
    """Print how far the set's known shortcut, sharpness, is what the maps see."""
    test = dict(np.load(scratch / "test.npz"))
    images, labels = test["images"], test["labels"]
    sharpness = sum(np.abs(np.diff(images, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2))
    best = max((sharpness, -sharpness), key=lambda values: measure(values, test)["auroc"]["value"])
    told = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**measure(best, test)["auroc"])
    print(f"\nSharpness of the 64x64 images alone, the better direction: AUROC {told}.")
    print(f"Spearman's correlation with it after {epochs} epochs, within normal and within abnormal images:\n")
    print("| pool | seed | score | normal | abnormal |\n|---|---|---|---|---|")
    for folder in sorted(scratch.glob("*_seed*")):
        part, _, seed = folder.name.partition("_seed")
        if part == MODULE_B or not seed.isdigit():
            continue
        for name, values in (maps_of(scratch, Job(part, int(seed)), epochs, test) or {}).items():
            within = [stats.spearmanr(values[labels == label], best[labels == label]).statistic for label in (0, 1)]
            print(f"| {part} | {seed} | {name} | {within[0]:+.2f} | {within[1]:+.2f} |")


def print_mismatch(scratch: Path) -> None:
    """Print what it costs to train with antialiasing and score without, as anomalib's exported graphs would."""
    aliased = scratch / "test_aliased.npz"
    if not aliased.exists():
        return
    model, epochs = assemble(scratch, "pool", 0)
    print(f"\nTrained with antialiasing ({epochs} epochs, the whole pool, seed 0), scored")
    for told, path in (("with it", scratch / "test.npz"), ("without", aliased)):
        test = dict(np.load(path))
        with torch.inference_mode():
            inter = model.eval().model.ensemble_maps(torch.from_numpy(test["images"])[:, None]).inter
        values = inter.mean(dim=(1, 2, 3)).double().numpy()
        auroc = "{value:.3f} [{low:.3f}, {high:.3f}]".format(**measure(values, test)["auroc"])
        normal = np.quantile(values[~test["labels"]], 0.95)
        print(f"- {told}: inter AUROC {auroc}, 95% quantile of the normal images' scores {normal:.4f}")


def plot(found: list[dict[str, Any]], path: Path) -> None:
    """Inter-discrepancy over the anomaly rate, one line per number of epochs, a dot per seed."""
    figure, axes = plt.subplots(figsize=(6, 4))
    chosen = [record for record in found if record["score"] == "inter" and record["antialias"]]
    for index, epochs in enumerate(sorted({record["epochs"] for record in chosen})):
        rates, means = [], []
        for rate in RATES:
            values = [r["auroc"]["value"] for r in chosen if (r["part"], r["epochs"]) == (rate, epochs)]
            if values:
                rates.append(float(rate))
                means.append(np.mean(values))
                axes.plot([float(rate)] * len(values), values, ".", color=f"C{index}", alpha=0.5)
        axes.plot(rates, means, "-", color=f"C{index}", label=f"{epochs} epochs")
    axes.set(xlabel="anomaly rate of the pool (320 images)", ylabel="image AUROC of the inter-discrepancy")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, default=default_scratch())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    found = list(figures(args.scratch))
    if not found:
        print(f"There is nothing of ddad_pools.py in {args.scratch}.")
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record) + "\n" for record in found]
    (args.out / "ddad_chest_xray.jsonl").write_text("".join(lines), encoding="utf-8")
    print_tables(found)
    print_shortcut(args.scratch, max(record["epochs"] for record in found))
    print_mismatch(args.scratch)
    plot(found, args.out / "ddad_anomaly_rate.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
