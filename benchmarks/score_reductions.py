"""From map to score: every reduction and normalisation from a benchmark's weights, and whether `auto` finds the best.

    ANOMALIB_MEDICAL_DATA=/path/to/data ANOMALIB_MEDICAL_TEACHER=/path/to/resnet18.safetensors \
        python benchmarks/score_reductions.py --run results/benchmark/shared --models scrd scrd_lite0_local

Nothing is trained: the weights are those that the run kept of each of its jobs with these models of ours. `auto` is
asked for by the model's own code, with maps as they are and with standardised ones; where a data set holds out fewer
normals than it asks for, it is asked all the same. Each job adds one line to ``OUTPUT.jsonl``, which is not repeated,
and ``OUTPUT.md`` is written anew. D24fad has no standardised maps: it learns from no normal images of its own task.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import append_record, quiet_trainer, read_records
from lightning.pytorch import Callback, LightningModule, Trainer
from sklearn.metrics import roc_auc_score

from anomalib_medical.benchmark.build import model_class, ready_datamodule
from anomalib_medical.benchmark.plan import make_plan
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.models.components import MapScore, map_score, reduce_map
from anomalib_medical.models.components import module as module_of_ours
from anomalib_medical.models.components.map_score import NORMALIZATIONS, REDUCTIONS


class Evaluation(Callback):
    """Before any training: every way from map to score, on the test set."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    @torch.no_grad()
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
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


def table(records: list[dict[str, Any]]) -> str:
    """Image AUROC, mean over the seeds."""
    ways = [(normalization, name) for normalization in NORMALIZATIONS for name in REDUCTIONS]
    heads = [f"{name}, {normalization}" for normalization, name in ways]
    lines = ["| model | data | seeds | " + " | ".join(heads) + " | auto, none | auto, pixel |", "|---" * 11 + "|"]
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault((record["model"], record["dataset"]), []).append(record)
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
    """Look at the jobs that are not in the results yet, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "score_reductions")
    options = parser.parse_args()
    for rule in (module_of_ours, map_score):
        rule.FEWEST_NORMALS = 1
    lines, page = (options.output.with_suffix(suffix) for suffix in (".jsonl", ".md"))
    run = RunFolder(options.run)
    plan = make_plan(run.plan(), str(run.path / "plan.yaml"))
    for name, job in plan.jobs.items():
        key = {"model": job.model, "dataset": job.dataset, "seed": job.seed}
        weights = run.job(name).path / "model.ckpt"
        if job.model not in options.models or any(key.items() <= record.items() for record in read_records(lines)):
            continue
        if not weights.exists():
            print(f"{name}: no weights", flush=True)
            continue
        model: Any = model_class(plan, job)[0].load_from_checkpoint(weights, map_location="cpu")
        data = ready_datamodule(plan, job.dataset, plan.settings(job.model, job.dataset).train_batch_size)
        evaluation = Evaluation()
        quiet_trainer(-1, [evaluation], steps=1).fit(model, datamodule=data)
        append_record(lines, {**key, "found": evaluation.found})
        head = "# From map to score\n\nImage AUROC by `benchmarks/score_reductions.py`, mean over the seeds.\n\n"
        page.write_text(head + table(read_records(lines)), encoding="utf-8")
        print(name, flush=True)


if __name__ == "__main__":
    main()
