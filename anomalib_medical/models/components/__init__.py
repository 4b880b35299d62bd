"""What two or more models share."""

from .anomaly_map import GaussianBlur, cosine_distance_maps, feature_distances, reduce_map
from .arguments import check_choice, check_image_size, check_precision, check_seed
from .checkpoints import read_checkpoint
from .module import OPSET, MedicalModuleMixin
from .noise import add_noise_patches, add_varied_anomalies
from .numerics import derived_seed, in_float32, seeded
from .resize import AntialiasedPreProcessor, exportable
from .teacher import DistillationMixin, Teacher

__all__ = [
    "AntialiasedPreProcessor",
    "DistillationMixin",
    "GaussianBlur",
    "MedicalModuleMixin",
    "OPSET",
    "Teacher",
    "add_noise_patches",
    "add_varied_anomalies",
    "check_choice",
    "check_image_size",
    "check_precision",
    "check_seed",
    "cosine_distance_maps",
    "derived_seed",
    "exportable",
    "feature_distances",
    "in_float32",
    "read_checkpoint",
    "reduce_map",
    "seeded",
]
