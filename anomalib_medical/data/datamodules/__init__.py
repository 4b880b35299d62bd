"""Datamodules, one file a dataset."""

from anomalib_medical.data.datamodules.base import MedicalDataModule
from anomalib_medical.data.datamodules.few_shot_tasks import FewShotTasks
from anomalib_medical.data.datamodules.medical_folder import MedicalFolder
from anomalib_medical.data.datamodules.phantom import Phantom

__all__ = ["FewShotTasks", "MedicalDataModule", "MedicalFolder", "Phantom"]
