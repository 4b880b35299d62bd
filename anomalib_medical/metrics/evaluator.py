"""anomalib's evaluator, which gives NaN and the reason where a metric has no value.

torchmetrics gives a number there: an AUROC of scores that are all NaN is 1 or 0 by the order of the images, one of a
single class is 0, and F1 of abnormal images alone is 1.
"""

import logging
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from anomalib.metrics import AnomalibMetric, Evaluator
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import BinaryAccuracy, BinaryRecall, BinarySpecificity

from .arrays import why_not_ranked, why_without
from .image import accuracy, sensitivity, specificity

logger = logging.getLogger(__name__)

# Where the scores are that a metric's predictions come from.
_SCORES = {
    "pred_score": "pred_score",
    "pred_label": "pred_score",
    "anomaly_map": "anomaly_map",
    "pred_mask": "anomaly_map",
}
_UNITS = {"gt_label": "image", "gt_mask": "pixel"}
_THRESHOLDS = {"pred_label": "image_threshold", "pred_mask": "pixel_threshold"}
# torchmetrics' classes that need what ours of the same name need; all others need both classes.
_NEEDS = {BinaryAccuracy: accuracy.needs, BinaryRecall: sensitivity.needs, BinarySpecificity: specificity.needs}


class _Counts(NamedTuple):
    scores: int
    not_finite: int
    normal: int
    abnormal: int
    processes: int  # that were given any


