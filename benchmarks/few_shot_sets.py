"""The data sets of D2-4FAD's measurements, their supports, and their images as the student sees them."""

import os
from pathlib import Path

import torch
from pandas import DataFrame

from anomalib_medical import D24fad, MedicalFolder
from anomalib_medical.data.few_shot.support import draw_support
from anomalib_medical.data.images import read_image

PATTERNS = {"brain_flair": r"^(TCGA_[^_]+_[^_]+)_", "chest_xray": r"^((?:NORMAL2-)?IM-\d+|person\d+|u\d+)"}
SETS = ("brain_flair", "breast_ultrasound", "chest_xray", "skin")


def folder(name: str) -> MedicalFolder:
    """Return a data set, read."""
    data = MedicalFolder(Path(os.environ["ANOMALIB_MEDICAL_DATA"]) / name, patient_pattern=PATTERNS.get(name))
    data.setup()
    return data


@torch.no_grad()
def encode(model: D24fad, paths: list[str]) -> list[torch.Tensor]:
    """The student's features of images, at each scale."""
    prepare = model.pre_processor
    parts = [model.model.encode(prepare(read_image(path)[None]))[1] for path in paths]
    return [torch.cat(scale) for scale in zip(*parts, strict=True)]


def normals_of(data: MedicalFolder, most: int = 300) -> DataFrame:
    """Normal training images, of different patients as far as there are any."""
    return draw_support(data.train_data.samples, min(most, len(data.train_data)), seed=0)
