"""How files are read is said in one way by all subcommands, and checked where it is said."""

import pytest
from jsonargparse import ArgumentParser

from anomalib_medical.cli.reading_options import add_reading_options, slicing_of, window_of
from anomalib_medical.io import Slicing


def options(*arguments, **settings):
    parser = ArgumentParser(exit_on_error=False)
    add_reading_options(parser, "Here", **settings)
    return parser.parse_args(list(arguments))


@pytest.mark.parametrize(("given", "window"), [("brain", "brain"), ("[40, 80]", (40.0, 80.0))])
def test_a_window_is_a_name_or_center_and_width(given, window):
    assert window_of(options(f"--window={given}")) == window


def test_the_defaults_are_the_files_own_window_and_all_axial_slices():
    assert window_of(options()) is None
    assert slicing_of(options()) == Slicing()
    assert slicing_of(options("--axis=coronal", "--slice_range=[0, 0.5]")) == Slicing("coronal", (0.0, 0.5))
    assert "axis" not in options(volumes=False)


def test_what_could_not_be_read_with_is_refused():
    """A bundle would carry it to the device, and fail there."""
    with pytest.raises(ValueError, match="There is no window 'brian', expected one of bone, brain"):
        window_of(options("--window=brian"))
    with pytest.raises(ValueError, match=r"slice_range is \[0.8, 0.2\]"):
        slicing_of(options("--slice_range=[0.8, 0.2]"))
