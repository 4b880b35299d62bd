"""Datasets: tables of images and how one is read."""

from anomalib_medical.data.datasets.aptos2019 import make_aptos2019_dataset
from anomalib_medical.data.datasets.base import MedicalDataset
from anomalib_medical.data.datasets.brain_tumor_mri import make_brain_tumor_mri_dataset
from anomalib_medical.data.datasets.camelyon16 import make_camelyon16_dataset
from anomalib_medical.data.datasets.isic2018 import make_isic2018_dataset
from anomalib_medical.data.datasets.lag import make_lag_dataset
from anomalib_medical.data.datasets.medical_folder import MedicalFolderDataset, make_medical_folder_dataset
from anomalib_medical.data.datasets.phantom import PhantomDataset, make_phantom_dataset
from anomalib_medical.data.datasets.predict import MedicalPredictDataset
from anomalib_medical.data.datasets.published import PublishedDataset
from anomalib_medical.data.datasets.rsna import make_rsna_dataset
from anomalib_medical.data.datasets.vindr_cxr import make_vindr_dataset

__all__ = [
    "MedicalDataset",
    "MedicalFolderDataset",
    "MedicalPredictDataset",
    "PhantomDataset",
    "PublishedDataset",
    "make_aptos2019_dataset",
    "make_brain_tumor_mri_dataset",
    "make_camelyon16_dataset",
    "make_isic2018_dataset",
    "make_lag_dataset",
    "make_medical_folder_dataset",
    "make_phantom_dataset",
    "make_rsna_dataset",
    "make_vindr_dataset",
]
