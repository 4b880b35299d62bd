"""The subcommand `audit`: looks for leaks and shortcuts in any datamodule's data."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from anomalib_medical.cli.parser import CommandParser
from anomalib_medical.data.audit_limits import AuditLimits
from anomalib_medical.errors import is_user_error, user_message

COULD_NOT_RUN = 2
DESCRIPTION = (
    "Look for leaks between splits and shortcuts to the label; exit code 0 clean, 1 findings, 2 could not run."
)


def add_arguments(parser: CommandParser) -> None:
    """Declare the arguments."""
    _add_data(parser)
    parser.add_argument(
        "--output",
        type=Path | None,
        metavar="DIR",
        help="Folder for report.json, CSV files and index.html. If it is there already, the next number is taken.",
    )
    parser.add_argument(
        "--hash_paths",
        action="store_true",
        help="Write salted hashes in place of the images' paths, and the data's class in place of its name.",
    )
    parser.add_class_arguments(AuditLimits)


def run(arguments: Mapping[str, Any]) -> int:
    """Audit the data: 0 if nothing is above the limits, 1 if something is, 2 if the audit could not run."""
    try:
        return _run(arguments)
    except Exception as error:
        # 1 means findings here, so that a caller can tell a leak from a wrong path.
        if not is_user_error(error):
            raise
        print(f"error: {user_message(error)}", file=sys.stderr)
        return COULD_NOT_RUN


def _add_data(parser: CommandParser) -> None:
    text = "The data: a class such as MedicalFolder with its arguments, or a YAML file of them."
    parser.add_class_option("data", "anomalib.data.AnomalibDataModule", text)


def _run(arguments: Mapping[str, Any]) -> int:
    from anomalib_medical.data.audit import audit, claim_folder, collect_splits, format_report, write_report

    limits = AuditLimits(**{field.name: arguments[field.name] for field in fields(AuditLimits)})
    parser = CommandParser()
    _add_data(parser)
    datamodule = parser.instantiate_classes(Namespace(data=arguments["data"])).data  # type: ignore[no-untyped-call]
    datamodule.prepare_data()
    datamodule.setup()
    window = getattr(datamodule, "window", None)
    # A folder that cannot be written fails before hours of reading, not after.
    folder = None if arguments["output"] is None else claim_folder(Path(arguments["output"]))
    report = audit(collect_splits(datamodule), limits, left_out=getattr(datamodule, "left_out", None), window=window)
    print(format_report(report, datamodule.name))
    if folder is not None:
        # By default the name is that of a folder.
        name = type(datamodule).__name__ if arguments["hash_paths"] else datamodule.name
        write_report(report, folder, name, window, hash_paths=arguments["hash_paths"])
        print(f"\nReport: {folder / 'index.html'}")
    return 1 if report.findings else 0
