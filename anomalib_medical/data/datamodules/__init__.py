"""Datamodules, one file a dataset."""

from anomalib_medical.data.datamodules.aptos2019 import APTOS2019
from anomalib_medical.data.datamodules.base import MedicalDataModule
from anomalib_medical.data.datamodules.brain_tumor_mri import BrainTumorMRI
from anomalib_medical.data.datamodules.camelyon16 import Camelyon16
from anomalib_medical.data.datamodules.few_shot_tasks import FewShotTasks
from anomalib_medical.data.datamodules.isic2018 import ISIC2018
from anomalib_medical.data.datamodules.lag import LAG
from anomalib_medical.data.datamodules.medical_folder import MedicalFolder
from anomalib_medical.data.datamodules.phantom import Phantom
from anomalib_medical.data.datamodules.published import PublishedDataModule
from anomalib_medical.data.datamodules.rsna import RSNA
from anomalib_medical.data.datamodules.vindr_cxr import VinDrCXR

__all__ = [
    "APTOS2019",
    "BrainTumorMRI",
    "Camelyon16",
    "FewShotTasks",
    "ISIC2018",
    "LAG",
    "MedicalDataModule",
    "MedicalFolder",
    "Phantom",
    "PublishedDataModule",
    "RSNA",
    "VinDrCXR",
]
