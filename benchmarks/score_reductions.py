"""From map to score: every reduction and normalisation from the same weights, and whether `auto` finds the best.

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/score_reductions.py --model Scrd --max_steps 125 \
        --datasets phantom brain_flair breast_ultrasound --seeds 0 1 2 --val_split_ratio 0.3 \
        --teacher_weights /path/to/resnet18.safetensors

One model is trained for each data set and seed. `auto` is asked for by the model's own code, with maps as they are and
with standardised ones. Each training adds one line to ``OUTPUT.jsonl``, which is not repeated, and ``OUTPUT.md`` is
written anew. D24fad learns on the other data sets given, with 4 images of its own as support, and has no standardised
maps: it learns from no normal images of its own task.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import PATTERNS, append_record, quiet_trainer, read_records, root_of
from lightning.pytorch import Callback, LightningModule, Trainer
from sklearn.metrics import roc_auc_score

from anomalib_medical import D24fad, Ddad, FewShotTasks, MedicalFolder, Phantom, Scrd
from anomalib_medical.models.components import MapScore, reduce_map
from anomalib_medical.models.components.map_score import NORMALIZATIONS, REDUCTIONS


class Evaluation(Callback):
    """At the end of the training: every way from map to score, on the test set."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    @torch.no_grad()
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the test set in every way, and let the model choose one."""
        module: Any = pl_module.eval()
        default = module.map_score.default
        for normalization in NORMALIZATIONS:
            if normalization == "pixel" and not module.has_maps_of_the_target:
                continue
            score = module.model.map_score = MapScore("auto", normalization, default=default).to(module.device)
            start = time.perf_counter()
            module.fit_map_score()
            seconds = time.perf_counter() - start
            scores: dict[str, list[float]] = {name: [] for name in REDUCTIONS}
            labels: list[bool] = []
            for batch in trainer.datamodule.test_dataloader():
                maps = module.model(module.prepare(batch.image)).anomaly_map
                labels += batch.gt_label.tolist()
                for name, values in scores.items():
                    values.extend(reduce_map(maps, name, score.top_share).tolist())
            self.found[normalization] = {
                "auroc": {name: float(roc_auc_score(labels, values)) for name, values in scores.items()},
                "auto": score.reduction,
                "synthetic_auroc": score.choice.auroc,
                "normals": score.choice.normals,
                "seconds": round(seconds, 1),
            }


def data_of(name: str, batch_size: int, share: float | None) -> MedicalFolder | Phantom:
    """Return a data set by its folder's name."""
    options = {"train_batch_size": batch_size, "eval_batch_size": 32, "num_workers": 0, "val_split_ratio": share}
    if name == "phantom":
        return Phantom(**options)
    return MedicalFolder(root_of(name), name=name, patient_pattern=PATTERNS[name], **options)


def train(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train once; returns what `Evaluation` has found."""
    distillation = {"backbone": options.backbone, "teacher_weights": options.teacher_weights, "image_size": 128}
    common: dict[str, Any] = {"seed": seed, "score_reduction": "auto"}
    data: Any = data_of(name, options.batch_size, options.val_split_ratio)
    if options.model == "Ddad":
        model: Any = Ddad(**common, score=options.score)
    elif options.model == "Scrd":
        model = Scrd(**common, **distillation)
    else:
        model = D24fad(**common, **distillation)
        tasks = {each: data_of(each, options.batch_size, None) for each in options.datasets}
        data = FewShotTasks(
            name,
            tasks=tasks,
            num_workers=0,
            train_batch_size=options.batch_size,
            val_split_ratio=options.val_split_ratio,
        )
    evaluation = Evaluation()
    quiet_trainer(-1, [evaluation], steps=options.max_steps).fit(model, datamodule=data)
    return evaluation.found


def key_of(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What tells a training from others."""
    weights = Path(options.teacher_weights).name if options.teacher_weights else None
    score = {"score": options.score} if options.model == "Ddad" else {"backbone": options.backbone, "weights": weights}
    return {
        "dataset": name,
        "seed": seed,
        "model": options.model,
        "max_steps": options.max_steps,
        "held_out": options.val_split_ratio,
        **score,
    }


def table(records: list[dict[str, Any]]) -> str:
    """Image AUROC, mean over the seeds."""
    ways = [(normalization, name) for normalization in NORMALIZATIONS for name in REDUCTIONS]
    heads = [f"{name}, {normalization}" for normalization, name in ways]
    lines = ["| model | data | seeds | " + " | ".join(heads) + " | auto, none | auto, pixel |", "|---" * 11 + "|"]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        told = [str(record[key]) for key in ("model", "score", "backbone", "weights") if record.get(key)]
        groups.setdefault((f"{', '.join(told)}; {record['max_steps']} steps", record["dataset"]), []).append(record)
    for (model, name), runs in groups.items():
        cells = []
        for normalization, reduction in ways:
            values = [run["found"][normalization]["auroc"][reduction] for run in runs if normalization in run["found"]]
            cells.append(f"{np.mean(values):.3f}" if values else "")
        for normalization in NORMALIZATIONS:
            found = [run["found"][normalization] for run in runs if normalization in run["found"]]
            mean = np.mean([each["auroc"][each["auto"]] for each in found]) if found else np.nan
            best = sum(each["auroc"][each["auto"]] == max(each["auroc"].values()) for each in found)
            took = ", ".join(each["auto"] for each in found)
            cells.append(f"{mean:.3f} ({took}; best {best} of {len(found)})" if found else "")
        lines.append(f"| {model} | {name} | {len(runs)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is not yet there, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["phantom", "brain_flair", "breast_ultrasound"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--model", choices=("Scrd", "D24fad", "Ddad"), default="Scrd")
    parser.add_argument("--score", default="intra", help="of Ddad")
    parser.add_argument("--max_steps", type=int, default=125)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--teacher_weights")
    parser.add_argument("--val_split_ratio", type=float, help="share of the normal images to hold out, for at least 20")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "score_reductions")
    options = parser.parse_args()
    lines, page = (options.output.with_suffix(suffix) for suffix in (".jsonl", ".md"))
    for seed in options.seeds:
        for name in options.datasets:
            key = key_of(name, seed, options)
            if not any(key.items() <= record.items() for record in read_records(lines)):
                append_record(lines, {**key, "found": train(name, seed, options)})
            head = "# From map to score\n\nImage AUROC by `benchmarks/score_reductions.py`, mean over the seeds.\n\n"
            page.write_text(head + table(read_records(lines)), encoding="utf-8")


if __name__ == "__main__":
    main()
