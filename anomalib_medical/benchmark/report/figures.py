"""The figures of a dataset: each alone on the page, all of a dataset in one file beside the Markdown."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from scipy.stats import gaussian_kde
from sklearn.metrics import precision_recall_curve, roc_curve

from anomalib_medical.benchmark.report.compare import Standing
from anomalib_medical.benchmark.report.results import Dataset, Model, Training
from anomalib_medical.io import agree, counted
from anomalib_medical.metrics import reliability_curve
from anomalib_medical.metrics.arrays import FloatArray, IntArray

# Told apart by most colour-blind readers; trivial scores are grey.
PALETTE = ("#3f8fd6", "#e0812f", "#35a372", "#d3557a", "#9273d8", "#1fa8b5", "#b08d2a", "#c9603a", "#7d9a2f", "#5b76c9")
GREYS = ("#8b95a3", "#a08f7d", "#7f9b92", "#a18aa0")
_NORMAL, _ABNORMAL, _TEXT = "#3f8fd6", "#e0812f", "#1c2430"
_WIDTH, _HEIGHT, _COLUMNS = 4.4, 3.4, 3  # inches: as wide as a phone shows
_ENGINES = {"openvino": "OpenVINO"}
_GRID = np.linspace(0, 1, 101)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "anomalib-medical",  # the same file for the same figure
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "grid.linewidth": 0.6,
    "grid.color": "#dde2e8",
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _TEXT),
    "legend.frameon": False,
}
Colours = Mapping[str, str]


@dataclass(frozen=True)
class Picture:
    """A figure: ``draw`` draws it on axes of its own, ``height`` inches high."""

    title: str
    caption: str
    draw: Callable[[Axes], None]
    height: float = _HEIGHT

    def address(self) -> str:
        """The figure as an address that holds it."""
        with mpl.rc_context(_STYLE):
            figure = Figure(figsize=(_WIDTH, self.height), layout="constrained")
            self.draw(figure.add_subplot())
        return f"data:image/svg+xml;base64,{base64.b64encode(_svg(figure)).decode('ascii')}"


def sheet(pictures: Sequence[Picture]) -> bytes:
    """All figures of a dataset as one SVG file."""
    rows = -(-len(pictures) // _COLUMNS)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH * _COLUMNS, (_HEIGHT + 0.3) * rows), layout="constrained")
        # Each in a part of its own: long names beside one must not make the others narrow.
        parts = figure.subfigures(rows, _COLUMNS, squeeze=False).ravel()
        for part, picture in zip(parts, pictures, strict=False):
            axes = part.add_subplot()
            picture.draw(axes)
            axes.set_title(picture.title, fontsize=10, loc="left")
    return _svg(figure)


def _svg(figure: Figure) -> bytes:
    stream = io.BytesIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(stream, format="svg", dpi=150, metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def colours(datasets: Sequence[Dataset]) -> dict[str, str]:
    """Give every model its colour, the same on all datasets."""
    models = {model.name: model.trivial for dataset in datasets for model in dataset.models}
    choices = {False: cycle(PALETTE), True: cycle(GREYS)}
    return {name: next(choices[trivial]) for name, trivial in models.items()}


def pictures_of(standing: Standing, colour: Colours) -> list[Picture]:
    """The figures that set the models of a dataset side by side."""
    dataset = standing.dataset
    mean = " Mean curve over the seeds." if _several(dataset.models) else ""
    found = [_forest(standing, colour)]
    if models := [model for model in dataset.models if len(set(model.first.labels)) == 2]:
        found += [
            Picture("ROC", f"Dotted: chance.{mean}", partial(_curves, models, colour, _roc)),
            Picture(
                "Precision and recall",
                f"Dotted: share of abnormal images.{mean}",
                partial(_curves, models, colour, _precision_recall),
            ),
        ]
    costs = [each.job.cost for model in dataset.models for each in model.trainings if each.job.cost]
    found += [
        _latency(standing, colour, engine) for engine in dict.fromkeys(key for cost in costs for key in cost.latency)
    ]
    found.append(_reliability(models, colour))
    return [picture for picture in found if picture is not None]


def _several(models: Sequence[Model]) -> bool:
    return any(len(model.trainings) > 1 for model in models)


def _forest(standing: Standing, colour: Colours) -> Picture | None:
    """AUROC of all models with its interval, beside chance and the strongest shortcut."""
    models = [model for model in reversed(standing.order) if standing.auroc(model).estimate is not None]
    if not models:
        return None
    shortcuts = standing.dataset.info.shortcuts[:1] if standing.dataset.info else []
    seeds = "Mean over the seeds (small: each)" if _several(models) else "Value"
    caption = f"{seeds} with its 95% interval. Dotted: chance."
    if shortcuts:
        caption += f" Dashed: the strongest shortcut, {shortcuts[0].name}."

    def draw(axes: Axes) -> None:
        axes.axvline(0.5, color=_TEXT, linewidth=0.8, linestyle=":")
        for shortcut in shortcuts:
            axes.axvline(shortcut.auroc, color=_TEXT, linewidth=1, linestyle="--")
        for row, model in enumerate(models):
            value = standing.auroc(model)
            if value.estimate is None:
                continue
            axes.plot([value.estimate.low, value.estimate.high], [row, row], color=colour[model.name], linewidth=2)
            axes.plot(value.estimate.value, row, "o", color=colour[model.name], markersize=6)
            if len(value.trainings) > 1:
                axes.plot(value.trainings, [row] * len(value.trainings), "|", color=_TEXT, markersize=7, alpha=0.7)
        axes.set(yticks=range(len(models)), yticklabels=[model.label for model in models], xlabel="AUROC")
        axes.set_ylim(-0.6, len(models) - 0.4)
        axes.grid(visible=False, axis="y")

    return Picture("AUROC", caption, draw, 0.9 + 0.24 * len(models))


def _curves(models: Sequence[Model], colour: Colours, curve: Callable[[Training], FloatArray], axes: Axes) -> None:
    """ROC or precision-recall curves, each the mean over a model's trainings."""
    chance = [0, 1] if curve is _roc else [models[0].first.labels.mean()] * 2
    axes.plot([0, 1], chance, color=_TEXT, linewidth=0.8, linestyle=":")
    for model in models:
        axes.plot(_GRID, np.mean([curve(each) for each in model.trainings], axis=0), **_line(model, colour))
    x_label, y_label = ("1 - specificity", "sensitivity") if curve is _roc else ("recall (sensitivity)", "precision")
    axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))


