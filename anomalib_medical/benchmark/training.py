"""Training a job's model under the wall-clock cap, and scoring it once with its last weights."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import RunningStage
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from anomalib_medical.benchmark.build import build_datamodule, build_model, build_tasks
from anomalib_medical.benchmark.plan import JobSpec, Plan
from anomalib_medical.benchmark.scoring import ScoreCollector, Scored
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.models.d24fad import D24fad

# Test scores during training: about so many of them, whatever the cap.
_EPOCH_SCORES = 20


@dataclass
class Trained:
    """A trained model and what was measured on the way.

    Attributes:
        model: With the last weights and its threshold.
        trainer: That trained and scored it.
        teacher: Where its backbone's weights come from.
        data: The dataset it is scored on.
        held_out: Scores of held-out normals.
        test: Scores of the test set.
        train_seconds: Wall clock of the training.
        steps: Optimizer steps.
        epochs: Epochs begun.
        epoch_scores: Test scores of epochs.
    """

    model: AnomalibModule
    trainer: Trainer
    teacher: str
    data: MedicalDataModule
    held_out: Scored
    test: Scored
    train_seconds: float
    steps: int
    epochs: int
    epoch_scores: list[dict[str, float]]


class TrainingClock(Timer):
    """Ends the training at the cap; what `pause` measures does not count."""

    def __init__(self, minutes: float) -> None:
        super().__init__(timedelta(minutes=minutes), verbose=False)
        self.paused = 0.0
        self.epochs = 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count."""
        del trainer, pl_module
        self.epochs += 1

    def time_elapsed(self, stage: str = RunningStage.TRAINING) -> float:
        """Seconds since the training began, less pauses."""
        return super().time_elapsed(stage) - (self.paused if stage == RunningStage.TRAINING else 0.0)


class EpochScores(Callback):
    """Scores the test set at ends of epochs, to show what choosing the best of them adds. Nothing is chosen by it.

    Args:
        clock: Stands still meanwhile.
        loader: Makes the test set's loader.
        interval: Seconds of training between two of them.
    """

    def __init__(self, clock: TrainingClock, loader: Callable[[], DataLoader[Any]], interval: float) -> None:
        self._clock = clock
        self._loader = loader
        self._interval = interval
        self._next = 0.0
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score what the epoch before left, if it is time: at its end, models have yet to finish it."""
        if trainer.current_epoch > 0 and self._clock.time_elapsed() >= self._next:
            self._score(trainer.current_epoch - 1, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the last weights."""
        self._score(trainer.current_epoch, pl_module)

    def _score(self, epoch: int, pl_module: LightningModule) -> None:
        started, seconds = time.monotonic(), self._clock.time_elapsed()
        if not isinstance(pl_module, AnomalibModule):
            return
        self._next = seconds + self._interval
        # Training goes on as if nothing had happened: same random numbers, same modes.
        modes = {module: module.training for module in pl_module.modules()}
        with torch.random.fork_rng(), torch.no_grad():
            pl_module.eval()
            auroc = self._auroc(pl_module)
        for module, training in modes.items():
            module.training = training
        self.rows.append({"epoch": epoch, "seconds": seconds, "image_auroc": auroc})
        self._clock.paused += time.monotonic() - started

    def _auroc(self, model: AnomalibModule) -> float:
        scores: list[float] = []
        labels: list[int] = []
        pre_processor: Any = model.pre_processor
        network: Any = model.model
        for batch in self._loader():
            images = pre_processor.transform(batch.image.to(model.device))
            scores += network(images).pred_score.flatten().float().cpu().tolist()
            labels += batch.gt_label.tolist()
        # A training that runs away goes on to its end, where its scores are looked at.
        return float(roc_auc_score(labels, scores)) if np.isfinite(scores).all() else float("nan")


def train_and_score(plan: Plan, job: JobSpec, device: str) -> Trained:
    """Run a job with a model.

    Args:
        plan: The plan.
        job: One of its jobs.
        device: ``cpu`` or ``cuda``; which GPU, the process's environment says.
    """
    seed_everything(job.seed, workers=True, verbose=False)
    data = build_datamodule(plan, job.dataset, job.model.train_batch_size)
    data.prepare_data()
    data.setup()
    model, teacher = build_model(plan, job)
    clock, collector = TrainingClock(plan.limits.train_minutes), ScoreCollector()
    callbacks: list[Callback] = [clock, collector]
    epochs = EpochScores(clock, data.test_dataloader, 60 * plan.limits.train_minutes / _EPOCH_SCORES)
    # A memory bank has no earlier weights to choose from, and none at all before its epoch has ended.
    if plan.protocol == "published" and not isinstance(model, MemoryBankMixin):
        # Before the clock, whose last check would else count the scoring.
        callbacks.insert(0, epochs)
    # Building models takes different amounts from the random state: all start the training from the same one.
    seed_everything(job.seed, workers=True, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(model, job, device, callbacks, Path(folder))
        source = build_tasks(plan, job) if job.model.few_shot else data
        # The threshold is set once, below: validating costs training time.
        trainer.limit_val_batches = 0
        trainer.fit(model, datamodule=source)
        trainer.limit_val_batches = 1.0
        seconds = clock.time_elapsed()
        _set_threshold(model, trainer, data, source)
        trainer.test(model, dataloaders=data.val_dataloader(), verbose=False)
        held_out = collector.scored()
        trainer.test(model, dataloaders=data.test_dataloader(), verbose=False)
        test = collector.scored()
    return Trained(
        model,
        trainer,
        teacher,
        data,
        held_out,
        test,
        seconds,
        trainer.global_step,
        clock.epochs,
        epochs.rows,
    )


def _trainer(model: AnomalibModule, job: JobSpec, device: str, callbacks: list[Callback], folder: Path) -> Trainer:
    arguments: dict[str, Any] = {
        "max_epochs": -1,
        "num_sanity_val_steps": 0,
        **model.trainer_arguments,
        **job.model.trainer,
    }
    return Trainer(
        **{
            **arguments,
            "callbacks": callbacks,
            "accelerator": "cpu" if device == "cpu" else "gpu",
            "devices": 1,
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": folder,
        }
    )


def _set_threshold(model: AnomalibModule, trainer: Trainer, data: MedicalDataModule, source: MedicalDataModule) -> None:
    """Take the threshold from held-out normals of the scored dataset."""
    if not isinstance(model, D24fad):
        trainer.validate(model, datamodule=data, verbose=False)
        return
    # What it learnt from says nothing about the target's threshold, nor does a patient of its support.
    samples = data.val_data.samples
    support = set(getattr(source, "support_patients", ()))
    rows = [row for row, patient in enumerate(samples.patient_id) if patient not in support]
    data.val_data = data.val_data.subsample(rows)
    # The images and not the datamodule, which would be set up again, with the support's patients.
    model.recalibrate([torch.as_tensor(data.val_data[row].image).float() for row in range(len(rows))])
