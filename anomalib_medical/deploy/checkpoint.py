"""A trained model from its checkpoint alone, whichever class it is of."""

import inspect
import pickle
from importlib import import_module
from pathlib import Path
from typing import Any

import anomalib.models
import torch
from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor
from anomalib.utils.serialization import anomalib_safe_globals

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.teacher import without_download


class CheckpointError(MedicalError):
    """A checkpoint could not be read, or is of another model than said."""


def load_model(path: Path, name: str | None = None) -> AnomalibModule:
    """Load a trained model.

    Args:
        path: Checkpoint that a training wrote.
        name: Class of the model, as ``Patchcore`` or ``package.Class``; None if the checkpoint names it, as those of
            this package do.

    Returns:
        The model in evaluation mode, on the CPU.

    Raises:
        CheckpointError: If the checkpoint is missing, damaged or of another class, or nothing names the class.
    """
    content = _read(path)
    named = content.get("model_class")
    if name is None and named is None:
        msg = f"{path} does not name its model, as checkpoints of anomalib's own models do not: give --model Patchcore."
        raise CheckpointError(msg)
    if name is not None and named is not None and name.rpartition(".")[2] != named:
        msg = f"{path} is a checkpoint of {named}, and --model is {name}: leave --model out."
        raise CheckpointError(msg)
    cls = _class(str(name or named))
    # All weights come from the checkpoint: the teacher's must not be looked for on the hub.
    offline: dict[str, Any] = {"pre_trained": False} if "pre_trained" in inspect.signature(cls).parameters else {}
    try:
        with without_download():
            model = cls.load_from_checkpoint(path, map_location="cpu", **offline, **_pre_processor(content, cls))
    except (RuntimeError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        msg = f"{path} does not fit {cls.__name__} ({reason[:200]}). Give --model the class that was trained."
        raise CheckpointError(msg) from error
    return model.eval()


def _pre_processor(content: dict[str, Any], cls: type[AnomalibModule]) -> dict[str, Any]:
    """The pre-processor a model of anomalib's was trained with: some build parts of themselves for its image size.

    anomalib restores it after the model is built, and `ReverseDistillation` would smooth and resize its maps as those
    of images of 256 pixels.
    """
    config = content.get("anomalib_pre_processor_config")
    if not config or "model_class" in content or "pre_processor" not in inspect.signature(cls).parameters:
        return {}
    pre_processor = PreProcessor()
    pre_processor.load_checkpoint_config(config)
    return {"pre_processor": pre_processor}


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        msg = f"There is no checkpoint {path}. Give the model.ckpt that a training has written."
        raise CheckpointError(msg)
    # Some models keep enumerations of their own; which model it is stands in the file, if at all.
    types = {one for cls in _known().values() for one in cls.checkpoint_safe_globals()}
    try:
        with anomalib_safe_globals(extra=list(types)):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        msg = f"{path} could not be read as a checkpoint ({type(error).__name__}): damaged, or another kind of file?"
        raise CheckpointError(msg) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        msg = f"{path} holds no trained model (no state_dict). Give the model.ckpt that a training has written."
        raise CheckpointError(msg)
    return content


def _class(name: str) -> type[AnomalibModule]:
    module, _, short = name.rpartition(".")
    try:
        found = getattr(import_module(module) if module else anomalib.models, short, None)
    except ImportError as error:
        msg = f"--model {name}: there is no module {module}."
        raise CheckpointError(msg) from error
    if not (isinstance(found, type) and issubclass(found, AnomalibModule)):
        msg = f"--model {name}: there is no such model. Known: {', '.join(sorted(_known()))}."
        raise CheckpointError(msg)
    return found


def _known() -> dict[str, type[AnomalibModule]]:
    """All models that have short names."""
    return {
        name: value
        for name, value in vars(anomalib.models).items()
        if isinstance(value, type) and issubclass(value, AnomalibModule)
    }
