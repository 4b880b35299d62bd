"""A figure that never travels without its uncertainty."""

import math
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A point estimate with its 95% interval and the amount of data behind it.

    Attributes:
        value: Point estimate on all the data.
        low: Lower end of the interval; nan where the data allow none.
        high: Upper end of the interval; nan where the data allow none.
        n_images: Number of images the value was computed from.
        n_patients: Number of clusters that were resampled (images, where no patients are known).
    """

    value: float
    low: float
    high: float
    n_images: int
    n_patients: int

    @property
    def has_interval(self) -> bool:
        """Whether the data allowed an interval."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    def interval(self, form: str = ".3f") -> str:
        """Return for example ``[0.780, 0.841]``; ``form`` is that of each number, such as ``+.3f``."""
        return f"[{self.low:{form}}, {self.high:{form}}]" if self.has_interval else "[no interval]"

    def __format__(self, form: str) -> str:
        """Return for example ``0.812 [0.780, 0.841]``."""
        form = form or ".3f"
        return f"{self.value:{form}} {self.interval(form)}"

    def __str__(self) -> str:
        """Return for example ``0.812 [0.780, 0.841]``."""
        return format(self)
