"""What two or more models share."""

from .anomaly_map import GaussianBlur, cosine_distance_maps, reduce_map
from .distillation import DistillationMixin
from .module import MedicalModuleMixin
from .noise import add_noise_patches
from .teacher import BACKBONES, Teacher, TeacherWeightsError, architecture

__all__ = [
    "BACKBONES",
    "DistillationMixin",
    "GaussianBlur",
    "MedicalModuleMixin",
    "Teacher",
    "TeacherWeightsError",
    "add_noise_patches",
    "architecture",
    "cosine_distance_maps",
    "reduce_map",
]
