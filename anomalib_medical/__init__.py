"""Medical anomaly detection for anomalib: importing this package makes its classes known to anomalib."""

from .data import (
    APTOS2019,
    ISIC2018,
    LAG,
    RSNA,
    BrainTumorMRI,
    Camelyon16,
    FewShotTasks,
    MedicalBMAD,
    MedicalFolder,
    Phantom,
    VinDrCXR,
)
from .models import D24fad, Ddad, Scrd
from .post_processing import MedicalPostProcessor
from .registration import register

__all__ = [
    "APTOS2019",
    "BrainTumorMRI",
    "Camelyon16",
    "D24fad",
    "Ddad",
    "FewShotTasks",
    "ISIC2018",
    "LAG",
    "MedicalBMAD",
    "MedicalFolder",
    "MedicalPostProcessor",
    "Phantom",
    "RSNA",
    "Scrd",
    "VinDrCXR",
]

__version__ = "0.1.0"

register()
