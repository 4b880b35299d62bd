"""Callbacks for the trainer."""

from anomalib_medical.callbacks.predictions_csv import PredictionsCSV

__all__ = ["PredictionsCSV"]
