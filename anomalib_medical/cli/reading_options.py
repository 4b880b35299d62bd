"""How DICOM and NIfTI files are read: the options `--window`, `--axis` and `--slice_range`, of all subcommands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser

from anomalib_medical.io import Axis, Slicing, Window


def add_reading_options(parser: ArgumentParser, what: str, *, volumes: bool = True) -> None:
    """Declare them; `what` they are for begins the help of each, and without `volumes` there is the window alone."""
    parser.add_argument(
        "--window",
        type=str | tuple[float, float] | None,
        # No brackets: the help would take them for markup.
        help=f"{what}: the window for DICOM and NIfTI files (bone, brain, lung, soft_tissue, or center and width); "
        "what DICOM files say themselves if not given.",
    )
    if volumes:
        parser.add_argument("--axis", type=Axis, default="axial", help=f"{what}: how volumes are cut.")
        parser.add_argument(
            "--slice_range",
            type=tuple[float, float],
            default=(0.0, 1.0),
            help=f"{what}: first and last slice as shares of the volume.",
        )


def window_of(options: Mapping[str, Any]) -> str | tuple[float, float] | None:
    """The window as it was given, if it is one."""
    Window.of(options["window"])
    window: str | tuple[float, float] | None = options["window"]
    return window


def slicing_of(options: Mapping[str, Any]) -> Slicing:
    """How volumes are cut, if that leaves a slice."""
    return Slicing(options["axis"], options["slice_range"])
