"""`anomalib-medical`: anomalib's command line with our classes registered, our subcommands and honest exit codes."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import anomalib
from anomalib.cli import pipelines
from anomalib.cli.cli import AnomalibCLI
from anomalib.loggers import configure_logger
from anomalib.models import UnknownModelError
from anomalib.pipelines import Benchmark
from anomalib.pipelines.components.base import Runner
from anomalib.pipelines.components.base.pipeline import log_file
from jsonargparse import Namespace
from lightning.fabric.utilities.exceptions import MisconfigurationException

import anomalib_medical
from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.commands import COMMANDS, CommandError

DEBUG_VARIABLE = "ANOMALIB_MEDICAL_DEBUG"


class CheckedBenchmark(Benchmark):
    """Benchmark models on datasets.

    anomalib's own logs the exceptions of its runners and then succeeds; this one fails.
    """

    def __init__(self) -> None:
        self._errors: list[Exception] = []

    def _setup_runners(self, args: dict[str, Any]) -> list[Runner]:  # type: ignore[override]  # a static method there
        runners = super()._setup_runners(args)
        for runner in runners:
            runner.run = self._remember(runner.run)  # type: ignore[method-assign]  # wraps any kind of runner
        return runners

    def _remember(self, run: Callable[..., Any]) -> Callable[..., Any]:
        def remembering(*args: object, **kwargs: object) -> object:
            try:
                return run(*args, **kwargs)
            except Exception as error:
                self._errors.append(error)
                raise

        return remembering

    def run(self, args: Namespace | None = None) -> None:
        """Run the benchmark.

        Raises:
            CommandError: If a runner failed.
        """
        super().run(args)
        if self._errors:
            msg = f"The benchmark failed. The log with the reasons is {Path(log_file).resolve()}"
            raise CommandError(msg) from self._errors[0]


class MedicalCLI(AnomalibCLI):
    """anomalib's CLI plus `COMMANDS`, with `PredictionsCSV` on."""

    def __init__(self, args: Sequence[str] | None = None, run: bool = True) -> None:
        # anomalib asks itself for `add_<subcommand>_arguments`.
        for name, command in COMMANDS.items():
            setattr(self, f"add_{name}_arguments", command.prepare)
        super().__init__(args, run)

    @staticmethod
    def anomalib_subcommands() -> dict[str, dict[str, str]]:
        """Subcommands that are not Lightning's, and their descriptions."""
        ours = {name: {"description": command.description} for name, command in COMMANDS.items()}
        return {**AnomalibCLI.anomalib_subcommands(), **ours}

    def add_subcommands(self, **kwargs: object) -> None:
        """Add the options that come before the subcommand, then the subcommands."""
        self.parser.add_argument(
            "--version",
            action="version",
            version=f"anomalib-medical {anomalib_medical.__version__}, anomalib {anomalib.__version__}",
        )
        self.parser.add_argument(
            "--debug",
            action="store_true",
            help=f"Show the traceback of every error (allowed anywhere; or set {DEBUG_VARIABLE}=1).",
        )
        super().add_subcommands(**kwargs)

    def instantiate_classes(self) -> None:
        """Build model, data and engine, which our own subcommands do not have."""
        if self.subcommand not in COMMANDS:
            super().instantiate_classes()

    def instantiate_engine(self) -> None:
        """Build the engine with `PredictionsCSV` among its callbacks."""
        trainer = self.config_init[self.subcommand].trainer
        callbacks = trainer.callbacks or []
        callbacks = list(callbacks) if isinstance(callbacks, Sequence) else [callbacks]
        if self.subcommand != "export" and not any(isinstance(callback, PredictionsCSV) for callback in callbacks):
            callbacks.append(PredictionsCSV())
        trainer.callbacks = callbacks
        super().instantiate_engine()

    def _run_subcommand(self) -> None:
        if self.subcommand not in COMMANDS:
            super()._run_subcommand()
        elif code := COMMANDS[self.subcommand].run(self.config[self.subcommand]):
            raise SystemExit(code)


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        args: Arguments without the program's name; those of the process if None.

    Raises:
        SystemExit: With the exit code, if it is not 0.
    """
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments or os.environ.get(DEBUG_VARIABLE, "0") not in {"", "0"}
    configure_logger()
    if pipelines.PIPELINE_REGISTRY is not None:
        pipelines.PIPELINE_REGISTRY["benchmark"] = CheckedBenchmark
    try:
        MedicalCLI([argument for argument in arguments if argument != "--debug"])
    except Exception as error:
        if debug or not is_user_error(error):
            raise
        print(f"error: {error}\n(the traceback: --debug)", file=sys.stderr)
        raise SystemExit(1) from None


def is_user_error(error: Exception) -> bool:
    """Whether `error` tells users about their input, so that a traceback would only bury its message.

    Files that cannot be read or written, impossible settings and failed pipelines do. A `ValueError` or `ImportError`
    does if anomalib or this package raised it: from deeper down it is more likely a mistake of ours.
    """
    if isinstance(error, OSError | MisconfigurationException | CommandError | UnknownModelError):
        return True
    return isinstance(error, ValueError | ImportError) and _raised_in(error.__traceback__) in {
        "anomalib",
        "anomalib_medical",
    }


def _raised_in(traceback: TracebackType | None) -> str:
    """Name of the top-level package in which the exception was raised."""
    name = ""
    while traceback is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__", ""))
        traceback = traceback.tb_next
    return name.partition(".")[0]
