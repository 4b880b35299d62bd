"""Evaluation metrics, each with an interval."""

from .arrays import UndefinedMetricError
from .bootstrap import Estimate
from .comparison import Comparison, auroc_covariance, compare_auroc, holm
from .groups import aggregate_patients
from .image import (
    ReliabilityBin,
    accuracy,
    accuracy_at_best_f1,
    best_f1,
    brier_score,
    expected_calibration_error,
    f1,
    image_auroc,
    image_average_precision,
    reliability_curve,
    sensitivity,
    sensitivity_at_specificity,
    specificity,
    specificity_at_sensitivity,
)
from .metric import Metric
from .pixel import PixelCounts, aupro, bin_pixels, mean_dice, pixel_auroc, pooled_dice

__all__ = [
    "Comparison",
    "Estimate",
    "Metric",
    "PixelCounts",
    "ReliabilityBin",
    "UndefinedMetricError",
    "accuracy",
    "accuracy_at_best_f1",
    "aggregate_patients",
    "aupro",
    "auroc_covariance",
    "best_f1",
    "bin_pixels",
    "brier_score",
    "compare_auroc",
    "expected_calibration_error",
    "f1",
    "holm",
    "image_auroc",
    "image_average_precision",
    "mean_dice",
    "pixel_auroc",
    "pooled_dice",
    "reliability_curve",
    "sensitivity",
    "sensitivity_at_specificity",
    "specificity",
    "specificity_at_sensitivity",
]
