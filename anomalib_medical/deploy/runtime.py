"""The part of a bundle that runs on the box."""

import shutil
from pathlib import Path

from anomalib_medical.data import io
from anomalib_medical.models.d24fad import few_shot_device

from . import edge

# Here they lead to the code of the training, there a copy of it stands in their place.
_SHIMS = ("io.py", "few_shot_device.py")


def copy_runtime(bundle: Path) -> None:
    """Make the package `edge` of a bundle: the runtime, with a copy of the code that reads images.

    Args:
        bundle: The bundle; it must not hold an `edge` yet.
    """
    source, target = Path(edge.__file__).parent, bundle / "edge"
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", *_SHIMS))
    shutil.copytree(Path(io.__file__).parent, target / "io", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(few_shot_device.__file__, target)
