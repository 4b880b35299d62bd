"""A trained model from its checkpoint alone, whichever class it is of."""

import inspect
from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule
from anomalib.pre_processing import PreProcessor

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.checkpoints import (
    check_restorable,
    classes_of,
    post_processor_of,
    read_checkpoint,
)
from anomalib_medical.models.components.weights import without_download
from anomalib_medical.registration import find_model


def load_model(path: Path, name: str | None = None) -> AnomalibModule:
    """Load a trained model on the CPU, in evaluation mode, with the post-processor that it was trained with.

    Its class is named as ``Patchcore`` or ``package.Class``, or by the checkpoint, as those of this package do.
    """
    content = read_checkpoint(path)
    named = content.get("model_class")
    if name is None and named is None:
        likely = " or ".join(classes_of(content)) or "Patchcore"
        msg = f"{path} does not name its model, as checkpoints of anomalib's own models do not: give --model {likely}."
        raise MedicalError(msg)
    cls = find_model(str(name or named), "--model")
    check_restorable(content, path, cls)
    accepted = inspect.signature(cls).parameters
    given: dict[str, Any] = {"pre_trained": False, "post_processor": post_processor_of(content, path)}
    config = content.get("anomalib_pre_processor_config")
    if config and "model_class" not in content:
        # anomalib restores it after the model is built, but some of its models build parts of themselves for their
        # image size: `ReverseDistillation` would smooth and resize its maps as those of images of 256 pixels.
        given["pre_processor"] = PreProcessor()
        given["pre_processor"].load_checkpoint_config(config)
    given = {key: value for key, value in given.items() if key in accepted}
    try:
        # All weights come from the checkpoint: the teacher's must not be looked for on the hub.
        with without_download():
            model = cls.load_from_checkpoint(path, map_location="cpu", **given)
    except (RuntimeError, TypeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        msg = f"{path} does not fit {cls.__name__} ({reason[:200]}). Give --model the class that was trained."
        raise MedicalError(msg) from error
    return model.eval()
