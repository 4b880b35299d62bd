"""The report of a benchmark: read from its run folder, without a model and without the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from pandas import DataFrame

from anomalib_medical.benchmark.files import atomic, write_csv
from anomalib_medical.benchmark.report.figures import sheet
from anomalib_medical.benchmark.report.predictions import first_file, load_predictions
from anomalib_medical.benchmark.report.results import Run, load_run
from anomalib_medical.benchmark.report.view import make_view
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.io import first_free, numbered

__all__ = ["Report", "report_predictions", "write_report"]

_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


@dataclass(frozen=True)
class Report:
    """A written report; as text, what a command says of it."""

    page: Path  # one file that opens offline
    bundles: list[str]  # how the best model of each dataset is bundled

    def __str__(self) -> str:
        """Where it is, and what can be done next."""
        return "\n".join([f"Report: {self.page}", *self.bundles])


def write_report(folder: RunFolder) -> Report:
    """Compute all metrics from a benchmark's saved scores and write its ``report/``."""
    return _write(load_run(folder), folder.path, folder.path / "report")


def report_predictions(files: Sequence[str], target: Path | None = None) -> Report:
    """Write the report on files of predictions into a folder, by default the first free ``report`` beside the first.

    Raises:
        RunFolderError: If a file cannot be read; as `load_predictions`.
    """
    run, beside = load_predictions(files), first_file(files).parent
    return _write(run, beside, target or first_free(lambda number: _made(numbered(beside, "report", number))))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _write(run: Run, folder: Path, target: Path) -> Report:
    """Write a page, Markdown with figures, all tables as LaTeX, metrics.csv and wrong.csv."""
    view = make_view(run, folder)
    write_csv(target / "metrics.csv", DataFrame(view["records"]))
    write_csv(target / "wrong.csv", DataFrame(view["wrong"]))
    with atomic(target / "tables.tex") as file:
        file.write(_render("tables.tex.jinja", view, escape=False))
    for dataset in view["datasets"]:
        if dataset["pictures"]:
            with atomic(target / f"{dataset['anchor']}.svg", "wb") as figures:
                figures.write(sheet(dataset["pictures"]))
    markdown = re.sub(r" +$", "", _render("report.md.jinja", view, escape=False), flags=re.MULTILINE)
    with atomic(target / "report.md") as file:
        file.write(re.sub(r"\n{3,}", "\n\n", markdown).strip() + "\n")
    with atomic(target / "index.html") as file:
        file.write(_render("page.html.jinja", view, escape=True))
    return Report(target / "index.html", view["best_bundles"])


def _render(name: str, view: dict[str, Any], *, escape: bool) -> str:
    # Markdown is no HTML: its own escaping is the filter `md`.
    environment = Environment(autoescape=escape, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)  # noqa: S701
    environment.filters |= {"md": _escape, "tex": _tex, "unbroken": _unbroken}
    return environment.from_string(files(__package__).joinpath(name).read_text(encoding="utf-8")).render(view)


def _unbroken(text: str) -> str:
    """Let a line break beside intervals and rates, not within them."""
    return re.sub(
        r"\[[^\]]*\]|(?:sens\.|spec\.|p [=<]) \S+", lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), text
    )


def _escape(value: object) -> str:
    """Keep text from being read as Markdown or HTML."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(str(value).split()))


def _tex(value: object) -> str:
    """Keep text from being read as LaTeX."""
    text = re.sub(r"[\\{}$&#_%~^]", lambda match: _TEX.get(match[0], f"\\{match[0]}"), " ".join(str(value).split()))
    return text.replace("\N{ALMOST EQUAL TO}", r"$\approx$").replace("\N{EN DASH}", "--")
