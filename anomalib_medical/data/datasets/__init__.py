"""Datasets: tables of images and how one is read."""

from anomalib_medical.data.datasets.base import MedicalDataset
from anomalib_medical.data.datasets.medical_folder import MedicalFolderDataset, make_medical_folder_dataset
from anomalib_medical.data.datasets.phantom import PhantomDataset, make_phantom_dataset

__all__ = [
    "MedicalDataset",
    "MedicalFolderDataset",
    "PhantomDataset",
    "make_medical_folder_dataset",
    "make_phantom_dataset",
]
