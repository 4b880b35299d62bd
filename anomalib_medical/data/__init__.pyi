from .datamodule import MedicalDataModule
from .dataset import MedicalDataset, MedicalPredictDataset
from .few_shot.support import read_normals
from .few_shot.tasks import FewShotTasks
from .folder.datamodule import MedicalFolder, make_medical_folder_dataset
from .images import read_support
from .phantom.datamodule import Phantom, make_phantom_dataset
from .published.aptos2019 import APTOS2019, make_aptos2019_dataset
from .published.bmad import MedicalBMAD, make_bmad_dataset
from .published.brain_tumor_mri import BrainTumorMRI, make_brain_tumor_mri_dataset
from .published.camelyon16 import Camelyon16, make_camelyon16_dataset
from .published.datamodule import PublishedDataModule
from .published.isic2018 import ISIC2018, make_isic2018_dataset
from .published.lag import LAG, make_lag_dataset
from .published.rsna import RSNA, make_rsna_dataset
from .published.vindr_cxr import VinDrCXR, make_vindr_dataset

__all__ = [
    "APTOS2019",
    "BrainTumorMRI",
    "Camelyon16",
    "FewShotTasks",
    "ISIC2018",
    "LAG",
    "MedicalBMAD",
    "MedicalDataModule",
    "MedicalDataset",
    "MedicalFolder",
    "MedicalPredictDataset",
    "Phantom",
    "PublishedDataModule",
    "RSNA",
    "VinDrCXR",
    "make_aptos2019_dataset",
    "make_bmad_dataset",
    "make_brain_tumor_mri_dataset",
    "make_camelyon16_dataset",
    "make_isic2018_dataset",
    "make_lag_dataset",
    "make_medical_folder_dataset",
    "make_phantom_dataset",
    "make_rsna_dataset",
    "make_vindr_dataset",
    "read_normals",
    "read_support",
]
