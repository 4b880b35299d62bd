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

__version__: str
