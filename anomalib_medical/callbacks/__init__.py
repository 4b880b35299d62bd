"""Callbacks for the trainer."""

from anomalib_medical.callbacks.predictions_csv import PredictionsCSV
from anomalib_medical.callbacks.progress import RunProgress

__all__ = ["PredictionsCSV", "RunProgress"]
