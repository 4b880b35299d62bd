"""What users choose: how volumes become slices, and which values become black and which white."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Axis = Literal["axial", "coronal", "sagittal"]
# (center, width) in Hounsfield units, as radiology departments use them on CT.
NAMED_WINDOWS = {"bone": (300.0, 1500.0), "brain": (40.0, 80.0), "lung": (-600.0, 1500.0), "soft_tissue": (50.0, 400.0)}


@dataclass(frozen=True)
class Slicing:
    """How volumes become slices."""

    axis: Axis = "axial"  # the axis of the body that slices lie across
    # First and last slice as shares of the extent: (0.2, 0.8) leaves out the first and the last fifth.
    slice_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse ranges that hold nothing."""
        start, stop = self.slice_range
        if self.axis not in get_args(Axis):
            msg = f"axis is {self.axis!r}, expected axial, coronal or sagittal."
            raise ValueError(msg)
        if not 0 <= start < stop <= 1:
            msg = f"slice_range is [{start:g}, {stop:g}], expected two shares with 0 <= first < last <= 1."
            raise ValueError(msg)


@dataclass(frozen=True)
class Window:
    """A linear window on rescaled values, which are Hounsfield units on CT."""

    center: float
    width: float

    def __post_init__(self) -> None:
        """Refuse what no values could be mapped with."""
        if not (math.isfinite(self.center) and math.isfinite(self.width) and self.width > 0):
            msg = f"The window has center {self.center:g} and width {self.width:g}: expected a width above 0."
            raise ValueError(msg)

    @classmethod
    def of(cls, window: str | Sequence[float] | Window | None) -> Window | None:
        """Resolve what a user writes: a name, (center, width), or None for what the file itself says.

        Raises:
            ValueError: If there is no such name, or the width is not above 0.
        """
        if window is None or isinstance(window, Window):
            return window
        if isinstance(window, str):
            if window not in NAMED_WINDOWS:
                msg = f"There is no window {window!r}, expected one of {', '.join(NAMED_WINDOWS)}, or [center, width]."
                raise ValueError(msg)
            return cls(*NAMED_WINDOWS[window])
        if len(window) != 2:
            msg = f"The window is {list(window)}, expected [center, width]."
            raise ValueError(msg)
        return cls(float(window[0]), float(window[1]))