def _roc(training: Training) -> FloatArray:
    """Sensitivity on a grid of 1 - specificity."""
    false, true, _ = roc_curve(training.labels, training.scores)
    result: FloatArray = np.interp(_GRID, false, true)
    result[0] = true[false == 0].max()
    return result


def _precision_recall(training: Training) -> FloatArray:
    """Best precision at or beyond each recall of a grid, which has no saw teeth to average."""
    precision, recall, _ = precision_recall_curve(training.labels, training.scores)
    order = np.argsort(recall, kind="stable")
    best: FloatArray = np.maximum.accumulate(precision[order][::-1])[::-1]
    return best[np.clip(np.searchsorted(recall[order], _GRID), 0, len(best) - 1)]


def _latency(standing: Standing, colour: Colours, engine: str) -> Picture | None:
    """AUROC against latency and memory."""
    points = []
    for model in standing.dataset.models:
        costs = [each.job.cost for each in model.trainings if each.job.cost and engine in each.job.cost.latency]
        if costs and (estimate := standing.auroc(model).estimate) is not None:
            time = float(np.median([cost.latency[engine].median for cost in costs]))
            points.append((model, estimate, time, max(cost.peak_memory_mib or 0 for cost in costs)))
    if not points:
        return None

    def draw(axes: Axes) -> None:
        for model, estimate, time, memory in points:
            # The area is proportional to the memory.
            axes.scatter(time, estimate.value, s=memory / 6 or 12, color=colour[model.name], alpha=0.5, linewidths=0)
            axes.plot([time, time], [estimate.low, estimate.high], color=colour[model.name], linewidth=1)
        times = [time for _, _, time, _ in points]
        axes.set(xscale="log", xlim=(min(times) / 1.6, max(times) * 1.6))
        axes.set(xlabel="milliseconds per image, batch 1 (median)", ylabel="AUROC")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        _label_beside(axes, [(time, each.value, model.label, colour[model.name]) for model, each, time, _ in points])

    sizes = [memory for *_, memory in points]
    area = f"Circle area: peak memory of the job, {min(sizes):.0f} to {max(sizes):.0f} MiB."
    caption = f"{area} Line: 95% interval of the AUROC."
    return Picture(f"Quality and latency, {_ENGINES.get(engine, engine)}", caption, draw)


