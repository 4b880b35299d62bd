"""The part of a bundle that runs on the box."""

import shutil
from pathlib import Path

from anomalib_medical import edge, io

_LAUNCHER = Path(__file__).parent / "templates" / "edge.py"


def copy_runtime(bundle: Path) -> None:
    """Put the packages `edge` and `io` into a bundle, as they are, and the file that `python -m edge` runs.

    Args:
        bundle: The bundle; it must not hold a `runtime` yet.
    """
    target = bundle / "runtime"
    for package in (edge, io):
        source = Path(package.__path__[0])
        shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "__init__.py").touch()
    shutil.copy(_LAUNCHER, bundle)
