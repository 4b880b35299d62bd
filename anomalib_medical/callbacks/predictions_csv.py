"""Saves the score of every image: `anomalib predict` and `anomalib test` keep images only."""

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from anomalib.post_processing import PostProcessor
from anomalib.visualization import ImageVisualizer
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.data.visualizer import HEATMAPS
from anomalib_medical.io import counted, numbered
from anomalib_medical.post_processing import device_facts, raw_threshold

from .predictions_file import (
    PartialFile,
    Prediction,
    check_writable,
    claim_number,
    each_prediction,
    merge_ranks,
    publish,
    rank_path,
    read_predictions,
    rename_complete,
)
from .predictions_part import PartOfArchive
from .series_csv import write_series

logger = logging.getLogger(__name__)


@dataclass
class _Pending:
    """A batch that the model has scored and that the post-processor may not have seen yet."""

    batch: Any  # what the model's step returned: a batch with the predictions in it
    given: Tensor
    raw: Tensor


class PredictionsCSV(Callback):
    """Writes `predictions.csv` into the run's folder, beside `images/`, in test and predict.

    The columns are the fields of `Prediction`, always all of them: what neither model nor data say is empty. The
    uncertainty is the attribute `uncertainty`, (B,), of the batch that the model's step returns.

    A finished file is never overwritten: the next one is `predictions_1.csv`, and its heatmaps, which anomalib would
    write over those in `images/`, go to `images_1/`. A run that stops early leaves `predictions_partial.csv` with the
    images scored so far.

    Beside it are `series.csv` and `patients.csv`, see `edge.results`, where images are slices of series; not of parts,
    where half a series may lie.

    If the model compares images with a support, `predictions_support.json` beside the file says with which: the model's
    `support_record`.

    In a configuration file:

        trainer:
          callbacks:
            - class_path: anomalib_medical.callbacks.PredictionsCSV

    On the command line: `--trainer.callbacks+=anomalib_medical.callbacks.PredictionsCSV`.

    Attributes:
        path: The file written last, None before.
        heatmaps: The folder of the heatmaps beside it; None if there are none, or where a visualizer was told to.
        part: If what is predicted is a part of an archive, how it is written instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path: Path | None = None
        self.heatmaps: Path | None = None
        self.part: PartOfArchive | None = None
        self._folder = Path()
        self._file: PartialFile | None = None
        self._pending: _Pending | None = None
        self._hasher: PatientHasher | None = None
        self._post_processor: PostProcessor | None = None
        self._number = 0
        self._redirected: list[ImageVisualizer] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Fail before hours of work, not after, if the run's folder cannot be written."""
        del pl_module, stage
        self._folder = self.part.folder if self.part else Path(trainer.default_root_dir)
        if trainer.is_global_zero:
            check_writable(self._folder)
        if self.part:
            # Before Lightning reads a first image, which may be done.
            self._file = self.part.open()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the file."""
        post_processor = getattr(pl_module, "post_processor", None)
        callbacks: Sequence[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it dynamically
        if post_processor in callbacks and callbacks.index(post_processor) < callbacks.index(self):
            msg = "PredictionsCSV comes after the post-processor: list it in the trainer's callbacks, not the model's."
            raise ValueError(msg)
        self._post_processor = post_processor if isinstance(post_processor, PostProcessor) else None
        self._pending = None
        if self.part:
            self._hasher = PatientHasher(self._folder)
            self._redirected = _without_folder(callbacks)
            self._redirect(self.part.heatmaps)
            return
        # anomalib numbers the run's folder in every process anew: all processes use that of the first.
        first = PartialFile.first_free(self._folder) if trainer.is_global_zero else None
        path = trainer.strategy.broadcast(first.path if first else Path())
        self._file = first or PartialFile(rank_path(path, trainer.global_rank))
        self._hasher = PatientHasher(path.parent)
        self._claim_heatmaps(trainer, callbacks, path.parent)

    def on_test_batch_start(self, *args: object, **kwargs: object) -> None:
        """Write the batch before, which is post-processed by now."""
        del args, kwargs
        self._flush()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, *args: object, **kwargs: object
    ) -> None:
        """Take the raw scores, which the post-processor is about to replace."""
        del trainer, pl_module, args, kwargs
        self._flush()
        score = getattr(outputs, "pred_score", None)
        if score is not None:
            self._pending = _Pending(outputs, given=score, raw=score.detach().float().clone())

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the complete file its name."""
        self._finish(trainer, pl_module, trainer.test_dataloaders)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the complete file its name."""
        self._finish(trainer, pl_module, trainer.predict_dataloaders)

    on_predict_start = on_test_start
    on_predict_batch_start = on_test_batch_start
    on_predict_batch_end = on_test_batch_end

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep what was scored under its partial name."""
        del trainer, pl_module, exception
        if self._file is None:
            self._close_part()
            return
        pending = self._pending
        # The exception may have come before the post-processor's turn: its columns would be wrong.
        if pending and (self._post_processor is None or pending.batch.pred_score is not pending.given):
            self._flush()
        self._file.close()
        self._close_part()
        self._release_heatmaps()
        logger.warning("Stopped early: the scores of %s are in %s", counted(self._file.count, "image"), self._file.path)
        self._file = self._pending = None

    def _claim_heatmaps(self, trainer: Trainer, callbacks: Sequence[Callback], folder: Path) -> None:
        """Give heatmaps that have no folder of the user's choice a new one, of the same number as the predictions."""
        self._redirected = _without_folder(callbacks)
        self._number = 0
        if not self._redirected:
            return
        number = claim_number(folder, HEATMAPS) if trainer.is_global_zero else 0
        self._number = trainer.strategy.broadcast(number)
        self._redirect(numbered(folder, HEATMAPS, self._number))

    def _redirect(self, folder: Path) -> None:
        self.heatmaps = folder if self._redirected else None
        for visualizer in self._redirected:
            visualizer.output_dir = folder

    def _release_heatmaps(self) -> None:
        """Let the next run choose its own folder."""
        for visualizer in self._redirected:
            visualizer.output_dir = None
        self._redirected = []

    def _flush(self) -> None:
        if self._file and self._pending and self._hasher:
            self._file.write(_rows(self._pending, self._post_processor, self._hasher))
        self._pending = None
        if self._file and self.part:
            self.part.note(self._file.count)

    def _close_part(self) -> None:
        if self.part:
            self.part.close()

    def _finish(self, trainer: Trainer, model: LightningModule, dataloaders: object) -> None:
        if self._file is None:  # of a part that was complete
            self._close_part()
            self._release_heatmaps()
            return
        self._flush()
        self._file.close()
        trainer.strategy.barrier()
        if trainer.is_global_zero:
            partial = self._file.path
            if trainer.world_size > 1:
                partial = _merge(partial, trainer.world_size, dataloaders)
            self.path = rename_complete(partial, self.part.final) if self.part else publish(partial, self._number)
            self._close_part()
            finite = Counter(math.isfinite(float(row.raw_score)) for row in each_prediction(self.path))
            images = counted(finite.total(), "image")
            logger.info("Wrote the scores of %s to %s", images, self.path)
            if without := finite[False]:
                logger.warning("%d of %s without a score (nan or infinite), and so without a label.", without, images)
            if self.part is None and self._hasher:
                loaders = dataloaders if isinstance(dataloaders, list) else [dataloaders]
                datasets = [getattr(loader, "dataset", None) for loader in loaders]
                write_series(self.path, datasets, device_facts(self._post_processor), self._hasher)
            record = getattr(model, "support_record", None)
            if record is not None:
                # Beside the predictions, which support images they rest on.
                content = json.dumps(record, indent=2)
                self.path.with_name(f"{self.path.stem}_support.json").write_text(content + "\n", encoding="utf-8")
        self._release_heatmaps()
        self._file = None


