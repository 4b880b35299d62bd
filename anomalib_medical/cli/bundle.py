"""The subcommand `bundle`: a folder for a device without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from jsonargparse import ArgumentParser

from anomalib_medical.cli.reading_options import READING, add_reading_options, as_in_training, slicing_of, window_of
from anomalib_medical.deploy.request import BundleRequest
from anomalib_medical.edge.manifest import NAME, Reading
from anomalib_medical.io import sha256

DESCRIPTION = "Make a folder that runs a trained model without torch: OpenVINO graph, thresholds, runtime, model card."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_class_arguments(BundleRequest, as_group=False, skip={"reading"})
    add_reading_options(parser, "On the device")
    parser.add_argument(
        "--modality",
        type=str | None,
        help="DICOM modality of the training images, such as MR; the runtime warns of others.",
    )


def run(arguments: Mapping[str, Any]) -> int:
    """Write the bundle; returns 0."""
    from anomalib_medical.deploy.bundle import make_bundle
    from anomalib_medical.models.components.checkpoints import read_checkpoint

    given, path = {name: arguments[name] for name in READING}, arguments["ckpt_path"]
    settled = given | as_in_training(read_checkpoint(path).get("reading", {}), given, path)
    slicing = slicing_of(settled)
    reading = Reading(window_of(settled), slicing.axis, slicing.slice_range, arguments["modality"])
    given = {each.name: arguments[each.name] for each in fields(BundleRequest) if each.name != "reading"}
    manifest, output = make_bundle(BundleRequest(**given, reading=reading)), arguments["output"]
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 2**20
    print(f"Wrote {output}: {manifest.model.name}, {manifest.precision.upper()}, {size:.1f} MiB.")
    print(f"SHA-256 of its {NAME}, to be told to whoever receives it: {sha256(output / NAME)}")
    return 0
