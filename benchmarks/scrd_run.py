"""One job of `scrd_real.py`: train under the cap, score the whole test set with the last weights, measure."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from anomalib.data import AnomalibDataModule, AnomalibDataset
from anomalib.models.components import AnomalibModule
from lightning.pytorch import Trainer, seed_everything
from scrd_jobs import FloatArray, ModelOptions, TrainedJob, TrivialJob
from torch.utils.data import DataLoader, Dataset

from anomalib_medical.metrics import (
    Estimate,
    aupro,
    bin_pixels,
    image_auroc,
    image_average_precision,
    pixel_auroc,
    sensitivity,
    specificity,
)

SPECIFICITY = 0.95


@dataclass(frozen=True)
class RunOptions:
    """How a job is run."""

    minutes: float
    max_steps: int | None
    batch_size: int
    accelerator: str
    num_workers: int
    patient_pattern: str | None
    n_resamples: int


@dataclass
class Scored:
    """What a model said about N images."""

    paths: list[str]
    labels: npt.NDArray[np.bool_]
    scores: FloatArray
    maps: npt.NDArray[np.float32] | None = None
    masks: npt.NDArray[np.bool_] | None = None
    scale_weights: FloatArray | None = None


def run_job(
    job: TrainedJob | TrivialJob, datamodule: AnomalibDataModule, model_options: ModelOptions, options: RunOptions
) -> tuple[dict[str, Any], Scored]:
    """Run one job.

    Returns:
        The measurements, and the raw scores on the test set.
    """
    datamodule.prepare_data()
    datamodule.setup()
    counts = {"n_train": len(datamodule.train_data), "n_held_out": len(datamodule.val_data)}
    if isinstance(job, TrivialJob):
        started = time.monotonic()
        held_out, test = (_score_paths(job, datamodule, part) for part in (datamodule.val_data, datamodule.test_data))
        timing = {"train_seconds": 0.0, "steps": 0, "losses": {}, "score_seconds": time.monotonic() - started}
        threshold = float("nan")
    else:
        model, timing = _train(job, datamodule, model_options, options)
        held_out, test, threshold, timing["score_seconds"] = _score_all(model, datamodule, options)
    return {**counts, **timing, **_measure(held_out, test, threshold, options)}, test


def _train(
    job: TrainedJob, datamodule: AnomalibDataModule, model_options: ModelOptions, options: RunOptions
) -> tuple[AnomalibModule, dict[str, Any]]:
    seed_everything(model_options.seed)
    model = job.build(model_options)
    trainer = Trainer(
        max_time=None if job.epochs else timedelta(minutes=options.minutes),
        max_epochs=job.epochs or -1,
        max_steps=-1 if job.epochs or options.max_steps is None else options.max_steps,
        accelerator=options.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    batch_size = job.batch_size or options.batch_size
    data = datamodule.train_data
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=batch_size,
        shuffle=True,
        drop_last=job.epochs is None and len(data) >= batch_size,
        collate_fn=data.collate_fn,
        num_workers=options.num_workers,
        persistent_workers=options.num_workers > 0,
        # Its own generator: models draw different amounts from the global one, and all must see one order.
        generator=torch.Generator().manual_seed(model_options.seed),
    )
    started = time.monotonic()
    if job.uses_datamodule:
        datamodule.train_batch_size = batch_size
        trainer.limit_val_batches = 0  # validated once, below, as the others
        trainer.fit(model, datamodule=datamodule)
        trainer.limit_val_batches = 1.0
    else:
        trainer.fit(model, train_dataloaders=loader)
    seconds = time.monotonic() - started
    losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if isinstance(getattr(model, "post_processor", None), torch.nn.Module):
        # Fits the threshold on the held-out normals.
        trainer.validate(model, dataloaders=_loader(datamodule.val_data, options), verbose=False)
    return model, {"train_seconds": seconds, "steps": trainer.global_step, "losses": losses}


def _loader(data: Dataset[Any], options: RunOptions) -> DataLoader[Any]:
    collate: Callable[[list[Any]], Any] = data.collate_fn  # type: ignore[attr-defined]
    return DataLoader(data, batch_size=options.batch_size, collate_fn=collate, num_workers=options.num_workers)


def _score_all(
    model: AnomalibModule, datamodule: AnomalibDataModule, options: RunOptions
) -> tuple[Scored, Scored, float, float]:
    device = torch.device("cuda" if options.accelerator in {"gpu", "cuda"} else "cpu")
    model = model.to(device).eval()
    held_out = _score(model, _loader(datamodule.val_data, options), device)
    started = time.monotonic()
    test = _score(model, _loader(datamodule.test_data, options), device)
    seconds = time.monotonic() - started
    threshold = getattr(getattr(model, "post_processor", None), "_image_threshold", torch.tensor(float("nan")))
    return held_out, test, float(threshold), seconds


@torch.inference_mode()
def _score(model: AnomalibModule, loader: DataLoader[Any], device: torch.device) -> Scored:
    """Collect raw scores and maps: the torch model alone, without the post-processor."""
    paths: list[str] = []
    labels, scores, maps, masks, weights = [], [], [], [], []
    for batch in loader:
        images, truth = model.pre_processor.transform(batch.image, batch.gt_mask)
        images = images.to(device)
        output = model.model(images)
        paths += batch.image_path
        labels.append(batch.gt_label.cpu().numpy().astype(bool))
        scores.append(output.pred_score.float().cpu().numpy().reshape(-1).astype(np.float64))
        if output.anomaly_map is not None:
            maps.append(output.anomaly_map.float().cpu().numpy().reshape(len(images), *output.anomaly_map.shape[-2:]))
            if truth is not None:
                masks.append(truth.numpy().astype(bool).reshape(maps[-1].shape))
        of_scales = model.model.scale_weights(images) if hasattr(model.model, "scale_weights") else None
        if of_scales is not None:
            weights.append(of_scales.float().cpu().numpy().astype(np.float64))
    complete = bool(masks) and len(masks) == len(maps)
    return Scored(
        paths=paths,
        labels=np.concatenate(labels),
        scores=np.concatenate(scores),
        maps=np.concatenate(maps) if maps else None,
        masks=np.concatenate(masks) if complete else None,
        scale_weights=np.concatenate(weights) if weights else None,
    )


def _score_paths(job: TrivialJob, datamodule: AnomalibDataModule, part: AnomalibDataset) -> Scored:
    train, paths = (list(map(str, data.samples.image_path)) for data in (datamodule.train_data, part))
    return Scored(paths, part.samples.label_index.to_numpy().astype(bool), job.score(train, paths))


def _measure(held_out: Scored, test: Scored, threshold: float, options: RunOptions) -> dict[str, Any]:
    patients = patients_of(test.paths, options.patient_pattern)
    n_resamples = options.n_resamples
    own = image_auroc(test.scores, test.labels, patients, n_resamples=n_resamples)
    result: dict[str, Any] = {
        "n_images": own.n_images,
        "n_abnormal": int(test.labels.sum()),
        "n_patients": own.n_patients,
        "image_auroc": _plain(own),
        "image_ap": _plain(image_average_precision(test.scores, test.labels, patients, n_resamples=n_resamples)),
        "image_auroc_mean": None,
        "image_auroc_max": None,
        "pixel_auroc": None,
        "aupro": None,
        "thresholds": {},
        "scale_weights": None,
    }
    if test.maps is not None:
        for name, reduce in (("mean", np.mean), ("max", np.max)):
            reduced = reduce(test.maps, axis=(1, 2))
            estimate = image_auroc(reduced, test.labels, patients, n_resamples=n_resamples)
            result[f"image_auroc_{name}"] = _plain(estimate)
    # An abnormal image without a mask would be counted as all normal.
    if test.maps is not None and test.masks is not None and test.masks[test.labels].any(axis=(1, 2)).all():
        counts = bin_pixels(test.maps, test.masks)
        result["pixel_auroc"] = _plain(pixel_auroc(counts, patients, n_resamples=n_resamples))
        result["aupro"] = _plain(aupro(counts, patients, n_resamples=n_resamples))
    quantile = float(np.quantile(held_out.scores, SPECIFICITY, method="higher"))
    for name, value in (("post_processor", threshold), (f"quantile_{SPECIFICITY}", quantile)):
        if np.isfinite(value):
            result["thresholds"][name] = {
                "threshold": value,
                "specificity": _plain(specificity(test.scores, test.labels, value)),
                "sensitivity": _plain(sensitivity(test.scores, test.labels, value)),
            }
    if test.scale_weights is not None:
        for name, kind in (("normal", ~test.labels), ("abnormal", test.labels)):
            weights = test.scale_weights[kind]
            result["scale_weights"] = (result["scale_weights"] or {}) | {
                name: {"mean": weights.mean(0).tolist(), "std": weights.std(0).tolist()}
            }
    return result


def patients_of(paths: list[str], pattern: str | None) -> list[str] | None:
    """Return the patient of each path: the first group of the pattern found in its stem.

    Raises:
        ValueError: If a stem does not match.
    """
    if pattern is None:
        return None
    matches = [re.search(pattern, Path(path).stem) for path in paths]
    if not all(matches):
        wrong = Path(paths[matches.index(None)]).name
        msg = f"the patient pattern {pattern!r} does not match the stem of {wrong}."
        raise ValueError(msg)
    return [match.group(1) for match in matches if match]


def _plain(estimate: Estimate) -> dict[str, float | None]:
    """Make an estimate fit for JSON, which has no nan."""
    finite = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: round(value, 6) if np.isfinite(value) else None for name, value in finite.items()}
