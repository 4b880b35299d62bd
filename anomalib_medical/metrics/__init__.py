"""Evaluation metrics, each with an interval."""

from .estimate import Estimate
from .image import image_auroc, image_average_precision
from .pixel import PixelCounts, aupro, bin_pixels, pixel_auroc
from .threshold import sensitivity, specificity

__all__ = [
    "Estimate",
    "PixelCounts",
    "aupro",
    "bin_pixels",
    "image_auroc",
    "image_average_precision",
    "pixel_auroc",
    "sensitivity",
    "specificity",
]
