"""DDAD: dual-distribution discrepancy with unlabeled images."""

from .lightning_model import Ddad, DdadError
from .torch_model import DdadModel

__all__ = ["Ddad", "DdadError", "DdadModel"]
