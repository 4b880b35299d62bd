"""Figures that set the models of a dataset side by side: AUROC with intervals, and quality against latency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from anomalib_medical.benchmark.report.figures import Picture
from anomalib_medical.benchmark.report.standing import Standing
from anomalib_medical.benchmark.report.svg import TEXT, new_axes, to_svg

_ENGINES = {"openvino": "OpenVINO"}
# Share of the axes' height that a line of text takes.
_LINE_HEIGHT = 0.065


def forest_picture(standing: Standing, colour: Mapping[str, str], prefix: str) -> Picture | None:
    """Draw the AUROC of all models with its interval, beside chance and the strongest shortcut."""
    models = [model for model in reversed(standing.order) if standing.auroc(model).estimate is not None]
    if not models:
        return None
    info = standing.dataset.info
    figure, axes = new_axes(0.9 + 0.24 * len(models))
    axes.axvline(0.5, color=TEXT, linewidth=0.8, linestyle=":")
    several = any(len(model.trainings) > 1 for model in models)
    caption = f"{'Mean over the seeds (small: each)' if several else 'Value'} with its 95% interval. Dotted: chance."
    if info and info.shortcuts:
        axes.axvline(info.shortcuts[0].auroc, color=TEXT, linewidth=1, linestyle="--")
        caption += f" Dashed: the strongest shortcut, {info.shortcuts[0].name}."
    for row, model in enumerate(models):
        value = standing.auroc(model)
        if value.estimate is None:
            continue
        axes.plot([value.estimate.low, value.estimate.high], [row, row], color=colour[model.name], linewidth=2)
        axes.plot(value.estimate.value, row, "o", color=colour[model.name], markersize=6)
        if len(value.trainings) > 1:
            axes.plot(value.trainings, [row] * len(value.trainings), "|", color=TEXT, markersize=7, alpha=0.7)
    axes.set(yticks=range(len(models)), yticklabels=[model.label for model in models], xlabel="AUROC")
    axes.set_ylim(-0.6, len(models) - 0.4)
    axes.grid(visible=False, axis="y")
    name = standing.dataset.name
    return Picture("AUROC", caption, to_svg(figure, f"{prefix}-auroc", f"AUROC of the models on {name}"), "auroc")


def latency_pictures(standing: Standing, colour: Mapping[str, str], prefix: str) -> list[Picture]:
    """Draw AUROC against latency, a picture for each engine that was timed."""
    engines = dict.fromkeys(
        engine
        for model in standing.dataset.models
        for each in model.trainings
        if each.job.cost
        for engine in each.job.cost.latency
    )
    found = [_latency(standing, colour, engine, f"{prefix}-latency{number}") for number, engine in enumerate(engines)]
    return [picture for picture in found if picture is not None]


def _latency(standing: Standing, colour: Mapping[str, str], engine: str, name: str) -> Picture | None:
    figure, axes = new_axes()
    points: list[tuple[float, float, str, str]] = []
    memories = []
    for model in standing.dataset.models:
        costs = [each.job.cost for each in model.trainings if each.job.cost and engine in each.job.cost.latency]
        estimate = standing.auroc(model).estimate
        if not costs or estimate is None:
            continue
        time = float(np.median([cost.latency[engine].median for cost in costs]))
        memory = max((cost.peak_memory_mib or 0 for cost in costs), default=0)
        # The area is proportional to the memory.
        axes.scatter(time, estimate.value, s=memory / 6 or 12, color=colour[model.name], alpha=0.5, linewidths=0)
        axes.plot([time, time], [estimate.low, estimate.high], color=colour[model.name], linewidth=1)
        points.append((time, estimate.value, model.label, colour[model.name]))
        memories.append(memory)
    if not points:
        return None
    times = [time for time, *_ in points]
    axes.set_xscale("log")
    axes.set_xlim(min(times) / 1.6, max(times) * 1.6)
    axes.set(xlabel="milliseconds per image, batch 1 (median)", ylabel="AUROC")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    _label_beside(axes, points)
    sizes = f"{min(memories):.0f} to {max(memories):.0f} MiB"
    caption = f"Circle area: peak memory of the job, {sizes}. Line: 95% interval of the AUROC."
    title = f"Quality and latency, {_ENGINES.get(engine, engine)}"
    return Picture(title, caption, to_svg(figure, name, f"{title}, {standing.dataset.name}"), f"latency-{engine}")


def _label_beside(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the names of points (x, y, name, colour) right of the axes: beside close points they would overlap."""
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point[1])
    places = spread([(y - low) / (high - low) for _, y, *_ in ordered], _LINE_HEIGHT)
    for place, (x, y, label, colour) in zip(places, ordered, strict=True):
        axes.annotate(
            label,
            (x, y),
            xytext=(1.04, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=TEXT,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0},
        )


def spread(places: Sequence[float], gap: float) -> list[float]:
    """Move ascending places in [0, 1] apart by at least ``gap``, little and in their order."""
    found: list[float] = []
    for place in places:
        found.append(max(place, found[-1] + gap) if found else place)
    ceiling = 1.0
    for number in reversed(range(len(found))):
        found[number] = min(found[number], ceiling)
        ceiling = found[number] - gap
    return found
