"""Models: each a Lightning module and a torch model."""

from .scrd import Scrd

__all__ = ["Scrd"]
