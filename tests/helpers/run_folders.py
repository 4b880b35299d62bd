"""Run folders of a benchmark as the runner writes them, from invented scores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from anomalib_medical.benchmark.records import (
    AuditFinding,
    Cost,
    DatasetInfo,
    GalleryEntry,
    Job,
    JobInfo,
    JobStatus,
    Latency,
    PixelResult,
    PlannedJob,
    RunInfo,
    ShortcutResult,
    Thresholds,
    Weights,
)
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.metrics import bin_pixels

N_IMAGES = 60
MODELS = {"scrd": ("Scrd", 1.6), "patchcore": ("PatchCore", 1.0), "sharpness": ("sharpness", 0.2)}
INFO = RunInfo(
    "trial",
    "anomalib-medical benchmark --config x.yaml",
    "v1-3-gabc",
    {"torch": "2.10"},
    {"cpu": "2 cores"},
    "2026-11-21T12:00:00Z",
)


def make_run(folder: Path, datasets: tuple[str, ...] = ("brain",), seeds: tuple[int, ...] = (0, 1)) -> RunFolder:
    """Write a run with three models; the last job of the plan has failed and one has not begun."""
    run = RunFolder(folder)
    planned = []
    for number, dataset in enumerate(datasets):
        for model, (_, strength) in MODELS.items():
            for seed in seeds if model != "sharpness" else seeds[:1]:
                planned.append(planned_job(dataset, model, seed))
                write_job(run, planned[-1], strength + 0.2 * number)
        findings = [
            AuditFinding("patients", "finding", "3 patients are in train and test."),
            AuditFinding("x", "note", "ok"),
        ]
        shortcuts = [ShortcutResult("file size", 0.81, 0.7, 0.9, "higher")]
        data = DatasetInfo(dataset, 100, 20, 0, N_IMAGES // 2, N_IMAGES // 2, 40, True, findings, shortcuts)
        run.data(dataset).write(Job(JobStatus("done", 1.0), data=data))
    planned += [
        PlannedJob(f"{datasets[-1]}__ddad__seed{seed}", datasets[-1], "ddad", "Ddad", seed, "trained")
        for seed in (0, 1)
    ]
    run.job(planned[-2].job).write(Job(JobStatus("out_of_memory", 12.0, "Used 9 GiB of 8 GiB.")))
    plan = {"name": "trial", "protocol": "published", "datasets": {name: {} for name in datasets}}
    run.start(plan, INFO, planned)
    return run


def planned_job(dataset: str, model: str, seed: int) -> PlannedJob:
    """A job of one of the `MODELS`."""
    kind = "trivial" if model == "sharpness" else "trained"
    return PlannedJob(f"{dataset}__{model}__seed{seed}", dataset, model, MODELS[model][0], seed, kind)


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
            "meta_view": np.where(place % 5 < 3, "AP", "PA"),
            "meta_age": [str(i) for i in place],
        }
    )
    held = test[test.label == 0].head(10).assign(split="val")
    return pd.concat([held, test], ignore_index=True)


def write_job(run: RunFolder, planned: PlannedJob, strength: float) -> None:
    """Write a finished job; trivial ones have no maps."""
    folder = run.job(planned.job)
    table = scores_table(planned.seed, strength)
    spec = {"class_path": planned.label, "protocol": "published"}
    status, source = JobStatus("done", 70.0), "95% quantile of held-out normals"
    if planned.kind == "trivial":
        folder.write_scores(table)
        cost = Cost(not_measured={"latency": "no network", "parameters": "no network"})
        info = JobInfo(**vars(planned), device="cpu", spec=spec)
        folder.write(Job(status, info, Thresholds(1.5, None, 0.95, 10, source), cost))
        return
    test = table.split == "test"
    raw = table.raw_score.where(test)
    folder.write_scores(table.assign(batch_blur=raw + table.label, image_blur=raw))
    latency = {"torch": Latency(20.0 * (planned.seed + 1), 31.0, 50, "cpu"), "openvino": Latency(9.0, 12.0, 50, "CPU")}
    (folder.path / "model.ckpt").write_bytes(b"weights")
    aurocs = {0: 0.6, 1: 0.9, 2: 0.8}
    folder.write(
        Job(
            status,
            JobInfo(**vars(planned), device="cpu", spec=spec, teacher="file", teacher_sha256="ab" * 32),
            Thresholds(1.5, 0.7, 0.95, 10, source, -2.5, 5.5),
            Cost(61.5, 300, 3, 900.0, None, latency, 11_000_000, 44_000_000),
            Weights("model.ckpt", planned.label, 7, []),
            _write_maps(folder, table[test], planned.seed),
            [{"epoch": epoch, "seconds": epoch + 1.0, "image_auroc": auroc} for epoch, auroc in aurocs.items()],
        )
    )


def _write_maps(job: JobFolder, test: pd.DataFrame, seed: int) -> list[GalleryEntry]:
    rng = np.random.default_rng(seed)
    masks = np.zeros((len(test), 12, 12), dtype=bool)
    masks[test.label.to_numpy() == 1, 3:7, 3:7] = True
    maps = rng.random(masks.shape) * 0.8 + 0.3 * masks
    marks = maps > 0.7
    cells = [(a & b).sum(axis=(1, 2)).astype(float) for a, b in ((masks, marks), (~masks, marks), (masks, ~marks))]
    job.write_pixels(PixelResult(bin_pixels(maps, masks, n_bins=50), *cells))
    (job.path / "gallery").mkdir()
    for name in ("i001", "i002"):
        Image.fromarray(rng.integers(0, 255, (64, 192, 3), dtype=np.uint8)).save(job.path / "gallery" / f"{name}.png")
    return [
        GalleryEntry("i001", "i001.png", "highest", 1, 3.5),
        GalleryEntry("i002", "i002.png", "highest", 0, 2.5),
    ]
