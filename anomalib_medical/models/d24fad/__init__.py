"""Dual distillation for few-shot anomaly detection (D2-4FAD, ICLR 2026)."""

from .lightning_model import D24fad
from .loss import D24fadLoss
from .torch_model import D24fadModel

__all__ = ["D24fad", "D24fadLoss", "D24fadModel"]
