"""How DICOM and NIfTI files are read: the options `--window`, `--axis` and `--slice_range`, of all subcommands."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from jsonargparse import ArgumentParser

from anomalib_medical.errors import MedicalError
from anomalib_medical.io import Axis, Slicing, Window

logger = logging.getLogger(__name__)

# The options, and what holds where neither command nor checkpoint says it.
READING: dict[str, Any] = {"window": None, "axis": "axial", "slice_range": (0.0, 1.0)}


def add_reading_options(parser: ArgumentParser, what: str, *, volumes: bool = True) -> None:
    """Declare them; `what` they are for begins the help of each, and without `volumes` there is the window alone."""
    parser.add_argument(
        "--window",
        type=str | tuple[float, float] | None,
        # No brackets: the help would take them for markup.
        help=f"{what}: the window for DICOM and NIfTI files (bone, brain, lung, soft_tissue, or center and width). As "
        "in training if not given, or else what DICOM files say themselves.",
    )
    if volumes:
        parser.add_argument(
            "--axis", type=Axis | None, help=f"{what}: how volumes are cut. As in training if not given, or else axial."
        )
        parser.add_argument(
            "--slice_range",
            type=tuple[float, float] | None,
            help=f"{what}: first and last slice as shares of the volume. As in training if not given, or else all.",
        )


def as_in_training(
    trained: Mapping[str, Any], given: Mapping[str, Any], checkpoint: object, prefix: str = ""
) -> dict[str, Any]:
    """The reading options that are given, completed by those of the training, as far as there are any.

    Args:
        trained: A checkpoint's ``reading``.
        given: Those of `READING` that a command says.
        checkpoint: Where the first are from, for messages.
        prefix: What stands before the names of the second on the command line.

    Raises:
        MedicalError: If images would come out otherwise than in the training. Which slices are taken may differ.
    """
    trained, given = chosen(trained), chosen(given)
    for name in ("window", "axis"):
        had, has = trained.get(name), given.get(name)
        if had is None or has is None or (Window.of(had) == Window.of(has) if name == "window" else had == has):
            continue
        msg = (
            f"{checkpoint} was trained with {name} {_shown(had)}, and --{prefix}{name} is {_shown(has)}: the model has "
            f"not learnt such images. Leave --{prefix}{name} out, or train with it."
        )
        raise MedicalError(msg)
    taken = {name: value for name, value in trained.items() if name not in given and value != READING[name]}
    if taken:
        told = ", ".join(f"{name} {_shown(value)}" for name, value in taken.items())
        logger.info("Reads files as the training did: %s.", told)
    return trained | given


def chosen(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `READING` that are set, lists as tuples."""
    values = {name: options.get(name) for name in READING}
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items() if value is not None
    }


def _shown(value: object) -> str:
    return f"[{', '.join(f'{each:g}' for each in value)}]" if isinstance(value, tuple) else str(value)


def window_of(options: Mapping[str, Any]) -> str | tuple[float, float] | None:
    """The window as it was given, if it is one."""
    Window.of(options["window"])
    window: str | tuple[float, float] | None = options["window"]
    return window


def slicing_of(options: Mapping[str, Any]) -> Slicing:
    """How volumes are cut, if that leaves a slice."""
    return Slicing(options["axis"] or READING["axis"], options["slice_range"] or READING["slice_range"])
