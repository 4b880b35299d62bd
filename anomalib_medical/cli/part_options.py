"""`predict --part K --parts N --resume`: one part of an archive."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from anomalib_medical.callbacks.predictions_part import PartOfArchive
from anomalib_medical.cli.reading_options import slicing_of, window_of
from anomalib_medical.data.archive import ArchiveDataset
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import Archive, Part, Window, sha256


def add_part_options(parser: ArgumentParser) -> None:
    """Declare them."""
    parser.add_argument(
        "--part",
        type=int | None,
        help="Score only this one, from 1, of so many --parts of the files of --data, a folder or a list (.txt with "
        "one a line, .csv with a column path): other processes and machines score the others, into the same "
        "--default_root_dir.",
    )
    parser.add_argument("--parts", type=int | None, help="Number of parts.")
    parser.add_argument(
        "--resume", action="store_true", help="Go on with the part where its results end, if there are any."
    )


def part_of(options: Mapping[str, Any]) -> Part | None:
    """The part that is asked for, None if all of the data is."""
    number, parts = options["part"], options["parts"]
    if number is None and parts is None and not options["resume"]:
        return None
    if number is None or parts is None:
        msg = "--part, --parts and --resume: expected --part K --parts N, with or without --resume."
        raise MedicalError(msg)
    return Part(number, parts)


def make_part(options: Mapping[str, Any], data: object) -> PartOfArchive | None:
    """Find the files of the part that is asked for, and say where its predictions go; None if all of the data is."""
    part = part_of(options)
    if part is None:
        return None
    if not isinstance(data, str | Path):
        msg = "--part divides files: expected a folder or a list of files as --data, not a datamodule or a dataset."
        raise MedicalError(msg)
    window, slicing = window_of(options), slicing_of(options)
    model = options["model"]
    facts = {
        "checkpoint": sha256(options["ckpt_path"]) if options["ckpt_path"] else "",
        "model": model.as_dict() if hasattr(model, "as_dict") else model,
        "reading": [window, slicing.axis, slicing.slice_range],
    }
    return PartOfArchive(
        dataset=ArchiveDataset(Archive([data], part), Window.of(window), slicing),
        folder=Path(options["default_root_dir"]),
        model=hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest(),
        resume=options["resume"],
    )


def one_device(devices: Any) -> Any:  # noqa: ANN401 - as Lightning takes them
    """The device of a part: that which is asked for, or any one; a MedicalError for several."""
    if devices == "auto":
        return 1
    if (len(devices) if isinstance(devices, list) else devices) in {1, "1"}:
        return devices
    msg = (
        f"Got --trainer.devices {devices} for a part, expected one: divide into more parts, and run one on each device."
    )
    raise MedicalError(msg)
