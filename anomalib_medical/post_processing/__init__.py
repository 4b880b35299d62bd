"""Thresholds that need no anomalies."""

from .medical_post_processor import MedicalPostProcessor

__all__ = ["MedicalPostProcessor"]
