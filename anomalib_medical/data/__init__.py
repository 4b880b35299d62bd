"""Medical images for anomalib."""

from anomalib_medical.data.datamodules import FewShotTasks, MedicalDataModule, MedicalFolder, Phantom
from anomalib_medical.data.datasets import (
    MedicalDataset,
    MedicalFolderDataset,
    MedicalPredictDataset,
    PhantomDataset,
    make_medical_folder_dataset,
    make_phantom_dataset,
)

__all__ = [
    "FewShotTasks",
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
