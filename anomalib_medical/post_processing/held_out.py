"""Whether the images that a threshold comes from are held out of the test."""

import os
from typing import Any

from lightning.pytorch import Trainer


def tested_validation_images(trainer: Trainer | None) -> int:
    """Count the validation files of the trainer's datamodule that are test files too; 0 where it has no lists."""
    datamodule = getattr(trainer, "datamodule", None)
    validation, test = (_files(getattr(datamodule, name, None)) for name in ("val_data", "test_data"))
    return len(validation & test)


def _files(data: Any) -> set[str]:  # noqa: ANN401 - any dataset
    samples = getattr(data, "samples", None)
    return set() if samples is None else {os.path.abspath(path) for path in samples.get("image_path", ())}  # noqa: PTH100 - not resolved: that asks the disk
