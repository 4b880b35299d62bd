"""Models: each a Lightning module and a torch model."""

from .ddad import Ddad
from .scrd import Scrd

__all__ = ["Ddad", "Scrd"]
