"""The report of a benchmark: read from its run folder, without a model and without the data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pandas import DataFrame

from anomalib_medical.benchmark.files import atomic, write_csv
from anomalib_medical.benchmark.report.pages import figure_file, render_html, render_markdown
from anomalib_medical.benchmark.report.results import load_run
from anomalib_medical.benchmark.report.svg import standalone
from anomalib_medical.benchmark.report.view import make_view
from anomalib_medical.benchmark.run_folder import RunFolder

__all__ = ["Report", "write_report"]


@dataclass(frozen=True)
class Report:
    """A written report; as text, what a command says of it.

    Attributes:
        page: The page, one file that opens offline.
        bundles: How the best model of each dataset is bundled.
    """

    page: Path
    bundles: list[str]

    def __str__(self) -> str:
        """Where it is, and what can be done next."""
        return "\n".join([f"Report: {self.page}", *self.bundles])


def write_report(folder: RunFolder) -> Report:
    """Compute all metrics from the saved scores and write ``report/``: a page, Markdown with figures, metrics.csv.

    Args:
        folder: The run folder; jobs that failed or have not run are listed in the report.

    Raises:
        RunFolderError: If this is no run folder.
    """
    view = make_view(load_run(folder), folder.path)
    target = folder.path / "report"
    write_csv(target / "metrics.csv", DataFrame(view.records))
    pages = {"report.md": render_markdown(view), "index.html": render_html(view)}
    figures = {
        figure_file(each.anchor, picture): standalone(picture.svg) for each in view.datasets for picture in each.curves
    }
    for name, text in (figures | pages).items():
        with atomic(target / name) as file:
            file.write(text)
    return Report(target / "index.html", view.best_bundles)