def _without_folder(callbacks: Sequence[Callback]) -> list[ImageVisualizer]:
    return [callback for callback in callbacks if isinstance(callback, ImageVisualizer) and callback.output_dir is None]


def _normalises(post_processor: PostProcessor | None) -> bool:
    """Whether there is a normalised score: without a known range anomalib leaves the raw one in its place."""
    if post_processor is None or not post_processor.enable_normalization:
        return False
    return not bool(torch.isnan(post_processor.image_max - post_processor.image_min))


def _rows(pending: _Pending, post_processor: PostProcessor | None, hasher: PatientHasher) -> list[Prediction]:
    batch, size = pending.batch, pending.raw.numel()
    threshold = raw_threshold(post_processor)
    unknown = [""] * size
    names = ("image_path", "patient_id", "uncertainty", "series_id")
    paths, patients, uncertainty, series = (getattr(batch, name, None) for name in names)
    predicted, limit = unknown, unknown
    if not math.isnan(threshold):
        # nan is above no threshold, which does not make the image normal.
        scored = pending.raw.isfinite().flatten().tolist()
        labels = _labels(batch.pred_label, size)
        predicted = [label if known else "" for label, known in zip(labels, scored, strict=True)]
        limit = [f"{threshold:.9g}"] * size
    return [
        Prediction(*row)
        for row in zip(
            [str(path) for path in paths] if paths else unknown,
            _numbers(pending.raw),
            _numbers(batch.pred_score) if _normalises(post_processor) else unknown,
            predicted,
            limit,
            _labels(batch.gt_label, size),
            [hasher.hash(patient) for patient in patients] if patients else unknown,
            unknown if uncertainty is None else _numbers(uncertainty),
            [hasher.hash(each, "s") for each in series] if series else unknown,
            strict=True,
        )
    ]


def _numbers(values: Tensor) -> list[str]:
    # Nine digits tell every float32 apart.
    return [f"{value:.9g}" for value in values.detach().float().flatten().tolist()]


def _labels(values: Tensor | None, size: int) -> list[str]:
    if values is None:
        return [""] * size
    return ["abnormal" if value else "normal" for value in values.flatten().tolist()]


def _merge(first: Path, world_size: int, dataloaders: object) -> Path:
    """Merge the partial files of all processes into a new partial file and remove them."""
    parts = [first, *(rank_path(first, rank) for rank in range(1, world_size))]
    loaders: list[Any] = dataloaders if isinstance(dataloaders, list) else [dataloaders]
    try:
        n_images = sum(len(loader.dataset) for loader in loaders)
    except (AttributeError, TypeError):
        n_images = None
    rows = merge_ranks([read_predictions(part) for part in parts], n_images)
    merged = PartialFile.first_free(first.parent)
    merged.write(rows)
    merged.close()
    for part in parts:
        part.unlink()
    return merged.path
