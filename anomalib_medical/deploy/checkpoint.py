"""A trained model from its checkpoint alone, whichever class it is of."""

import inspect
from pathlib import Path
from typing import Any

from anomalib.models.components import AnomalibModule

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.checkpoints import (
    check_restorable,
    class_of,
    post_processor_of,
    pre_processor_of,
    read_checkpoint,
)
from anomalib_medical.models.components.weights import without_download


def load_model(path: Path, name: str | None = None) -> AnomalibModule:
    """Load a trained model on the CPU, in evaluation mode, with the post-processor that it was trained with.

    Its class is named as ``Patchcore`` or ``package.Class``, or by the checkpoint, as `RunFiles` has it.
    """
    content = read_checkpoint(path)
    cls = class_of(content, path, name)
    check_restorable(content, path, cls)
    accepted = inspect.signature(cls).parameters
    given: dict[str, Any] = {"pre_trained": False, "post_processor": post_processor_of(content, path)}
    if (pre_processor := pre_processor_of(content, cls)) is not None:
        given["pre_processor"] = pre_processor
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
