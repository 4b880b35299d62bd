"""Our own subcommands of `anomalib-medical`.

To add one, write its two functions where it belongs and list it in `COMMANDS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from anomalib_medical.cli.audit import add_audit_arguments, run_audit
from anomalib_medical.cli.bundle import add_bundle_arguments, run_bundle
from anomalib_medical.cli.report import add_report_arguments, run_report
from anomalib_medical.cli.retarget import add_retarget_arguments, run_retarget
from anomalib_medical.config_files import configs_dir, copy_configs, list_configs
from anomalib_medical.errors import MedicalError


class CommandError(MedicalError):
    """A command could not do its work."""


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        description: One sentence for the help.
        add_arguments: Declares the arguments on the subcommand's parser.
        run: Gets the parsed arguments by name, returns the exit code.
    """

    description: str
    add_arguments: Callable[[ArgumentParser], None]
    run: Callable[[Mapping[str, Any]], int]

    def prepare(self, parser: ArgumentParser) -> None:
        """Set up the subcommand's parser."""
        parser.description = self.description
        self.add_arguments(parser)


def _add_configs_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--copy",
        type=Path | None,
        metavar="DIR",
        help="Copy the files to this folder, keeping their own folders. Existing files are never overwritten.",
    )


def _run_configs(arguments: Mapping[str, Any]) -> int:
    if arguments["copy"] is None:
        print(f"Configuration files in {configs_dir()}:")
        for path, description in list_configs().items():
            print(f"  {path.as_posix()}  {description}")
        return 0
    target = arguments["copy"]
    report = copy_configs(target)
    for paths, what in (
        (report.copied, "copied"),
        (report.same, "already there"),
        (report.different, "left alone, it differs from ours"),
    ):
        for path in paths:
            print(f"{target / path}: {what}")
    return 1 if report.different else 0


def _add_quickstart_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--output", type=Path, default=Path("results/quickstart"), help="Folder for the results.")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="Train again, into a new version folder, even if a finished run is there.",
    )


def _run_quickstart(arguments: Mapping[str, Any]) -> int:
    from anomalib_medical.cli.quickstart import quickstart

    quickstart(arguments["output"], fresh=arguments["fresh"])
    return 0


COMMANDS: dict[str, Command] = {
    "audit": Command(
        "Look for leaks between splits and shortcuts to the label; exit code 0 clean, 1 findings, 2 could not run.",
        add_audit_arguments,
        run_audit,
    ),
    "bundle": Command(
        "Make a folder that runs a trained model without torch: OpenVINO graph, thresholds, runtime, model card.",
        add_bundle_arguments,
        run_bundle,
    ),
    "configs": Command("List or copy the configuration files.", _add_configs_arguments, _run_configs),
    "quickstart": Command(
        "Train, test and export a small model on generated images, in a few minutes without GPU or network.",
        _add_quickstart_arguments,
        _run_quickstart,
    ),
    "report": Command(
        "Recompute the report of a benchmark from its saved scores: a page, Markdown and metrics.csv.",
        add_report_arguments,
        run_report,
    ),
    "retarget": Command(
        "Give a trained D24fad the support of a new task and a threshold for it, without training: a new checkpoint.",
        add_retarget_arguments,
        run_retarget,
    ),
}
