"""The subcommand `report`: recomputes the report of a benchmark from its saved scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser


def add_report_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        metavar="DIR",
        help="Folder that `anomalib-medical benchmark` wrote, finished or not. The report goes into DIR/report.",
    )


def run_report(arguments: Mapping[str, Any]) -> int:
    """Write the report.

    Returns:
        0.
    """
    from anomalib_medical.benchmark.report import write_report

    print(f"Report: {write_report(arguments['run'])}")
    return 0
