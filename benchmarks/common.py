"""What several scripts share: the real data sets, results as JSON lines, and a trainer without talk."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from pandas import DataFrame

from anomalib_medical import MedicalFolder
from anomalib_medical.data.few_shot.support import draw_support

# Folders of ANOMALIB_MEDICAL_DATA, and where their file names say who the patient is.
PATTERNS = {
    "brain_flair": r"^(TCGA_[A-Z0-9]+_[A-Z0-9]+)_",
    "breast_ultrasound": None,
    "chest_xray": r"^((?:NORMAL2-)?IM-\d+|person\d+|u\d+)",
    "skin": None,
}
SETS = tuple(PATTERNS)


def root_of(name: str) -> Path:
    """Folder of a data set."""
    return Path(os.environ["ANOMALIB_MEDICAL_DATA"]) / name


def data_set(name: str) -> MedicalFolder:
    """Return a data set, read."""
    data = MedicalFolder(root_of(name), patient_pattern=PATTERNS.get(name), num_workers=0)
    data.setup()
    return data


def normals_of(data: MedicalFolder, most: int = 300) -> DataFrame:
    """Normal training images, of different patients as far as there are any."""
    return draw_support(data.train_data.samples, min(most, len(data.train_data)), seed=0)


def read_records(path: Path) -> list[dict[str, Any]]:
    """Return all records of a file of JSON lines; a file that is not there has none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append one record in a single write, so that a kill or a second process never leaves half a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (json.dumps(record) + "\n").encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def quiet_trainer(epochs: int, callbacks: list[Callback] | None = None, steps: int = -1) -> Trainer:
    """Make a trainer for so many epochs or steps: on the CPU, without validation, checkpoints or talk."""
    return Trainer(
        max_epochs=epochs,
        max_steps=steps,
        default_root_dir=tempfile.gettempdir(),  # of the salt, if a model hashes patients
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=callbacks,
    )
