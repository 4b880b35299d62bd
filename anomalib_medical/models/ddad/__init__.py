"""DDAD: dual-distribution discrepancy with unlabeled images."""

from .lightning_model import Ddad
from .torch_model import DdadModel

__all__ = ["Ddad", "DdadModel"]
