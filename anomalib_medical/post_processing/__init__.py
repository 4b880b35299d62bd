"""Thresholds that need no anomalies."""

from .facts import device_facts, raw_threshold
from .medical_post_processor import MedicalPostProcessor, tested_validation_images

__all__ = ["MedicalPostProcessor", "device_facts", "raw_threshold", "tested_validation_images"]
