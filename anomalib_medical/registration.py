"""Makes our classes known to anomalib: the only file that touches anomalib's registries.

anomalib's short names and its benchmark look for classes in `anomalib.models` and `anomalib.data`, and refuse class
paths from modules that are not in `anomalib.models.ALLOWED_MODULES`.
"""

import logging
from importlib import import_module
from types import ModuleType

import anomalib.data
import anomalib.models

logger = logging.getLogger(__name__)

MODELS = ("anomalib_medical.models.D24fad", "anomalib_medical.models.Ddad", "anomalib_medical.models.Scrd")
DATAMODULES = (
    "anomalib_medical.data.APTOS2019",
    "anomalib_medical.data.BrainTumorMRI",
    "anomalib_medical.data.Camelyon16",
    "anomalib_medical.data.FewShotTasks",
    "anomalib_medical.data.ISIC2018",
    "anomalib_medical.data.LAG",
    "anomalib_medical.data.MedicalFolder",
    "anomalib_medical.data.Phantom",
    "anomalib_medical.data.RSNA",
    "anomalib_medical.data.VinDrCXR",
)


def register() -> None:
    """Add our models and datamodules to anomalib's registries; calling it again changes nothing."""
    for paths, registry in ((MODELS, anomalib.models), (DATAMODULES, anomalib.data)):
        for path in paths:
            module, _, name = path.rpartition(".")
            cls: type = getattr(import_module(module), name)
            _set_attribute(registry, cls)
            if registry is anomalib.models:
                package = module.partition(".")[0]
                anomalib.models.ALLOWED_MODULES.update({package, module, cls.__module__})


def _set_attribute(registry: ModuleType, cls: type) -> None:
    """Set `registry.<class name>`, unless the name is taken by another class.

    A taken name is a warning, not an error: a later anomalib with a model of the same name must not make this package
    unusable, and our class stays reachable by its class path.
    """
    present = getattr(registry, cls.__name__, None)
    if present is None:
        setattr(registry, cls.__name__, cls)
    elif present is not cls:
        logger.warning(
            "%s already has a %s (from %s), which keeps the short name: use anomalib_medical.%s for ours.",
            registry.__name__,
            cls.__name__,
            getattr(present, "__module__", "an unknown module"),
            cls.__name__,
        )
