"""What to make a bundle of; a file of its own, as the command line shows it without loading the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from anomalib_medical.data.patients import PatientSource
from anomalib_medical.edge.manifest import Reading

Precision = Literal["fp32", "fp16", "int8"]


@dataclass(frozen=True)
class BundleRequest:
    """What to make a bundle of; the command line's options are made of it.

    Attributes:
        ckpt_path: Checkpoint of a trained model.
        output: The new folder; nothing is overwritten.
        model: Class of the model, such as Patchcore; only for checkpoints of plain anomalib, which do not name it.
        precision: fp16 halves the size; int8 quarters it and is faster, needs --normals, and changes scores: see the
            model card.
        normals: Normal images to calibrate INT8 with, of training or validation: 10 or more, better 300. A folder, or a
            manifest as MedicalFolder reads it, of which the splits train and val are taken.
        test_data: Folder in MedicalFolder's layout, or its manifest: the test is scored for the AUROC in the model
            card.
        manifest_root: Folder that the paths in manifests are relative to. Default: the manifest's own.
        patient_pattern: For --test_data: the patient in a file's name, as in MedicalFolder, for the AUROC's interval.
        patient_from: For --test_data: where patients come from if headers do not tell them apart, as in MedicalFolder.
        mask_labels: For --test_data: values of masks that are abnormal, as in MedicalFolder.
        mask_threshold: For --test_data: values of masks above it are abnormal, instead.
        trained_on: Data and protocol, in your words, for the model card.
        reading: How files are read.
    """

    ckpt_path: Path
    output: Path
    model: str | None = None
    precision: Precision = "fp32"
    normals: Path | None = None
    test_data: Path | None = None
    manifest_root: Path | None = None
    patient_pattern: str | None = None
    patient_from: PatientSource = "header"
    mask_labels: list[int] | None = None
    mask_threshold: float | None = None
    trained_on: str | None = None
    reading: Reading = field(default_factory=Reading)
