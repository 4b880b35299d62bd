"""The edge runtime: copied into every bundle and run there with ``python -m edge``, without torch and anomalib.

Only relative imports, the standard library and what the bundle's requirements.txt names may be imported here.
"""

import os.path
import sys

# `python -m` looks for modules in the bundle first, where somebody may have put a numpy.py.
_BUNDLE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib.py may be there too
sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _BUNDLE]  # noqa: PTH100
