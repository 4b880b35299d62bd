"""The tables of the report, the same for the page and for Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from anomalib_medical.benchmark.records import Cost
from anomalib_medical.benchmark.report.compare import TOP_K, Contrast, GroupRow
from anomalib_medical.benchmark.report.evaluate import RANKING, Metric, Value
from anomalib_medical.benchmark.report.faults import Effect
from anomalib_medical.benchmark.report.results import Dataset, Model
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.io import counted
from anomalib_medical.metrics import Estimate

NOTHING = "–"  # noqa: RUF001 - an en dash, as tables print what is not there


@dataclass(frozen=True)
class Cell:
    """A cell: a figure, what stands small beside it, whether it is marked, and what it is if asked."""

    text: str
    small: str = ""
    strong: bool = False
    title: str = ""


@dataclass(frozen=True)
class Table:
    """A table."""

    title: str
    columns: list[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)


def metric_table(
    title: str,
    models: Sequence[Model],
    metrics: Sequence[Metric],
    values: Mapping[str, Mapping[str, Value]],
    notes: list[str],
) -> Table:
    """Models by metrics, less what nobody has, and why figures are missing."""
    figures = [(model.label, {each.title: values[model.name][each.key] for each in metrics}) for model in models]
    measured = {title for _, own in figures for title, value in own.items() if value.estimate}
    shown = [metric.title for metric in metrics if metric.title in measured]
    rows = [
        [Cell(label), *(value_cell(own[title]) for title in shown)]
        for label, own in figures
        if any(value.estimate for value in own.values())
    ]
    return Table(title, ["model", *shown], rows, [*(notes if rows else []), *without(figures)])


def without(figures: Sequence[tuple[str, Mapping[str, Value]]]) -> list[str]:
    """Say which of the models' figures there are not, and why: tooltips reach few readers, and no file."""
    groups: dict[tuple[str, str], list[str]] = {}
    for label, own in figures:
        absent: dict[str, list[str]] = {}
        for title, value in own.items():
            if value.estimate is None:
                absent.setdefault(value.reason, []).append(title)
        for reason, titles in absent.items():
            which = "" if len(titles) == len(own) else f": {', '.join(titles)}"
            groups.setdefault((which, reason), []).append(label)
    return [
        f"Without figures: {'all models' if 1 < len(figures) == len(names) else ', '.join(names)}{which} ({reason})."
        for (which, reason), names in groups.items()
    ]


def contrast_cell(contrast: Contrast | None) -> Cell:
    """The difference in AUROC with its interval and adjusted p-value; marked if significant."""
    if contrast is None:
        return Cell("reference")
    result = contrast.result
    if result is None or (reason := why_not_compared(contrast)):
        return Cell(NOTHING, title=contrast.reason or reason)
    mark = "*" if contrast.significant else ""
    p_value = "p < 0.001" if contrast.adjusted < 0.001 else f"p = {contrast.adjusted:.3f}"
    small = f"[{result.low:+.3f}, {result.high:+.3f}], {p_value}"
    title = f"DeLong, {counted(contrast.n_images, 'image')}; unadjusted p = {result.p_value:.3g}"
    return Cell(f"{result.difference:+.3f}{mark}", small, contrast.significant, title)


def why_not_compared(contrast: Contrast) -> str:
    """Why a comparison has no result, "" if it has."""
    if contrast.result is None:
        return contrast.reason
    return "too few patients of a class" if math.isnan(contrast.result.p_value) else ""


def patient_table(
    models: Sequence[Model], found: Mapping[str, Mapping[str, Mapping[str, Value]] | None]
) -> Table | None:
    """Ranking metrics on patient scores."""
    names = {"mean": "mean of images", "max": "maximum", "top_k": f"mean of top {TOP_K}"}
    rows = []
    reasons = set()
    for model in models:
        for how, values in (found[model.name] or {}).items():
            reasons |= {value.reason for value in values.values() if value.estimate is None}
            if any(value.estimate for value in values.values()):
                cells = [value_cell(values[metric.key]) for metric in RANKING]
                rows.append([Cell(model.label), Cell(names[how]), *cells])
    if not rows and not reasons:
        return None
    notes = [f"Not measured: {reason}." for reason in sorted(reasons)]
    if rows:
        notes.append("A patient is abnormal if one image is. Maximum and top-k mean grow with the number of images.")
    return Table("By patient", ["model", "patient score", *(metric.title for metric in RANKING)], rows, notes)


def group_table(title: str, models: Sequence[Model], rows: Sequence[GroupRow]) -> Table:
    """AUROC of each group, with sensitivity and specificity at the threshold."""

    def cell(values: Mapping[str, Value]) -> Cell:
        if not values:
            return Cell(NOTHING, title="not tested on this group")
        auroc, rates = value_cell(values["image_auroc"]), []
        for key, short in (("sensitivity", "sens."), ("specificity", "spec.")):
            if (estimate := values[key].estimate) is not None:
                rates.append(f"{short} {estimate.value:.2f}")
        return Cell(auroc.text, " ".join([auroc.small, *rates]).strip(), title=auroc.title)

    body = [
        [
            *(Cell(row.group or "(unknown)"), Cell(str(row.n_normal)), Cell(str(row.n_abnormal))),
            *(Cell(NOTHING if row.n_patients is None else str(row.n_patients)), *map(cell, row.cells)),
        ]
        for row in rows
    ]
    notes = ["AUROC, and sensitivity and specificity at the threshold. Of many small groups some differ by chance."]
    if any(not row.n_normal or not row.n_abnormal for row in rows):
        notes.append(f"{NOTHING} No AUROC: the group has images of one class only.")
    return Table(title, ["group", "normal", "abnormal", "patients", *(model.label for model in models)], body, notes)


