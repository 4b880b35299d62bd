"""Medical anomaly detection for anomalib: importing this package makes its classes known to anomalib."""

import sys
from pathlib import PurePath

import lazy_loader

from .registration import register

__version__ = "0.1.0"
# What there is says __init__.pyi.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Importing torch and anomalib takes seconds: the command line does so when it needs them, not to show its help.
if PurePath(sys.argv[0]).stem != "anomalib-medical" and sys.orig_argv[1:3] != ["-m", "anomalib_medical.cli"]:
    register()
