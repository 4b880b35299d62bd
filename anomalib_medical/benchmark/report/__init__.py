"""The report of a benchmark: read from its run folder, without a model and without the data."""

from __future__ import annotations

from pathlib import Path

from pandas import DataFrame

from anomalib_medical.benchmark.files import atomic, write_csv
from anomalib_medical.benchmark.report.pages import render_html, render_markdown
from anomalib_medical.benchmark.report.results import load_run
from anomalib_medical.benchmark.report.view import make_view
from anomalib_medical.benchmark.run_folder import RunFolder

__all__ = ["write_report"]


def write_report(run: str | Path | RunFolder) -> Path:
    """Compute all metrics from the saved scores and write ``report/index.html``, ``report.md`` and ``metrics.csv``.

    Args:
        run: The run folder; jobs that failed or have not run are listed in the report.

    Returns:
        The page, one file that opens offline.

    Raises:
        RunFolderError: If this is no run folder.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder(run)
    view = make_view(load_run(folder))
    target = folder.path / "report"
    write_csv(target / "metrics.csv", DataFrame(view.records))
    for name, text in (("report.md", render_markdown(view)), ("index.html", render_html(view))):
        with atomic(target / name) as file:
            file.write(text)
    return target / "index.html"
