"""Datasets: tables of images and how one is read."""

from anomalib_medical.data.datasets.base import MedicalDataset
from anomalib_medical.data.datasets.medical_folder import MedicalFolderDataset, make_medical_folder_dataset
from anomalib_medical.data.datasets.phantom import PhantomDataset, make_phantom_dataset
from anomalib_medical.data.datasets.predict import MedicalPredictDataset

__all__ = [
    "MedicalDataset",
    "MedicalFolderDataset",
    "MedicalPredictDataset",
    "PhantomDataset",
    "make_medical_folder_dataset",
    "make_phantom_dataset",
]
