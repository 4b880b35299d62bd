"""How volumes become slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Axis = Literal["axial", "coronal", "sagittal"]


@dataclass(frozen=True)
class Slicing:
    """How volumes become slices.

    Attributes:
        axis: Slices lie across this axis of the body.
        slice_range: First and last slice, as shares of the volume's extent in [0, 1]: (0.2, 0.8) leaves out the first
            and the last fifth.
    """

    axis: Axis = "axial"
    slice_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse ranges that hold nothing."""
        start, stop = self.slice_range
        if self.axis not in {"axial", "coronal", "sagittal"}:
            msg = f"axis is {self.axis!r}, expected axial, coronal or sagittal."
            raise ValueError(msg)
        if not 0 <= start < stop <= 1:
            msg = f"slice_range is [{start:g}, {stop:g}], expected two shares with 0 <= first < last <= 1."
            raise ValueError(msg)
