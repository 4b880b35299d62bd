"""What two or more models share."""

from .anomaly_map import GaussianBlur, cosine_distance_maps, feature_distances
from .arguments import check_choice, check_image_size, check_precision, check_seed
from .checkpoints import read_checkpoint
from .foreign_patches import add_foreign_patches
from .map_score import FEWEST_NORMALS, TOP_SHARE, MapScore, Reduction, check_score, reduce_map
from .module import ONE_IMAGE, OPSET, MedicalModuleMixin
from .noise import add_noise_patches, add_varied_anomalies
from .numerics import derived_seed, in_float32, seeded, sent
from .resize import AntialiasedPreProcessor, exportable
from .teacher import DistillationMixin, Teacher

__all__ = [
    "AntialiasedPreProcessor",
    "DistillationMixin",
    "FEWEST_NORMALS",
    "GaussianBlur",
    "MapScore",
    "MedicalModuleMixin",
    "ONE_IMAGE",
    "OPSET",
    "Reduction",
    "TOP_SHARE",
    "Teacher",
    "add_foreign_patches",
    "add_noise_patches",
    "add_varied_anomalies",
    "check_choice",
    "check_image_size",
    "check_precision",
    "check_score",
    "check_seed",
    "cosine_distance_maps",
    "derived_seed",
    "exportable",
    "feature_distances",
    "in_float32",
    "read_checkpoint",
    "reduce_map",
    "seeded",
    "sent",
]
