"""What of all that libraries say reaches the screen."""

import logging
import subprocess
import sys
import warnings

import pytest

from anomalib_medical.cli.output import console

SAY = """
import logging, sys, warnings
sys.argv = ["anomalib-medical"]
from anomalib_medical.cli.output import console, without_their_handlers
def say():
    logging.getLogger("anomalib_medical.data").info("180 images")
    logging.getLogger("anomalib_medical.data").warning("few images")
    logging.getLogger("anomalib.engine").info("Loading")
    logging.getLogger("lightning.pytorch").info("GPU available")
    logging.getLogger("lightning.pytorch").warning("no room")
    warnings.warn_explicit("use it otherwise", FutureWarning, "a.py", 1, "torch.x")
    warnings.warn_explicit("more workers", UserWarning, "a.py", 1, "lightning.pytorch.x")
    warnings.warn_explicit("'pin_memory' argument is set as true", UserWarning, "a.py", 1, "torch.utils.data.x")
    warnings.warn_explicit("odd pixels", UserWarning, "a.py", 1, "pydicom.x")
with console(verbose={verbose}):
    import anomalib_medical
    anomalib_medical.Scrd
    with without_their_handlers():
        say()
"""


def shown(*, verbose):
    script = [sys.executable, "-c", SAY.format(verbose=verbose)]
    result = subprocess.run(script, capture_output=True, text=True, check=True, timeout=120)
    assert not result.stdout
    return result.stderr.splitlines()


def test_what_is_ours_or_a_warning_is_shown_once_and_nothing_else():
    assert shown(verbose=False) == ["180 images", "warning: few images", "warning: no room", "warning: odd pixels"]


def test_verbose_shows_everything_once():
    lines = shown(verbose=True)
    for said in ("180 images", "few images", "Loading", "GPU available", "no room", "use it", "more workers", "odd"):
        assert len([line for line in lines if said in line]) == 1, said
    assert any("timm.models.layers is deprecated" in line for line in lines)


def test_everything_is_as_it_was_afterwards():
    root = logging.getLogger()
    before = root.level, list(root.handlers), list(warnings.filters), warnings.showwarning
    with pytest.raises(KeyError), console(verbose=False):
        raise KeyError
    assert (root.level, list(root.handlers), list(warnings.filters), warnings.showwarning) == before
