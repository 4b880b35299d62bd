"""Makes our classes known to anomalib: the only file that touches anomalib's registries.

anomalib's short names and its benchmark look for classes in `anomalib.models` and `anomalib.data`, and refuse class
paths from modules that are not in `anomalib.models.ALLOWED_MODULES`.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from anomalib_medical.errors import MedicalError

if TYPE_CHECKING:  # importing it takes seconds
    from anomalib.data import AnomalibDataModule
    from anomalib.models.components import AnomalibModule

logger = logging.getLogger(__name__)

MODELS = ("anomalib_medical.models.D24fad", "anomalib_medical.models.Ddad", "anomalib_medical.models.Scrd")
DATAMODULES = (
    "anomalib_medical.data.APTOS2019",
    "anomalib_medical.data.BrainTumorMRI",
    "anomalib_medical.data.Camelyon16",
    "anomalib_medical.data.FewShotTasks",
    "anomalib_medical.data.ISIC2018",
    "anomalib_medical.data.LAG",
    "anomalib_medical.data.MedicalBMAD",
    "anomalib_medical.data.MedicalFolder",
    "anomalib_medical.data.Phantom",
    "anomalib_medical.data.RSNA",
    "anomalib_medical.data.VinDrCXR",
)


def register() -> None:
    """Add our models and datamodules to anomalib's registries; calling it again changes nothing."""
    import anomalib.data
    import anomalib.models

    for paths, registry in ((MODELS, anomalib.models), (DATAMODULES, anomalib.data)):
        for path in paths:
            module, _, name = path.rpartition(".")
            cls: type = getattr(import_module(module), name)
            _set_attribute(registry, cls)
            if registry is anomalib.models:
                package = module.partition(".")[0]
                anomalib.models.ALLOWED_MODULES.update({package, module, cls.__module__})
    _share_run_folder()


def _share_run_folder() -> None:
    """Let anomalib find the run's folder, and not make another, in a process that another one of the run has started.

    Lightning starts the command again for every further device, and every engine would make a version folder.
    """
    from anomalib.engine import engine

    if any(int(os.environ.get(name, "0")) > 0 for name in ("LOCAL_RANK", "RANK")):
        engine.create_versioned_dir = _find_version  # type: ignore[attr-defined]  # it imports it


def _find_version(root_dir: str | Path) -> Path:
    from anomalib.utils.path import resolve_versioned_path

    return resolve_versioned_path(Path(root_dir) / "latest")


def known_models() -> dict[str, type[AnomalibModule]]:
    """All models that have short names."""
    return _known(*_models())


def find_model(path: str, what: str, others: Iterable[str] = ()) -> type[AnomalibModule]:
    """Find a model by its class path or its short name: ``anomalib.models.Patchcore`` or ``Patchcore``.

    For the error, `what` is what it was given as, such as ``--model``; the caller takes the names `others` besides.
    """
    found: type[AnomalibModule] = _find(path, *_models(), what, others)
    return found


def find_datamodule(path: str, what: str) -> type[AnomalibDataModule]:
    """Find a datamodule by its class path or its short name, as `find_model` finds a model."""
    import anomalib.data

    register()
    found: type[AnomalibDataModule] = _find(path, anomalib.data, anomalib.data.AnomalibDataModule, what)
    return found


def _models() -> tuple[ModuleType, type]:
    import anomalib.models
    from anomalib.models.components import AnomalibModule

    register()
    return anomalib.models, AnomalibModule


def _known(registry: ModuleType, base: type) -> dict[str, Any]:
    named = vars(registry).items()
    return {name: value for name, value in named if isinstance(value, type) and issubclass(value, base)}


def _find(path: str, registry: ModuleType, base: type, what: str, others: Iterable[str] = ()) -> Any:  # noqa: ANN401
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module) if module else registry, name, None)
    except ImportError as error:
        msg = f"{what} is {path!r}, and {module} cannot be imported ({error})."
        raise MedicalError(msg) from error
    if isinstance(found, type) and issubclass(found, base):
        return found
    names = sorted({*_known(registry, base), *others})
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(names)}."
    msg = f"{what} is {path!r}, which is unknown. {hint}"
    raise MedicalError(msg)


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
