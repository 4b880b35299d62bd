"""Scale-aware contrastive reverse distillation (SCRD, ICLR 2025)."""

from .lightning_model import Scrd
from .loss import ScrdLoss
from .torch_model import ScrdModel

__all__ = ["Scrd", "ScrdLoss", "ScrdModel"]
