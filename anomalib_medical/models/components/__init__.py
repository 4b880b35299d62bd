"""What two or more models share."""

from .anomaly_map import GaussianBlur, cosine_distance_maps, reduce_map
from .arguments import check_choice, check_image_size, check_seed
from .distances import feature_distances
from .distillation import DistillationMixin
from .module import OPSET, MedicalModuleMixin
from .noise import add_noise_patches
from .resize import AntialiasedPreProcessor, AntialiasedResize
from .teacher import BACKBONES, Teacher, TeacherWeightsError, architecture

__all__ = [
    "AntialiasedPreProcessor",
    "AntialiasedResize",
    "BACKBONES",
    "DistillationMixin",
    "GaussianBlur",
    "MedicalModuleMixin",
    "OPSET",
    "Teacher",
    "TeacherWeightsError",
    "add_noise_patches",
    "architecture",
    "check_choice",
    "check_image_size",
    "check_seed",
    "cosine_distance_maps",
    "feature_distances",
    "reduce_map",
]
