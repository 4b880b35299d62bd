"""Run folders of a benchmark as the runner writes them, from invented scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from PIL import Image

from anomalib_medical.benchmark.run_folder import (
    AuditFinding,
    Cost,
    DatasetInfo,
    Faults,
    GalleryEntry,
    JobFolder,
    JobInfo,
    JobStatus,
    Latency,
    PixelResult,
    RunFolder,
    RunInfo,
    ShortcutResult,
    Thresholds,
    Weights,
    write_json,
)
from anomalib_medical.metrics import bin_pixels

N_IMAGES = 60
MODELS = {"scrd": ("Scrd", 1.6), "patchcore": ("PatchCore", 1.0), "sharpness": ("sharpness", 0.2)}


def make_run(folder: Path, datasets: tuple[str, ...] = ("brain",), seeds: tuple[int, ...] = (0, 1)) -> RunFolder:
    """Write a run with three models; the last job of the plan has failed and one has not begun."""
    run = RunFolder(folder)
    names = []
    for number, dataset in enumerate(datasets):
        for model, (label, strength) in MODELS.items():
            for seed in seeds if model != "sharpness" else seeds[:1]:
                name = f"{dataset}__{model}__seed{seed}"
                names.append(name)
                write_job(run.job(name), dataset, model, label, seed, strength + 0.2 * number)
        findings = [
            AuditFinding("patients", "finding", "3 patients are in train and test."),
            AuditFinding("x", "note", "ok"),
        ]
        shortcuts = [ShortcutResult("file size", 0.81, 0.7, 0.9, "higher")]
        info = DatasetInfo(dataset, 100, 20, 0, N_IMAGES // 2, N_IMAGES // 2, 40, True, findings, shortcuts)
        write_json(run.dataset_file(dataset), info)
    failed = run.job(f"{datasets[-1]}__ddad__seed0")
    failed.write(
        "job", JobInfo(failed.path.name, datasets[-1], "ddad", "Ddad", 0, "published", "trained", "cpu", "", "none", {})
    )
    failed.write("status", JobStatus("out_of_memory", 12.0, "Used 9 GiB of 8 GiB."))
    names += [failed.path.name, f"{datasets[-1]}__ddad__seed1"]
    write_json(folder / "jobs.json", names)
    write_json(
        folder / "plan.json",
        RunInfo(
            "trial",
            "anomalib-medical benchmark --config x.yaml",
            "v1-3-gabc",
            {"torch": "2.10"},
            {"cpu": "2 cores"},
            "2026-11-21T12:00:00Z",
        ),
    )
    plan = {
        "name": "trial",
        "protocol": "published",
        "models": {name: {"label": label} for name, (label, _) in MODELS.items()} | {"ddad": {"label": "Ddad"}},
        "datasets": {name: {} for name in datasets},
    }
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return run


def scores_table(seed: int, strength: float, n: int = N_IMAGES) -> pd.DataFrame:
    """Scores of ``n`` test images, two a patient, and ten held-out normals."""
    rng = np.random.default_rng(5)
    labels = np.arange(n) // 2 % 2
    shared = rng.normal(size=n)
    raw = shared + strength * labels + 0.3 * np.random.default_rng(seed).normal(size=n)
    place = np.arange(n)
    test = pd.DataFrame(
        {
            "path_hash": [f"i{i:03}" for i in place],
            "patient_hash": [f"p{i // 2:03}" for i in place],
            "split": "test",
            "label": labels,
            "class_name": np.where(labels == 1, np.where(place % 3 == 0, "cyst", "mass"), "normal"),
            "raw_score": raw,
            "score": np.clip(raw / 8 + 0.4, 0, 1),
            "meta_view": np.where(place % 5 < 3, "AP", "PA"),
            "meta_age": [str(i) for i in place],
        }
    )
    held = test[test.label == 0].head(10).assign(split="val")
    return pd.concat([held, test], ignore_index=True)


def write_job(job: JobFolder, dataset: str, model: str, label: str, seed: int, strength: float) -> None:
    """Write a finished job; trivial ones have no maps."""
    trivial = model == "sharpness"
    job.write(
        "job",
        JobInfo(
            job.path.name,
            dataset,
            model,
            label,
            seed,
            "published",
            "trivial" if trivial else "trained",
            "cpu",
            "" if trivial else "ab" * 32,
            "none" if trivial else "file",
            {"class_path": label},
        ),
    )
    table = scores_table(seed, strength)
    job.write_scores(table)
    job.write("thresholds", Thresholds(1.5, None if trivial else 0.7, 0.95, 10, "95% quantile of held-out normals"))
    if trivial:
        job.write("cost", Cost(not_measured={"latency": "no network", "parameters": "no network"}))
    else:
        test = table[table.split == "test"]
        _write_maps(job, test, seed)
        pd.DataFrame({"epoch": [0, 1, 2], "seconds": [1.0, 2.0, 3.0], "image_auroc": [0.6, 0.9, 0.8]}).to_csv(
            job.path / "epochs.csv", index=False
        )
        latency = {"torch": Latency(20.0 * (seed + 1), 31.0, 50, "cpu"), "openvino": Latency(9.0, 12.0, 50, "CPU")}
        (job.path / "model.ckpt").write_bytes(b"weights")
        job.write("weights", Weights("model.ckpt", label, 7, []))
        job.write("cost", Cost(61.5, 300, 3, 900.0, None, latency, 11_000_000, 44_000_000))
    job.write("status", JobStatus("done", 70.0))


def _write_maps(job: JobFolder, test: pd.DataFrame, seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(test), 12, 12), dtype=bool)
    masks[test.label.to_numpy() == 1, 3:7, 3:7] = True
    maps = rng.random(masks.shape) * 0.8 + 0.3 * masks
    marks = maps > 0.7
    cells = [(a & b).sum(axis=(1, 2)).astype(float) for a, b in ((masks, marks), (~masks, marks), (masks, ~marks))]
    job.write_pixels(PixelResult(bin_pixels(maps, masks, n_bins=50), *cells))
    raw = test.raw_score.to_numpy()
    job.write("faults", Faults(4.0, 16, list(raw + test.label.to_numpy()), list(raw)))
    cases = [("i001", "highest", 1, 3.5), ("i002", "highest", 0, 2.5)]
    job.write("gallery/gallery", [GalleryEntry(name, f"{name}.png", *case) for name, *case in cases])
    for name in ("i001", "i002"):
        Image.fromarray(rng.integers(0, 255, (64, 192, 3), dtype=np.uint8)).save(job.path / "gallery" / f"{name}.png")
