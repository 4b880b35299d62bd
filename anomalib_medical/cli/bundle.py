"""The subcommand `bundle`: a folder for a device without torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from anomalib_medical.cli.reading_options import add_reading_options, slicing_of, window_of
from anomalib_medical.data.patients import PatientSource

_TEST_OPTIONS = ("patient_pattern", "patient_from", "mask_labels", "mask_threshold")


DESCRIPTION = "Make a folder that runs a trained model without torch: OpenVINO graph, thresholds, runtime, model card."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--ckpt_path", type=Path, required=True, help="Checkpoint of a trained model.")
    parser.add_argument(
        "--model",
        type=str | None,
        help="Class of the model, such as Patchcore; only for checkpoints of anomalib's own, which do not name it.",
    )
    parser.add_argument("--output", type=Path, required=True, help="The new folder; nothing is overwritten.")
    parser.add_argument(
        "--precision",
        type=Literal["fp32", "fp16", "int8"],
        default="fp32",
        help="fp16 halves the size; int8 quarters it and is faster, needs --normals, and changes scores: see the model "
        "card.",
    )
    parser.add_argument(
        "--normals",
        type=Path | None,
        metavar="DIR_OR_CSV",
        help="Normal images to calibrate INT8 with, of training or validation: 10 or more, better 300. A folder, or a "
        "manifest as MedicalFolder reads it, of which the splits train and val are taken.",
    )
    parser.add_argument(
        "--test_data",
        type=Path | None,
        metavar="DIR_OR_CSV",
        help="Folder in MedicalFolder's layout, or its manifest: the test is scored for the AUROC in the model card.",
    )
    parser.add_argument(
        "--manifest_root",
        type=Path | None,
        metavar="DIR",
        help="Folder that the paths in manifests are relative to. Default: the manifest's own.",
    )
    parser.add_argument(
        "--patient_pattern",
        type=str | None,
        help="For --test_data: the patient in a file's name, as in MedicalFolder, for the AUROC's interval.",
    )
    parser.add_argument(
        "--patient_from",
        type=PatientSource,
        default="header",
        help="For --test_data: where patients come from if headers do not tell them apart, as in MedicalFolder.",
    )
    parser.add_argument(
        "--mask_labels",
        type=list[int] | None,
        help="For --test_data: values of masks that are abnormal, as in MedicalFolder.",
    )
    parser.add_argument(
        "--mask_threshold",
        type=float | None,
        help="For --test_data: values of masks above it are abnormal, instead.",
    )
    add_reading_options(parser, "As in training")
    parser.add_argument(
        "--modality",
        type=str | None,
        help="DICOM modality of the training images, such as MR; the runtime warns of others.",
    )
    parser.add_argument("--trained_on", type=str | None, help="Data and protocol, in your words, for the model card.")


def run(arguments: Mapping[str, Any]) -> int:
    """Write the bundle.

    Returns:
        0.

    Raises:
        MedicalError: If the checkpoint or the images cannot be used, or the folder is there already.
    """
    from anomalib_medical.deploy.bundle import BundleRequest, make_bundle
    from anomalib_medical.edge.manifest import NAME, Reading
    from anomalib_medical.io import sha256

    slicing = slicing_of(arguments)
    request = BundleRequest(
        checkpoint=arguments["ckpt_path"],
        output=arguments["output"],
        model=arguments["model"],
        precision=arguments["precision"],
        reading=Reading(window_of(arguments), slicing.axis, slicing.slice_range, arguments["modality"]),
        normals=arguments["normals"],
        test_data=arguments["test_data"],
        manifest_root=arguments["manifest_root"],
        test_options={name: arguments[name] for name in _TEST_OPTIONS},
        trained_on=arguments["trained_on"],
    )
    manifest = make_bundle(request)
    output = arguments["output"]
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 2**20
    print(f"Wrote {output}: {manifest.model.name}, {manifest.precision.upper()}, {size:.1f} MiB.")
    print(f"SHA-256 of its {NAME}, to be told to whoever receives it: {sha256(output / NAME)}")
    return 0
