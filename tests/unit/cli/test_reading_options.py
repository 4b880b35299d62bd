"""How files are read is said in one way by all subcommands, and checked where it is said."""

import pytest
from jsonargparse import ArgumentParser

from anomalib_medical.cli.reading_options import add_reading_options, as_in_training, slicing_of, window_of
from anomalib_medical.errors import MedicalError
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
    assert set(vars(options()).values()) == {None}  # not given can be told from given
    assert slicing_of(options("--axis=coronal", "--slice_range=[0, 0.5]")) == Slicing("coronal", (0.0, 0.5))
    assert "axis" not in options(volumes=False)


def test_what_could_not_be_read_with_is_refused():
    """A bundle would carry it to the device, and fail there."""
    with pytest.raises(ValueError, match="There is no window 'brian', expected one of bone, brain"):
        window_of(options("--window=brian"))
    with pytest.raises(ValueError, match=r"slice_range is \[0.8, 0.2\]"):
        slicing_of(options("--slice_range=[0.8, 0.2]"))


TRAINED = {"window": "lung", "axis": "coronal", "slice_range": [0.2, 0.8]}


def test_what_is_not_given_is_as_in_the_training_and_said(caplog):
    caplog.set_level("INFO")
    read = as_in_training(TRAINED, {"window": None, "axis": None, "slice_range": None}, "a.ckpt")
    assert read == {"window": "lung", "axis": "coronal", "slice_range": (0.2, 0.8)}
    assert caplog.messages == ["Reads files as the training did: window lung, axis coronal, slice_range [0.2, 0.8]."]


@pytest.mark.parametrize("given", [{"window": "lung"}, {"window": (-600, 1500)}, {"axis": "coronal"}])
def test_the_same_may_be_repeated_in_other_words(given):
    assert as_in_training(TRAINED, given, "a.ckpt").items() >= given.items()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"window": "bone"}, "window lung, and --data.window is bone"),
        ({"window": (40.0, 80.0)}, r"window lung, and --data.window is \[40, 80\]"),
        ({"axis": "axial"}, "axis coronal, and --data.axis is axial"),
    ],
)
def test_images_unlike_the_training_s_are_refused(given, told):
    with pytest.raises(MedicalError, match=f"a.ckpt was trained with {told}: .* Leave --data.* out, or train with it"):
        as_in_training(TRAINED, given, "a.ckpt", "data.")


def test_which_slices_are_taken_is_free_and_so_is_what_the_training_left_to_the_files(caplog):
    caplog.set_level("INFO")
    assert as_in_training(TRAINED, {"slice_range": [0, 1]}, "a.ckpt")["slice_range"] == (0, 1)
    caplog.clear()
    assert as_in_training({"window": None}, {"window": "bone", "axis": "coronal"}, "a.ckpt") == {
        "window": "bone",
        "axis": "coronal",
    }
    assert as_in_training({}, {}, "older.ckpt") == {}
    assert not caplog.messages
