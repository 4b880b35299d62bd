"""The subcommand `report`: figures, intervals and tables of saved scores, of a benchmark or of any run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from anomalib_medical.errors import MedicalError, needs_extra

DESCRIPTION = (
    "Metrics with intervals, comparisons, figures and the patients that are wrong, from saved scores: of a benchmark "
    "(--run) or of any test (--predictions). Writes a page, Markdown, LaTeX and CSV."
)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--run",
        type=Path,
        default=None,
        metavar="DIR",
        help="Folder that `anomalib-medical benchmark` wrote, finished or not. The report goes into DIR/report.",
    )
    parser.add_argument(
        "--predictions",
        nargs="+",
        type=str,
        default=None,
        metavar="[NAME=]FILE",
        help="Files predictions.csv of images with true labels, one a model; several of one NAME are its trainings. "
        "The page shows heatmaps and paths of the images.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=None,
        metavar="FOLDER",
        help="Where the report on predictions goes: by default beside the first file, in report/ or the next free "
        "number.",
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
    files, other = arguments["predictions"], {name for name in ("run", "publish") if arguments[name] is not None}
    if bool(files) == ("run" in other) or (files and other) or (arguments["output"] and not files):
        msg = (
            "report takes one of the two: --run DIR, of a benchmark, with --publish FOLDER if wanted; or --predictions "
            "FILE ..., with --output FOLDER if wanted."
        )
        raise MedicalError(msg)
    with needs_extra("report"):
        from anomalib_medical.benchmark.publish import local_paths, open_run, publish
        from anomalib_medical.benchmark.report import report_predictions, write_report

    if files:
        print(report_predictions(files, arguments["output"]))
        return 0
    run = open_run(arguments["run"])
    if arguments["publish"] is not None:
        run = publish(run, arguments["publish"])
        if named := local_paths(run.plan()):
            print(f"The plan names folders of this machine, look at plan.yaml: {', '.join(named)}")
    print(write_report(run))
    return 0