class _Seen(Metric):
    """What a metric was given, counted over batches and processes."""

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("counts", default=torch.zeros(5, dtype=torch.long), dist_reduce_fx="sum")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Count a batch."""
        abnormal = target.bool().sum()
        not_finite = (~scores.isfinite()).sum().to(abnormal)
        sizes = abnormal.new_tensor([scores.numel(), target.numel()])
        # Not in place: these may come from Lightning's inference mode.
        added = torch.stack([sizes[0], not_finite, sizes[1] - abnormal, abnormal]).to(self.counts)
        self.counts = torch.cat([self.counts[:4] + added, torch.ones_like(added[:1])])

    def compute(self) -> _Counts:
        """Return the counts."""
        return _Counts(*self.counts.tolist())


class MedicalEvaluator(Evaluator):
    """anomalib's evaluator with NaN for what is undefined, and one warning that says why.

    Undefined is every metric of scores or maps that are in part NaN or infinite, of labels where there is no threshold,
    and, but for accuracy, sensitivity and specificity, of one class alone. Takes anomalib's arguments.
    """

    def __init__(
        self,
        val_metrics: AnomalibMetric | Sequence[AnomalibMetric] | None = None,
        test_metrics: AnomalibMetric | Sequence[AnomalibMetric] | None = None,
        compute_on_cpu: bool = True,
    ) -> None:
        super().__init__(val_metrics, test_metrics, compute_on_cpu)
        pairs = _pairs([*self.val_metrics, *self.test_metrics])
        self._seen = nn.ModuleDict({" ".join(pair): _Seen() for pair in pairs})
        self._told: set[str] = set()

    @classmethod
    def of(cls, evaluator: Evaluator | None) -> Evaluator | None:
        """Make one of anomalib's, with the same metrics; whatever else it is stays as it is."""
        if type(evaluator) is not Evaluator:
            return evaluator
        validation: Any = list(evaluator.val_metrics)
        test: Any = list(evaluator.test_metrics)
        return cls(validation, test, evaluator.compute_on_cpu)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        del trainer, pl_module
        for seen in self._seen.values():
            cast("_Seen", seen).reset()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting."""
        self.on_validation_epoch_start(trainer, pl_module)

    def on_validation_batch_end(self, *args: Any) -> None:  # noqa: ANN401 - Lightning's hook
        """Update validation metrics."""
        self._update(self.val_metrics, *args)

    def on_test_batch_end(self, *args: Any) -> None:  # noqa: ANN401 - Lightning's hook
        """Update test metrics."""
        self._update(self.test_metrics, *args)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log validation metrics."""
        self._log(self.val_metrics, trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log test metrics."""
        self._log(self.test_metrics, trainer, pl_module)

    def _update(self, metrics: Iterable[Any], *args: Any) -> None:  # noqa: ANN401 - Lightning's hook
        _trainer, _model, _outputs, batch, *_ = args
        for pair in _pairs(metrics):
            scores, target = (getattr(batch, name, None) for name in pair)
            if scores is not None and target is not None:
                cast("_Seen", self._seen[" ".join(pair)]).update(scores.detach(), target)
        for metric in metrics:
            # Without a threshold there are no labels: that is told at the end.
            if metric.fields[0] not in _THRESHOLDS or getattr(batch, metric.fields[0], None) is not None:
                metric.update(batch)

    def _log(self, metrics: Iterable[Any], trainer: Trainer, pl_module: LightningModule) -> None:
        log: Any = self.log  # Lightning gives callbacks the model's
        reasons: dict[str, list[str]] = {}
        for metric in metrics:
            counts = self._counts(metric)
            if counts is not None and not counts.scores and not metric.strict:
                continue  # as anomalib: of data without masks there is nothing to show
            reason = None if counts is None else _why_undefined(metric, counts, pl_module, trainer.world_size)
            if reason is not None:
                reasons.setdefault(reason, []).append(metric.name)
            value = torch.tensor(math.nan) if reason is not None else metric.compute()
            metric.reset()
            # Not the metric: a trainer wants the same kind in each of its tests. Every process has the same value.
            log(metric.name, value.to(pl_module.device), sync_dist=True)
            if trainer.barebones:
                # As anomalib does: logging is off there.
                trainer.callback_metrics[metric.name] = trainer.logged_metrics[metric.name] = value
        for reason, names in reasons.items():
            message = f"No value (nan) for {', '.join(names)}: {reason}."
            if not trainer.sanity_checking and message not in self._told:
                self._told.add(message)
                logger.warning(message)

    def _counts(self, metric: Any) -> _Counts | None:  # noqa: ANN401 - an AnomalibMetric
        pair = _pair(metric)
        if pair is None:
            return None
        with warnings.catch_warnings():
            # That there was nothing to count, which is no news.
            warnings.simplefilter("ignore")
            counts: _Counts = cast("_Seen", self._seen[" ".join(pair)]).compute()
        return counts


def _why_undefined(metric: Any, counts: _Counts, pl_module: LightningModule, processes: int) -> str | None:  # noqa: ANN401
    if not counts.scores:
        return None
    if counts.processes < processes:
        # torchmetrics cannot put nothing, of which it does not know the type, together with what the others have.
        return f"{counts.processes} of {processes} processes have an image with a mask: test on one device"
    unit = _UNITS[metric.fields[1]]
    needs = next((needs for kind, needs in _NEEDS.items() if isinstance(metric, kind)), (0, 1))
    reason = why_not_ranked(counts.scores, counts.not_finite, unit)
    reason = reason or why_without(needs, counts.normal, counts.abnormal, unit)
    if reason is None and metric.fields[0] in _THRESHOLDS and not _has_labels(metric, pl_module):
        return "there is no threshold"
    return reason


def _pairs(metrics: Iterable[Any]) -> list[tuple[str, str]]:
    return sorted({pair for pair in map(_pair, metrics) if pair is not None})


def _pair(metric: Any) -> tuple[str, str] | None:  # noqa: ANN401 - an AnomalibMetric
    """Fields of scores and of truth behind a metric, None where it compares something else."""
    fields = tuple(metric.fields)
    if len(fields) != 2 or fields[0] not in _SCORES or fields[1] not in _UNITS:
        return None
    return _SCORES[fields[0]], fields[1]


def _has_labels(metric: Any, pl_module: LightningModule) -> bool:  # noqa: ANN401 - an AnomalibMetric
    """Whether there were labels, other than those that anomalib compares with 0.5 where it has no threshold."""
    post_processor = getattr(pl_module, "post_processor", None)
    threshold = getattr(post_processor, _THRESHOLDS[metric.fields[0]], None)
    return bool(metric.update_called) and (threshold is None or not bool(torch.isnan(threshold)))
