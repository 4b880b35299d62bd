"""`python -m edge COMMAND`, from the bundle's folder: starts the runtime in `runtime/`."""

import os.path
import sys

import runtime  # noqa: F401 - found now, before the bundle is taken off the path

# `python -m` looks for modules in the bundle first, where somebody may have put a numpy.py.
BUNDLE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib.py may be there too
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != BUNDLE]  # noqa: PTH100

if __name__ == "__main__":
    from runtime.edge.main import main

    sys.exit(main(BUNDLE))
