"""The subcommand `report`: recomputes the report of a benchmark from its saved scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

DESCRIPTION = "Recompute the report of a benchmark from its saved scores: a page, Markdown and metrics.csv."


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--run",
        type=Path,
        required=True,
        metavar="DIR",
        help="Folder that `anomalib-medical benchmark` wrote, finished or not. The report goes into DIR/report.",
    )
    parser.add_argument(
        "--publish",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="Copy what the report is made of to this folder, without pictures, logs and what tells patients, and "
        "write the report there: for results that leave the place of the data. A folder that this made is brought up "
        "to date.",
    )


def run(arguments: Mapping[str, Any]) -> int:
    """Write the report; returns 0."""
    from anomalib_medical.benchmark.publish import local_paths, open_run, publish
    from anomalib_medical.benchmark.report import write_report

    run = open_run(arguments["run"])
    if arguments["publish"] is not None:
        run = publish(run, arguments["publish"])
        if named := local_paths(run.plan()):
            print(f"The plan names folders of this machine, look at plan.yaml: {', '.join(named)}")
    print(write_report(run))
    return 0
