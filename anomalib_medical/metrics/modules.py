"""The metrics as torchmetrics: collected over batches and processes."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from .arrays import UndefinedMetricError
from .estimate import Estimate

logger = logging.getLogger(__name__)


class WithInterval(Metric):
    """Any metric of image scores of this package, with its patient-clustered interval.

    What torchmetrics already has without interval and patients (``BinaryAUROC``, ``BinarySensitivityAtSpecificity``,
    ``BinaryCalibrationError`` ...) is not repeated here.

    Args:
        metric: Such as :func:`image_auroc` or :func:`f1`.
        arguments: Its other arguments, such as ``threshold`` or ``n_resamples``.

    Example:
        >>> metric = WithInterval(image_auroc, n_resamples=0)
        >>> metric.update(torch.tensor([0.1, 0.9, 0.4]), torch.tensor([0, 1, 0]))
        >>> round(float(metric.compute()["value"]), 2)
        1.0
    """

    full_state_update = False
    scores: list[Tensor]
    labels: list[Tensor]
    patients: list[Tensor]

    def __init__(self, metric: Callable[..., Estimate], **arguments: Any) -> None:  # noqa: ANN401 - the metric's own
        super().__init__()
        self.metric = metric
        self.arguments = arguments
        for name in ("scores", "labels", "patients"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor, patients: Sequence[str] | None = None) -> None:
        """Collect a batch.

        Args:
            scores: Image scores ``(B,)``, higher is more abnormal.
            labels: ``(B,)``, 1 for abnormal.
            patients: Patient of each image, in all batches or in none.

        Raises:
            ValueError: If there is not one patient an image.
        """
        self.scores.append(scores.detach().reshape(-1).double())
        self.labels.append(labels.detach().reshape(-1).long())
        if patients is None:
            return
        if len(patients) != scores.numel():
            msg = f"got {len(patients)} patient ids for {scores.numel()} images."
            raise ValueError(msg)
        self.patients.append(torch.tensor([_number(patient) for patient in patients], device=scores.device))

    def compute(self) -> dict[str, Tensor]:
        """Return ``value``, ``low`` and ``high``; nan, with a warning that says why, where the data allow none.

        Raises:
            ValueError: If some batches had patients and others had none.
        """
        if not len(self.scores):
            return self._undefined("it was given no images")
        scores, labels = dim_zero_cat(self.scores), dim_zero_cat(self.labels)
        patients = None
        if len(self.patients):
            numbers = dim_zero_cat(self.patients)
            if numbers.numel() != scores.numel():
                msg = f"got patients of {numbers.numel()} of {scores.numel()} images: give them in every batch or none."
                raise ValueError(msg)
            patients = [str(number) for number in numbers.tolist()]
        try:
            found = self.metric(scores, labels, patients=patients, **self.arguments)
        except UndefinedMetricError as error:
            return self._undefined(str(error))
        return {name: torch.tensor(getattr(found, name), device=scores.device) for name in ("value", "low", "high")}

    def _undefined(self, reason: str) -> dict[str, Tensor]:
        logger.warning("%s is nan: %s", getattr(self.metric, "__name__", "The metric"), reason)
        return {name: torch.tensor(math.nan, device=self.device) for name in ("value", "low", "high")}


def _number(patient: str) -> int:
    """Turn a patient id into the same number in every process, which a tensor can carry between them."""
    return int.from_bytes(hashlib.blake2b(patient.encode(), digest_size=8).digest(), "little", signed=True)
