"""The runtime of a bundle, run there with ``python -m edge``, without torch and anomalib.

Only relative imports, `io`, the standard library and what the bundle's requirements.txt names may be imported here.
"""

import sys

# Importing openvino tells its maker's server so, and where it cannot keep an id (no home, as of a service) logs to the
# root logger, which then stays as it is: without our format and level. Nothing leaves a hospital: without this module
# openvino takes a stub of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: an import fails


class EdgeError(Exception):
    """The runtime cannot go on; the message says what was found and what to do, and is all that an engineer needs."""
