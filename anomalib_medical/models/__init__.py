"""Models: each a Lightning module and a torch model."""

from .d24fad import D24fad
from .ddad import Ddad
from .scrd import Scrd

__all__ = ["D24fad", "Ddad", "Scrd"]
