"""A job's scores: of a model trained under the wall-clock cap, scored once with its last weights; or trivial ones."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from anomalib import LearningType
from anomalib.models.components import AnomalibModule, MemoryBankMixin
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.trainer.states import RunningStage
from sklearn.metrics import roc_auc_score
from torch.utils.data import DataLoader

from anomalib_medical.benchmark.build import TeacherSource, build_model, build_tasks, ready_datamodule
from anomalib_medical.benchmark.plan import Plan
from anomalib_medical.benchmark.records import PlannedJob
from anomalib_medical.benchmark.scoring import ScoreCollector, Scored
from anomalib_medical.benchmark.trivial import TrivialScore
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.few_shot.tasks import FewShotTasks
from anomalib_medical.models.d24fad import D24fad
from anomalib_medical.post_processing import MedicalPostProcessor

# Test scores during training: about so many of them, whatever the cap.
_EPOCH_SCORES = 20
# Between two lines of how far a training is: of many jobs on one shared disk too.
_STEP_SECONDS = 2.0


@dataclass
class Result:
    """What a job has scored, and what was measured on the way."""

    data: MedicalDataModule
    held_out: Scored  # normals of the training side
    test: Scored
    post_processor: Any  # with the threshold from the held-out normals
    train_seconds: float
    steps: int | None = None
    epochs: int | None = None  # begun
    epoch_scores: list[dict[str, float]] = field(default_factory=list)
    teacher: TeacherSource = "none"
    model: Any = None  # with the last weights; None of a trivial score
    trainer: Any = None


class TrainingClock(Timer):
    """Ends the training at the cap; what `paused` says does not count."""

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


class Steps(Callback):
    """Says every two seconds how far a training is, by what ends it first: the cap, its steps or its epochs."""

    def __init__(self, clock: TrainingClock, minutes: float, say: Callable[[str], None]) -> None:
        self._clock, self._seconds, self._say = clock, 60 * minutes, say
        self._next = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        """Say it, if it is time."""
        del pl_module, outputs, batch
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _STEP_SECONDS
        done = [self._clock.time_elapsed() / self._seconds]
        if trainer.max_steps > 0:
            done.append(trainer.global_step / trainer.max_steps)
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            done.append((trainer.current_epoch + (batch_idx + 1) / trainer.num_training_batches) / trainer.max_epochs)
        losses = [float(value) for name, value in trainer.callback_metrics.items() if "loss" in name]
        loss = f", loss {losses[0]:.3g}" if losses else ""
        self._say(f"training {min(max(done), 1):.0%}, step {trainer.fit_loop.total_batch_idx + 1}{loss}")


class EpochScores(Callback):
    """Scores the test set at ends of epochs, to show what choosing the best of them adds. Nothing is chosen by it."""

    def __init__(self, clock: TrainingClock, loader: Callable[[], DataLoader[Any]], interval: float) -> None:
        self._clock = clock  # stands still meanwhile
        self._loader = loader  # of the test set
        self._interval = interval  # seconds of training between two of them
        self._next = 0.0
        self.rows: list[dict[str, float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score what the epoch before left, if it is time: at its end, models have yet to finish it."""
        if trainer.current_epoch > 0 and self._clock.time_elapsed() >= self._next:
            self._score(trainer.current_epoch - 1, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Score the last weights."""
        self._score(trainer.current_epoch, pl_module)

    def _score(self, epoch: int, model: Any) -> None:  # noqa: ANN401 - any of anomalib's
        started, seconds = time.monotonic(), self._clock.time_elapsed()
        self._next = seconds + self._interval
        # Training goes on as if nothing had happened: same random numbers, same modes.
        modes = {module: module.training for module in model.modules()}
        with torch.random.fork_rng(), torch.no_grad():
            auroc = self._auroc(model.eval())
        for module, training in modes.items():
            module.training = training
        self.rows.append({"epoch": epoch, "seconds": seconds, "image_auroc": auroc})
        self._clock.paused += time.monotonic() - started

    def _auroc(self, model: Any) -> float:  # noqa: ANN401 - any of anomalib's
        scores: list[float] = []
        labels: list[int] = []
        for batch in self._loader():
            images = model.pre_processor.transform(batch.image.to(model.device))
            scores += model.model(images).pred_score.flatten().float().cpu().tolist()
            labels += batch.gt_label.tolist()
        # A training that runs away goes on to its end, where its scores are looked at.
        return float(roc_auc_score(labels, scores)) if np.isfinite(scores).all() else float("nan")


def train_and_score(plan: Plan, job: PlannedJob, device: str, say: Callable[[str], None]) -> Result:
    """Run a job with a model on ``cpu`` or ``cuda``, which GPU, the process's environment says; ``say`` takes steps."""
    seed_everything(job.seed, workers=True, verbose=False)
    settings = plan.settings(job.model, job.dataset)
    data = ready_datamodule(plan, job.dataset, settings.train_batch_size)
    model, teacher = build_model(plan, job)
    clock, collector = TrainingClock(plan.limits.train_minutes), ScoreCollector()
    callbacks: list[Callback] = [clock, collector, Steps(clock, plan.limits.train_minutes, say)]
    epochs = EpochScores(clock, data.test_dataloader, 60 * plan.limits.train_minutes / _EPOCH_SCORES)
    # A memory bank has no earlier weights to choose from, and none at all before its epoch has ended.
    if plan.protocol == "published" and not isinstance(model, MemoryBankMixin):
        # Before the clock, whose last check would else count the scoring.
        callbacks.insert(0, epochs)
    # Building models takes different amounts from the random state: all start the training from the same one.
    seed_everything(job.seed, workers=True, verbose=False)
    with tempfile.TemporaryDirectory() as folder:
        off = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
        fixed: dict[str, Any] = dict.fromkeys(off, False)
        fixed |= {"accelerator": "cpu" if device == "cpu" else "gpu", "devices": 1, "default_root_dir": folder}
        arguments = {"max_epochs": -1, "num_sanity_val_steps": 0, **model.trainer_arguments, **settings.trainer}
        trainer = Trainer(**arguments | fixed, callbacks=callbacks)
        source = build_tasks(plan, job) if settings.few_shot else data
        # The threshold is set once, below: validating costs training time.
        trainer.limit_val_batches = 0
        # As anomalib's engine does: the others have no training step.
        if model.learning_type == LearningType.ONE_CLASS:
            trainer.fit(model, datamodule=source)
        trainer.limit_val_batches = 1.0
        seconds = clock.time_elapsed()
        say("scoring")
        set_threshold(model, trainer, data, source)
        scored = []
        for loader in (data.val_dataloader(), data.test_dataloader()):
            trainer.test(model, dataloaders=loader, verbose=False)
            scored.append(collector.scored())
    return Result(
        data=data,
        held_out=scored[0],
        test=scored[1],
        post_processor=model.post_processor,
        train_seconds=seconds,
        steps=trainer.global_step,
        epochs=clock.epochs,
        epoch_scores=epochs.rows,
        teacher=teacher,
        model=model,
        trainer=trainer,
    )


def set_threshold(model: AnomalibModule, trainer: Trainer, data: MedicalDataModule, source: MedicalDataModule) -> None:
    """Take the threshold from held-out normals of the scored dataset."""
    if not isinstance(model, D24fad):
        trainer.validate(model, datamodule=data, verbose=False)
        return
    # What it learnt from says nothing about the target's threshold, nor does a patient of its support.
    if isinstance(source, FewShotTasks):
        others = ~data.val_data.samples.patient_id.isin(source.support_patients)
        data.val_data = data.val_data.subsample(np.flatnonzero(others).tolist())
    # The images and not the datamodule, which would be set up again, with the support's patients.
    model.recalibrate([image_of(data.val_data, row) for row in range(len(data.val_data))])


def score_trivially(plan: Plan, job: PlannedJob) -> Result:
    """Run a job with a trivial score."""
    data = ready_datamodule(plan, job.dataset)
    scorer = TrivialScore(plan.settings(job.model, job.dataset).class_path, job.seed)
    started = time.monotonic()
    scorer.fit(image_of(data.train_data, row) for row in range(len(data.train_data)))
    seconds = time.monotonic() - started
    held_out, test = (
        Scored(
            [str(path) for path in part.samples.image_path],
            np.array([scorer.score(image_of(part, row)) for row in range(len(part))], np.float32),
        )
        for part in (data.val_data, data.test_data)
    )
    post_processor = MedicalPostProcessor(target_specificity=plan.target_specificity)
    post_processor.calibrate(torch.from_numpy(held_out.scores))
    return Result(data, held_out, test, post_processor, seconds)


def image_of(data: MedicalDataset, row: int) -> torch.Tensor:
    """An image ``(3, H, W)`` in [0, 1] at its own size."""
    image: Any = data[row].image
    return torch.as_tensor(image).float()
