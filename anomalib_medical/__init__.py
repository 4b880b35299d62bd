"""Medical anomaly detection for anomalib: importing this package makes its classes known to anomalib."""

from .data import FewShotTasks, MedicalFolder, Phantom
from .models import Scrd
from .post_processing import MedicalPostProcessor
from .registration import register

__all__ = ["FewShotTasks", "MedicalFolder", "MedicalPostProcessor", "Phantom", "Scrd"]

__version__ = "0.1.0"

register()
