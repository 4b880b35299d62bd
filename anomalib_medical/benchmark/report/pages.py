"""Renders the report's content as a page and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import yaml
from jinja2 import Environment, StrictUndefined

from anomalib_medical.benchmark.files import mapping
from anomalib_medical.benchmark.report.evaluate import N_RESAMPLES
from anomalib_medical.benchmark.report.figures import Picture
from anomalib_medical.benchmark.report.view import View
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.io import agree, counted

_PROTOCOL = {
    "clean": "Protocol: clean. Thresholds come from held-out normal images of the training side; the last weights are "
    "scored once on the test set.",
    "published": "Protocol: published. As clean, and the test set was also scored during training, to show what "
    "choosing a checkpoint on it adds; no figure but that one uses it.",
}


def render_html(view: View) -> str:
    """Return the page, which needs no other file and no network."""
    return _render("page.html.jinja", view, autoescape=True)


def render_markdown(view: View) -> str:
    """Return the report as Markdown, without pictures."""
    text = _render("report.md.jinja", view, autoescape=False)
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return re.sub(r"\n{3,}", "\n\n", lines).strip() + "\n"


def _render(name: str, view: View, *, autoescape: bool) -> str:
    # Markdown is no HTML: its own escaping is the filter `md`.
    environment = Environment(autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)  # noqa: S701
    environment.filters["md"] = _escape
    environment.filters["unbroken"] = _unbroken
    environment.globals["figure_file"] = figure_file
    template = environment.from_string(files(__package__).joinpath(name).read_text(encoding="utf-8"))
    intervals = (
        f"Intervals: 95%, {N_RESAMPLES} bootstrap resamples of patients (of images where patients are unknown) within "
        "strata of class, of the mean over the seeds. They say how a figure varies with the patients, not with the "
        "seed, whose values stand beside it."
    )
    plan, done = view.run.plan, view.run.n_done
    protocol = [_PROTOCOL.get(str(plan.get("protocol", "clean")), ""), _settings(plan), intervals]
    return template.render(
        run=view.run,
        took=duration(view.run.seconds),
        machine=_machine(view.run.info.machine),
        brief=view.brief,
        overview=view.overview,
        datasets=view.datasets,
        problems=view.problems,
        have_results=f"{done} of {counted(len(view.run.planned), 'planned job')} {agree(done, 'has', 'have')} results",
        teachers=view.teachers,
        protocol=[line for line in protocol if line],
        plan=yaml.safe_dump(view.run.plan, sort_keys=False, allow_unicode=True),
    )


def figure_file(anchor: str, picture: Picture) -> str:
    """Where a figure of a dataset lies, from report.md."""
    return f"figures/{anchor}-{picture.kind}.svg"


def _settings(plan: Mapping[str, Any]) -> str:
    """What all models have in common, in words."""
    words = []
    if minutes := mapping(plan.get("limits")).get("train_minutes"):
        most = f"{minutes:g} {agree(minutes, 'minute', 'minutes')}"
        words.append(f"Training of at most {most} for each model; PatchCore and PaDiM make one pass.")
    if size := plan.get("image_size"):
        backbone = plan.get("backbone")
        words.append(f"Images of {size}x{size} pixels and backbone {backbone}, unless the plan says otherwise.")
    if seeds := plan.get("seeds"):
        words.append(f"Seeds: {', '.join(map(str, seeds))}; trivial scores but the random one have a single run.")
    return " ".join(words)


def _machine(parts: Mapping[str, str]) -> str:
    """The machine in a line."""
    named = {"cores": "{} core" if parts.get("cores") == "1" else "{} cores", "accelerator": "accelerator: {}"}
    return ", ".join(named.get(key, "{}").format(value) for key, value in parts.items())


def _unbroken(text: str) -> str:
    """Let a line break beside intervals and rates, not within them."""
    return re.sub(
        r"\[[^\]]*\]|(?:sens\.|spec\.|p [=<]) \S+", lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), text
    )


def _escape(value: object) -> str:
    """Keep text from being read as Markdown or HTML."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", " ".join(str(value).split()))
