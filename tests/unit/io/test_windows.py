"""Intensity windows by name."""

import pytest

from anomalib_medical.io import Window


@pytest.mark.parametrize(
    ("name", "black", "white"),
    [("bone", -450, 1050), ("brain", 0, 80), ("lung", -1350, 150), ("soft_tissue", -150, 250)],
)
def test_named_windows_are_those_of_radiology(name, black, white):
    window = Window.of(name)
    assert (window.center - window.width / 2, window.center + window.width / 2) == (black, white)
