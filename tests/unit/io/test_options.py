"""Intensity windows by name, and the slices that a volume may be cut into."""

import pytest

from anomalib_medical.io import Slicing, Window


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [("bone", -450, 1050), ("brain", 0, 80), ("lung", -1350, 150), ("soft_tissue", -150, 250)],
)
def test_named_windows_are_those_of_radiology(name, black, white):
    window = Window.of(name)
    assert (window.center - window.width / 2, window.center + window.width / 2) == (black, white)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2), (-0.1, 1), (0, 1.1)])
def test_ranges_that_hold_nothing_or_too_much_are_refused(shares):
    with pytest.raises(ValueError, match="expected two shares with 0 <= first < last <= 1"):
        Slicing(slice_range=shares)
