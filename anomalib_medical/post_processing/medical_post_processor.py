"""A post-processor whose threshold comes from held-out normal images."""

import logging
import math
import os
from typing import Any, Literal

import torch
from anomalib.data import Batch, ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor
from lightning.pytorch import LightningModule, Trainer
from torchmetrics import CatMetric

from anomalib_medical.edge.scores import order_statistic

from .held_out_groups import HeldOutGroups

logger = logging.getLogger(__name__)


_SETTINGS = ("threshold", "target_specificity", "awaits_calibration", "held_out", "groups", "series_top")


class MedicalPostProcessor(PostProcessor):
    """anomalib's post-processor with a threshold at a target specificity.

    anomalib picks the threshold that maximises F1 on labelled anomalies, which a hospital does not have. Here it is
    the score that the wanted share of held-out **normal** images stays at or below: the k-th smallest of n scores
    with ``k = ceil((n + 1) * target_specificity)``, which in expectation keeps that specificity on new normals (the
    order statistic of split conformal prediction), as far as the held-out images are exchangeable with new ones: slices
    of few patients tell less than their number says. Anomalous validation images, if any, are not looked at. The pixel
    threshold is the same order statistic of each image's largest map value: as many normal images stay without any
    marked pixel.

    Series and patients get thresholds in the same way, from held-out normal series (slices of one DICOM series or
    volume, or, of pictures without headers, of one named patient). A series' score is the mean of its `series_top`
    highest slice scores. The default, 1, is the highest one: a lesion may be on a single slice, which a mean dilutes,
    nothing has to be chosen, and the worst slice is the reason. What many slices add to it by chance is in the
    threshold, as far as held-out and new series have like numbers of slices. A patient's score is the highest of all
    series.

    Normalised scores are 0.5 at the threshold and ``0.5 * (1 + z / (1 + |z|))`` elsewhere, with z the distance from
    the threshold in units of the range of the normal scores: the same order as far as float32 can tell. anomalib's
    own linear form is clamped to [0, 1]; with normals alone to fix its range, it would clamp, and so tie, nearly all
    anomalies.

    Args:
        threshold: ``specificity`` (default), or ``f1`` for anomalib's own threshold and normalisation.
        target_specificity: Share of normal images to stay below the threshold, between 0 and 1.
        series_top: Number of highest slice scores whose mean is a series' score; 1 for the highest alone.
        **kwargs: anomalib's ``PostProcessor`` arguments.

    Raises:
        ValueError: If an argument is none of these.
    """

    def __init__(
        self,
        threshold: Literal["specificity", "f1"] = "specificity",
        target_specificity: float = 0.95,
        series_top: int = 1,
        **kwargs: Any,  # noqa: ANN401 - passed on
    ) -> None:
        super().__init__(**kwargs)
        if threshold not in {"specificity", "f1"}:
            msg = f"threshold: got {threshold!r}, expected 'specificity' or 'f1'."
            raise ValueError(msg)
        if not 0 < target_specificity < 1:
            msg = f"target_specificity: got {target_specificity}, expected a share between 0 and 1, such as 0.95."
            raise ValueError(msg)
        if series_top < 1:
            msg = f"series_top: got {series_top}, expected a number of slices of 1 or more."
            raise ValueError(msg)
        self.threshold = threshold
        self.target_specificity = target_specificity
        self._scores, self._map_minima, self._map_maxima = (CatMetric(nan_strategy="disable") for _ in range(3))
        self.series_top = series_top
        self._groups = HeldOutGroups()
        # Threshold, smallest and largest score, and number of held-out normals, of `series` and of `patient`.
        self.groups: dict[str, dict[str, float]] = {}
        self._validated_step: int | None = None
        # How many images set the thresholds; None if a checkpoint does not say.
        self.held_out: int | None = 0
        # Set while scores have no meaning that a threshold could be compared with. A plain value, which exporting can
        # decide by: a graph then gives raw scores and maps only.
        self.awaits_calibration = False

    @property
    def _checkpoint_config_keys(self) -> tuple[str, ...]:
        return (*super()._checkpoint_config_keys, *_SETTINGS)

    def load_checkpoint_config(self, config: dict[str, Any]) -> None:
        """Restore what ``checkpoint_config`` gave; from anomalib's own, its threshold and its normalisation."""
        super().load_checkpoint_config({"threshold": "f1", "held_out": None, "groups": {}, "series_top": 1} | config)

    def invalidate(self) -> None:
        """Forget threshold and score range: raw scores and no labels come out until the next calibration."""
        for _, value in self.named_buffers(recurse=False):
            value.fill_(math.nan)
        self.held_out, self.groups = 0, {}
        self.awaits_calibration = True

    def calibrate(
        self, scores: torch.Tensor, map_minima: torch.Tensor | None = None, map_maxima: torch.Tensor | None = None
    ) -> None:
        """Set threshold and score range from held-out normal images; what is NaN or infinite is left out and told.

        Args:
            scores: Raw scores ``(N,)``.
            map_minima: Smallest value of each image's anomaly map ``(N,)``.
            map_maxima: Largest value of each image's anomaly map ``(N,)``.

        Raises:
            ValueError: If no score is left.
        """
        given = [value if value is not None else scores.new_empty(0) for value in (scores, map_minima, map_maxima)]
        if not self._set_thresholds(*given):
            msg = f"Got {scores.numel()} scores to calibrate with, none of them a number: expected at least 1."
            raise ValueError(msg)
        self._validated_step = None

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        """Normalise scores and maps, and compare them with the thresholds, if there is any."""
        if self.awaits_calibration:
            return InferenceBatch(pred_score=predictions.pred_score, anomaly_map=predictions.anomaly_map)
        return super().forward(predictions)

    def post_process_batch(self, batch: Batch[Any]) -> None:
        """Do the same with a batch, in place; also without a threshold labels would compare raw scores with 0.5."""
        has_threshold = self.threshold == "f1" or not bool(torch.isnan(self.image_threshold))
        if has_threshold and not self.awaits_calibration:
            super().post_process_batch(batch)

    def on_validation_batch_end(  # type: ignore[override]  # as anomalib's
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: ImageBatch,
        *args: Any,  # noqa: ANN401 - Lightning's hook
        **kwargs: Any,  # noqa: ANN401 - Lightning's hook
    ) -> None:
        """Collect the scores of the batch's normal images."""
        if self.threshold == "f1":
            super().on_validation_batch_end(trainer, pl_module, outputs, *args, **kwargs)
            self._scores.update(outputs.pred_score.detach().float().flatten())  # type: ignore[union-attr]
            return
        if trainer is not None and trainer.sanity_checking:
            return
        scores = outputs.pred_score.detach().float().flatten()  # type: ignore[union-attr]  # every model scores
        labels = outputs.gt_label
        normal = torch.ones_like(scores, dtype=torch.bool) if labels is None else ~labels.flatten().bool()
        self._groups.update(outputs, scores, normal)
        if not normal.any():
            return
        self._scores.update(scores[normal])
        if outputs.anomaly_map is not None:
            maps = outputs.anomaly_map.detach().float().flatten(1)[normal]
            self._map_minima.update(maps.amin(dim=1))
            self._map_maxima.update(maps.amax(dim=1))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the thresholds and the range of the normal scores."""
        if self.threshold == "f1":
            self._check_masks_everywhere(trainer)
            super().on_validation_epoch_end(trainer, pl_module)
            self.held_out = int(torch.as_tensor(self._scores.compute()).isfinite().sum())
            self._scores.reset()
            self.awaits_calibration = False
            return
        if trainer is not None:
            if trainer.sanity_checking:
                return
            self._validated_step = trainer.global_step
        # Every process computes, also one that saw no normal image: computing gathers from all of them.
        values = []
        for metric in (self._scores, self._map_minima, self._map_maxima):
            values.append(torch.as_tensor(metric.compute(), device=self._image_threshold.device))
            metric.reset()
        groups = self._groups.calibrate(self.target_specificity, self.series_top)
        if self._set_thresholds(*values):
            self.groups = groups
            return
        logger.warning(
            "The validation set holds no normal image with a finite score: no threshold at %.0f%% specificity could be "
            "set.",
            100 * self.target_specificity,
        )
        if values[0].numel():
            # A threshold of earlier weights is none of these.
            self.invalidate()

    def _check_masks_everywhere(self, trainer: Trainer | None) -> None:
        """Refuse to wait for a process without masks: in anomalib it computes no pixel threshold."""
        if trainer is None or trainer.world_size == 1:
            return
        has_masks = bool(self._pixel_threshold_metric.update_called)
        some, each = (trainer.strategy.reduce_boolean_decision(has_masks, all=every) for every in (False, True))
        if some and not each:
            msg = (
                "threshold: f1 needs validation images with a mask in every process, and there are too few. Set "
                "--trainer.devices 1, or threshold: specificity."
            )
            raise ValueError(msg)

    def _set_thresholds(self, *values: torch.Tensor) -> bool:
        """Set them from scores, minima and maxima; False if no score is finite."""
        scores, minima, maxima = (value.detach().float()[value.isfinite()] for value in values)
        if not scores.numel():
            return False
        if scores.numel() < values[0].numel():
            logger.warning(
                "%d of %d held-out normal images have no finite score: the threshold leaves them out.",
                values[0].numel() - scores.numel(),
                values[0].numel(),
            )
        self._image_threshold.fill_(order_statistic(scores.tolist(), self.target_specificity))
        self.image_min.copy_(scores.min())
        self.image_max.copy_(scores.max())
        has_maps = minima.numel() and maxima.numel()
        # Without maps there is none: a threshold of earlier weights would be another's.
        self._pixel_threshold.fill_(order_statistic(maxima.tolist(), self.target_specificity) if has_maps else math.nan)
        self.pixel_min.fill_(minima.min() if has_maps else math.nan)
        self.pixel_max.fill_(maxima.max() if has_maps else math.nan)
        # Single scores are of no series.
        self.held_out, self.groups = scores.numel(), {}
        self.awaits_calibration = False
        return True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the threshold is, or what is wrong with it."""
        del pl_module
        if self.threshold == "f1" or not self.enable_thresholding or self.awaits_calibration:
            return
        if torch.isnan(self._image_threshold):
            if self._validated_step is None:
                logger.warning("No validation ran: the model has no threshold and its scores stay as they are.")
            return
        share = 100 * self.target_specificity
        kind = "test" if tested_validation_images(trainer) else "held-out"
        logger.info(
            "Image threshold %.6g: %.0f%% of %s normal images score no more.", float(self._image_threshold), share, kind
        )
        needed = math.ceil(self.target_specificity / (1 - self.target_specificity) - 1e-9)
        if self.held_out is not None and self.held_out < needed:
            logger.warning(
                "%d %s normal images are too few for a specificity of %.0f%% (%d are needed): the threshold is "
                "their largest score.",
                self.held_out,
                kind,
                share,
                needed,
            )
        for kind, facts in self.groups.items():
            few = "" if facts["held_out"] >= needed else f" (too few for {share:.0f}%, of which {needed} are needed)"
            logger.info(
                "Threshold of a %s %.6g, from %d held-out normal ones%s.",
                kind,
                facts["threshold"],
                facts["held_out"],
                few,
            )
        if self._validated_step not in {None, trainer.global_step}:
            logger.warning(
                "The threshold is of step %d, the weights are of step %d: training ended between two validations. The "
                "checkpoint holds the step of the threshold. End at a whole epoch (--trainer.max_epochs), or let "
                "--trainer.val_check_interval divide --trainer.max_steps.",
                self._validated_step,
                trainer.global_step,
            )

    def _normalize(  # type: ignore[override]  # anomalib's is static; ours depends on the kind of threshold
        self,
        preds: torch.Tensor | None,
        norm_min: torch.Tensor,
        norm_max: torch.Tensor,
        threshold: torch.Tensor,
    ) -> torch.Tensor | None:
        """Map scores to 0..1 with 0.5 at the threshold, in the same order, as ``edge.scores.normalize`` without torch.

        Without a threshold the scores come back as they are.
        """
        if self.threshold == "f1" or preds is None:
            return PostProcessor._normalize(preds, norm_min, norm_max, threshold)  # noqa: SLF001 - our own base class
        distance = (preds - threshold) / _unit(norm_min, norm_max, threshold)
        normalized = 0.5 * (1 + distance / (1 + distance.abs()))
        return torch.where(torch.isnan(threshold), preds, normalized)

    @property
    def normalized_image_threshold(self) -> torch.Tensor:
        """Threshold of the scores that come out: 1 less the sensitivity, or the raw one without normalisation."""
        if self._keeps_raw_scores:
            return self.image_threshold
        # Not by `super()`, which torch.compile does not follow into a property.
        threshold: torch.Tensor = PostProcessor.normalized_image_threshold.fget(self)  # type: ignore[attr-defined]
        return threshold

    @property
    def normalized_pixel_threshold(self) -> torch.Tensor:
        """Threshold of the maps that come out: 1 less the sensitivity, or the raw one without normalisation."""
        if self._keeps_raw_scores:
            return self.pixel_threshold
        threshold: torch.Tensor = PostProcessor.normalized_pixel_threshold.fget(self)  # type: ignore[attr-defined]
        return threshold

    @property
    def _keeps_raw_scores(self) -> bool:
        return self.threshold == "specificity" and not self.enable_normalization


def _unit(norm_min: torch.Tensor, norm_max: torch.Tensor, threshold: torch.Tensor) -> torch.Tensor:
    """Return the range of the normal scores, or, of one image or constant scores, the threshold's own size."""
    value_range = norm_max - norm_min
    return torch.where(value_range > 0, value_range, threshold.abs().clamp(min=1e-6))


def tested_validation_images(trainer: Trainer | None) -> int:
    """Count the validation files of the trainer's datamodule that are test files too; 0 where it has no lists."""
    datamodule = getattr(trainer, "datamodule", None)
    validation, test = (_files(getattr(datamodule, name, None)) for name in ("val_data", "test_data"))
    return len(validation & test)


def _files(data: Any) -> set[str]:  # noqa: ANN401 - any dataset
    samples = getattr(data, "samples", None)
    # Not resolved: that asks the disk.
    return set() if samples is None else {os.path.abspath(path) for path in samples.get("image_path", ())}  # noqa: PTH100
