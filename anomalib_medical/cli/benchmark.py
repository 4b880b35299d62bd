"""The subcommand `benchmark`: our plans, and anomalib's own files with an honest exit code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from anomalib.pipelines import Benchmark
from anomalib.pipelines.components.base import Runner
from anomalib.pipelines.components.base.pipeline import log_file
from jsonargparse import ArgumentParser, Namespace

from anomalib_medical.errors import MedicalError, needs_extra


class CheckedBenchmark(Benchmark):
    """Run models x datasets x seeds under the same conditions, one process a job, and go on where a run stopped.

    A file with the key ``benchmark`` or ``accelerator`` is one of anomalib's own benchmark, and goes there: it logs the
    exceptions of its runners and then succeeds; this one fails.
    """

    def __init__(self) -> None:
        self._errors: list[Exception] = []

    @staticmethod
    def get_parser(parser: ArgumentParser | None = None) -> ArgumentParser:
        """Declare the arguments."""
        parser = parser or ArgumentParser(
            description="Run models x datasets x seeds under the same conditions, one process a job. The same command "
            "goes on where a run stopped."
        )
        parser.add_argument(
            "--config",
            type=Path,
            required=True,
            help="The plan, such as configs/benchmark/smoke.yaml; or a file of anomalib's own benchmark.",
        )
        parser.add_argument(
            "--output",
            type=Path | None,
            metavar="DIR",
            help="Run folder; results/benchmark/<name of the plan> by default. Finished jobs in it are not run again.",
        )
        parser.add_argument(
            "--dry_run",
            "--dry-run",
            action="store_true",
            help="Check the plan and print it with an estimate of the time.",
        )
        parser.add_argument(
            "--force_new_plan",
            action="store_true",
            help="Take a run folder that holds another plan: jobs that are the same in both are kept, the others are "
            "moved to replaced/ in it.",
        )
        return parser

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
        """Run a plan, or anomalib's benchmark.

        Raises:
            MedicalError: If a runner of anomalib's failed.
        """
        args = self.get_parser().parse_args() if args is None else args
        config, output = Path(args.config), args.get("output")
        flags = {name: bool(args.get(name)) for name in ("dry_run", "force_new_plan")}
        if not _is_anomalibs(config):
            with needs_extra("report"):
                from anomalib_medical.benchmark.command import run_benchmark

            run_benchmark(config, output, **flags)
            return
        if output is not None or any(flags.values()):
            msg = (
                f"{args.config} is a file of anomalib's own benchmark (it has the key `benchmark` or `accelerator`), "
                "which knows no --output, --dry_run or --force_new_plan. Leave them out, or write a plan as in "
                "configs/benchmark/."
            )
            raise MedicalError(msg)
        super().run(args)
        if self._errors:
            msg = f"The benchmark failed. The log with the reasons is {Path(log_file).resolve()}"
            raise MedicalError(msg) from self._errors[0]


def _is_anomalibs(path: Path) -> bool:
    """Whether a YAML file has anomalib's keys; what cannot be read is left to our reader's messages."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and bool({"benchmark", "accelerator"} & content.keys())
