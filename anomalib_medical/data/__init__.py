"""Medical images for anomalib."""

from anomalib_medical.data.datamodules import MedicalDataModule, MedicalFolder, Phantom
from anomalib_medical.data.datasets import (
    MedicalDataset,
    MedicalFolderDataset,
    MedicalPredictDataset,
    PhantomDataset,
    make_medical_folder_dataset,
    make_phantom_dataset,
)

__all__ = [
    "MedicalDataModule",
    "MedicalDataset",
    "MedicalFolder",
    "MedicalFolderDataset",
    "MedicalPredictDataset",
    "Phantom",
    "PhantomDataset",
    "make_medical_folder_dataset",
    "make_phantom_dataset",
]