def _label_beside(axes: Axes, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the names of points (x, y, name, colour) right of the axes: beside close points they would overlap."""
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda point: point[1])
    # A line of text takes this share of the axes' height.
    places = spread([(y - low) / (high - low) for _, y, *_ in ordered], 0.065)
    for place, (x, y, label, colour) in zip(places, ordered, strict=True):
        arrow = {"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 0}
        axes.annotate(
            label, (x, y), (1.04, place), textcoords="axes fraction", va="center", fontsize=8, arrowprops=arrow
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


def _reliability(models: Sequence[Model], colour: Colours) -> Picture | None:
    """Share of abnormal images over normalised score; None without normalised scores."""
    lines = []
    for model in models:
        try:
            lines.append((model, reliability_curve(model.first.normalised, model.first.labels)))
        except ValueError:
            continue

    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=_TEXT, linewidth=0.8, linestyle=":")
        for model, bins in lines:
            points = [each.mean_score for each in bins], [each.abnormal_share for each in bins]
            axes.plot(*points, marker="o", markersize=3, **_line(model, colour))
        axes.set(xlabel="normalised score (0.5 is the threshold)", ylabel="share of abnormal images")

    caption = "First seed, ten bins of equal width. Dotted: a score that is a probability."
    return Picture("Calibration", caption, draw) if lines else None


def raincloud(model: Model) -> Picture:
    """The distribution of a training's raw scores: density, quartiles, images, threshold."""
    training = model.first
    scores, labels = training.scores, training.labels
    captions = []
    try:
        threshold: float | None = training.threshold
    except ValueError as error:
        threshold = None
        captions.append(f"There is {error}.")
    low, high = _range(scores, labels, float(scores[0]) if threshold is None else threshold)
    captions += [
        f"There are no {kind} images." for label, kind in enumerate(("normal", "abnormal")) if label not in labels
    ]
    if outside := int(((scores < low) | (scores > high)).sum()):
        lie = f"{outside} of {counted(scores.size, 'image')} {agree(outside, 'lies', 'lie')} outside"
        captions.append(f"{lie}, from {scores.min():.3g} to {scores.max():.3g}.")

    def draw(axes: Axes) -> None:
        rng = np.random.default_rng(0)
        if threshold is not None:
            axes.axvline(threshold, color=_TEXT, linestyle="--", linewidth=1)
        for row, colour in enumerate((_NORMAL, _ABNORMAL)):
            if (own := scores[labels == row]).size:
                _cloud(axes, own, row, colour, np.linspace(low, high, 200))
                # As a bitmap: a thousand circles weigh a hundred times as much.
                heights = row - 0.2 + rng.uniform(-0.1, 0.1, own.size)
                axes.scatter(own, heights, s=3, color=colour, alpha=0.5, linewidths=0, rasterized=True)
        margin = 0.03 * (high - low)
        axes.set(yticks=[0, 1], yticklabels=["normal", "abnormal"], ylim=(-0.4, 1.85), xlabel="raw score")
        axes.set_xlim(low - margin, high + margin)
        axes.grid(visible=False, axis="y")

    return Picture(f"{model.label}, seed {training.info.seed}", " ".join(captions), draw, 2.3)


def _cloud(axes: Axes, own: FloatArray, row: int, colour: str, span: FloatArray) -> None:
    """Density, 5% to 95%, quartiles and median of a class."""
    if len(own) > 1 and np.ptp(own):
        density = gaussian_kde(own)(span)
        top = row + 0.12 + 0.6 * density / density.max()
        axes.fill_between(span, row + 0.12, top, color=colour, alpha=0.45, linewidth=0)
    quartiles = np.quantile(own, [0.05, 0.25, 0.5, 0.75, 0.95])
    axes.plot(quartiles[[0, 4]], [row, row], color=colour, linewidth=1)
    axes.plot(quartiles[[1, 3]], [row, row], color=colour, linewidth=4, solid_capstyle="butt")
    axes.plot(quartiles[2], row, "o", color=_TEXT, markersize=3)


def _range(scores: FloatArray, labels: IntArray, threshold: float) -> tuple[float, float]:
    """The range of the scores, less what lies beyond Tukey's outer fences of both classes: one far image hides all."""
    fences = [threshold]
    for label in np.unique(labels):
        own = scores[labels == label]
        first, third = np.quantile(own, [0.25, 0.75])
        near = own[np.abs(own - (first + third) / 2) <= 3.5 * (third - first)]
        fences += [near.min(), near.max()]
    low, high = float(min(fences)), float(max(fences))
    return (low, high) if high > low else (low - 1, high + 1)


def _line(model: Model, colour: Colours) -> dict[str, Any]:
    width, style = (1.2, "--") if model.trivial else (1.8, "-")
    return {"color": colour[model.name], "linewidth": width, "linestyle": style}
