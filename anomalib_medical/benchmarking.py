"""anomalib's benchmark with an honest exit code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from anomalib.pipelines import Benchmark
from anomalib.pipelines.components.base import Runner
from anomalib.pipelines.components.base.pipeline import log_file
from jsonargparse import Namespace

from anomalib_medical.commands import CommandError


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