def cost_table(dataset: Dataset) -> Table | None:
    """What the models cost: the mean over trainings, the largest memory."""
    rows = []
    for model in dataset.models:
        costs = [each.job.cost for each in model.trainings if each.job.cost]
        if costs:
            rows.append([Cell(model.label), *_cost_cells(costs)])
    if not rows:
        return None
    columns = [
        "model",
        "training",
        "steps",
        "epochs",
        "peak memory",
        "GPU memory",
        "torch",
        "OpenVINO",
        "parameters",
        "size",
    ]
    notes = [
        "Means over the seeds, memory the largest.",
        "Latency: milliseconds for one image with pre- and post-processing, median (95th percentile), batch 1.",
    ]
    # No GPU, no column of it.
    shown = [place for place in range(len(columns)) if any(row[place].text != NOTHING for row in rows)]
    return Table("Cost", [columns[place] for place in shown], [[row[place] for place in shown] for row in rows], notes)


def effect_tables(models: Sequence[Model], found: Mapping[str, Sequence[Effect]]) -> list[Table]:
    """What each fault adds to each model, and the figures without and with it."""
    measured = {
        (model.name, effect.fault): effect
        for model in models
        for effect in found[model.name]
        if effect.added.estimate is not None
    }
    faults = {effect.fault: effect for name in found for effect in found[name] if (name, effect.fault) in measured}
    if not faults:
        return []
    rows, details = [], []
    for model in models:
        own = {effect.fault: effect for effect in found[model.name]}
        rows.append([Cell(model.label), *(signed_cell(own[fault].added) for fault in faults)])
        details += [
            [
                *(Cell(model.label), Cell(effect.title), Cell(effect.measure)),
                *(value_cell(effect.clean), value_cell(effect.published)),
            ]
            for effect in own.values()
            if (model.name, effect.fault) in measured
        ]
    share = float(models[0].first.labels.mean())
    notes = [
        f"Calling every image of this test set abnormal has an F1 of {2 * share / (1 + share):.3f}.",
        "Bold: the 95% interval leaves out 0.",
        *without(
            [
                (model.label, {each.title: each.added for each in found[model.name] if each.fault in faults})
                for model in models
            ]
        ),
    ]
    columns = [f"{effect.title}: {effect.measure}" for effect in faults.values()]
    return [
        Table("Added by each fault", ["model", *columns], rows, notes),
        Table("Figures without and with each fault", ["model", "fault", "figure", "without", "with"], details),
    ]


def value_cell(value: Value) -> Cell:
    """A figure with its interval; hovering shows the trainings, or why there is none."""
    if value.estimate is None:
        return Cell(NOTHING, title=value.reason)
    title = ""
    if len(value.trainings) > 1:
        title = f"seeds: {', '.join(f'{each:.3f}' for each in value.trainings)}"
    return Cell(f"{value.estimate.value:.3f}", interval(value.estimate), title=title)


def signed_cell(value: Value) -> Cell:
    """A difference with its interval, marked if that leaves out 0."""
    if value.estimate is None:
        return Cell(NOTHING, title=value.reason)
    estimate = value.estimate
    small = "" if math.isnan(estimate.low) else f"[{estimate.low:+.3f}, {estimate.high:+.3f}]"
    strong = estimate.low > 0 or estimate.high < 0
    return Cell(f"{estimate.value:+.3f}", small, strong)


def interval(estimate: Estimate) -> str:
    """The interval, or that there is none."""
    return "no interval" if math.isnan(estimate.low) else f"[{estimate.low:.3f}, {estimate.high:.3f}]"


def seeds_cell(value: Value) -> Cell:
    """AUROC of each training."""
    return Cell(" ".join(f"{each:.3f}" for each in value.trainings) or NOTHING)


def _cost_cells(costs: list[Cost]) -> list[Cell]:
    def mean(name: str, show: Callable[[float], str]) -> Cell:
        values = [getattr(cost, name) for cost in costs if getattr(cost, name) is not None]
        pick = np.max if name.startswith("peak") else np.mean
        return Cell(show(float(pick(values))) if values else NOTHING)

    def latency(engine: str) -> Cell:
        times = [cost.latency[engine] for cost in costs if engine in cost.latency]
        if not times:
            return Cell(NOTHING)
        median, p95 = (float(np.mean([getattr(time, name) for time in times])) for name in ("median", "p95"))
        return Cell(
            f"{median:.1f} ms", f"({p95:.1f})", title=f"{counted(times[0].repeats, 'repeat')} on {times[0].device}"
        )

    return [
        mean("train_seconds", duration),
        mean("steps", "{:.0f}".format),
        mean("epochs", "{:.0f}".format),
        mean("peak_memory_mib", "{:.0f} MiB".format),
        mean("peak_gpu_mib", "{:.0f} MiB".format),
        latency("torch"),
        latency("openvino"),
        mean("parameters", lambda number: f"{number / 1e6:.2f} M"),
        mean("model_bytes", lambda number: f"{number / 2**20:.1f} MiB"),
    ]
