"""Evaluation metrics, each with an interval."""

from .arrays import UndefinedMetricError
from .calibration import ReliabilityBin, brier_score, expected_calibration_error, reliability_curve
from .delong import Comparison, auroc_covariance, compare_auroc, holm
from .dice import mean_dice, pooled_dice
from .estimate import Estimate
from .groups import GroupResult, by_class, by_group
from .image import image_auroc, image_average_precision, sensitivity_at_specificity, specificity_at_sensitivity
from .modules import WithInterval
from .patient import aggregate_patients
from .pixel import PixelCounts, aupro, bin_pixels, pixel_auroc
from .threshold import accuracy, f1, sensitivity, specificity

__all__ = [
    "Comparison",
    "Estimate",
    "GroupResult",
    "PixelCounts",
    "ReliabilityBin",
    "UndefinedMetricError",
    "WithInterval",
    "accuracy",
    "aggregate_patients",
    "aupro",
    "auroc_covariance",
    "bin_pixels",
    "brier_score",
    "by_class",
    "by_group",
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
