"""The figures of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import gaussian_kde
from sklearn.metrics import precision_recall_curve, roc_curve

from anomalib_medical.benchmark.report.results import Dataset, Model, Training
from anomalib_medical.benchmark.report.svg import TEXT, new_axes, to_svg
from anomalib_medical.io import agree, counted
from anomalib_medical.metrics import reliability_curve
from anomalib_medical.metrics.arrays import FloatArray, IntArray

# Told apart in light and dark and by most colour-blind readers; trivial scores are grey.
PALETTE = ("#3f8fd6", "#e0812f", "#35a372", "#d3557a", "#9273d8", "#1fa8b5", "#b08d2a", "#c9603a", "#7d9a2f", "#5b76c9")
GREYS = ("#8b95a3", "#a08f7d", "#7f9b92", "#a18aa0")
NORMAL, ABNORMAL = "#3f8fd6", "#e0812f"
_GRID = np.linspace(0, 1, 201)


@dataclass(frozen=True)
class Picture:
    """A figure on the page."""

    title: str
    caption: str
    svg: str
    kind: str


def colours(datasets: list[Dataset]) -> dict[str, str]:
    """Give every model its colour, the same on all datasets."""
    kinds = {model.name: model.trivial for dataset in datasets for model in dataset.models}
    trained = [name for name, kind in kinds.items() if not kind]
    trivial = [name for name, kind in kinds.items() if kind]
    chosen = {name: PALETTE[place % len(PALETTE)] for place, name in enumerate(trained)}
    return chosen | {name: GREYS[place % len(GREYS)] for place, name in enumerate(trivial)}


def curve_pictures(dataset: Dataset, colour: Mapping[str, str], prefix: str) -> list[Picture]:
    """Draw ROC and precision-recall curves, each the mean over a model's trainings; none of tests of one class."""
    models = [model for model in dataset.models if len(set(model.first.labels)) == 2]
    if not models:
        return []
    several = any(len(model.trainings) > 1 for model in models)
    mean = " Mean curve over the seeds." if several else ""
    labels = models[0].first.labels
    pictures = []
    for title, x_label, y_label, curve, caption in (
        ("ROC", "1 - specificity", "sensitivity", _roc, f"Dotted: chance.{mean}"),
        (
            "Precision and recall",
            "recall (sensitivity)",
            "precision",
            _precision_recall,
            f"Dotted: share of abnormal images.{mean}",
        ),
    ):
        figure, axes = new_axes()
        chance = [0, 1] if curve is _roc else [labels.mean()] * 2
        axes.plot([0, 1], chance, color=TEXT, linewidth=0.8, linestyle=":")
        for model in models:
            axes.plot(_GRID, np.mean([curve(each) for each in model.trainings], axis=0), **_line(model, colour))
        axes.set(xlabel=x_label, ylabel=y_label, xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        kind = title.split()[0].lower()
        svg = to_svg(figure, f"{prefix}-{kind}", f"{title} curves of {dataset.name}")
        pictures.append(Picture(title, caption, svg, kind))
    return pictures


def raincloud(model: Model, prefix: str) -> Picture:
    """Draw the distribution of a training's raw scores: density, quartiles, images, threshold."""
    training = model.first
    figure, axes = new_axes(2.3)
    rng = np.random.default_rng(0)
    scores, labels = training.scores, training.labels
    captions = []
    try:
        threshold = training.threshold
        axes.axvline(threshold, color=TEXT, linestyle="--", linewidth=1)
    except ValueError as error:
        threshold = float(scores[0])
        captions.append(f"There is {error}.")
    low, high = _range(scores, labels, threshold)
    span = np.linspace(low, high, 200)
    for row, (label, colour) in enumerate(((0, NORMAL), (1, ABNORMAL))):
        own = scores[labels == label]
        if not own.size:
            captions.append(f"There are no {'abnormal' if label else 'normal'} images.")
            continue
        if len(own) > 1 and np.ptp(own):
            density = gaussian_kde(own)(span)
            axes.fill_between(
                span, row + 0.12, row + 0.12 + 0.6 * density / density.max(), color=colour, alpha=0.45, linewidth=0
            )
        quartiles = np.quantile(own, [0.05, 0.25, 0.5, 0.75, 0.95])
        axes.plot(quartiles[[0, 4]], [row, row], color=colour, linewidth=1)
        axes.plot(quartiles[[1, 3]], [row, row], color=colour, linewidth=4, solid_capstyle="butt")
        axes.plot(quartiles[2], row, "o", color=TEXT, markersize=3)
        # As a bitmap: a thousand circles weigh a hundred times as much.
        heights = row - 0.2 + rng.uniform(-0.1, 0.1, own.size)
        axes.scatter(own, heights, s=3, color=colour, alpha=0.5, linewidths=0, rasterized=True)
    if outside := int(((scores < low) | (scores > high)).sum()):
        lie = f"{outside} of {counted(scores.size, 'image')} {agree(outside, 'lies', 'lie')} outside"
        captions.append(f"{lie}, from {scores.min():.3g} to {scores.max():.3g}.")
    margin = 0.03 * (high - low)
    axes.set(yticks=[0, 1], yticklabels=["normal", "abnormal"], ylim=(-0.4, 1.85), xlabel="raw score")
    axes.set_xlim(low - margin, high + margin)
    axes.grid(visible=False, axis="y")
    title = f"{model.label}, seed {training.info.seed}"
    svg = to_svg(figure, f"{prefix}-rain", f"Scores of {title}")
    return Picture(title, " ".join(captions), svg, "scores")


def _range(scores: FloatArray, labels: IntArray, threshold: float) -> tuple[float, float]:
    """The range of the scores, less what lies beyond Tukey's outer fences of both classes: one far image hides all."""
    fences = []
    for label in (0, 1):
        own = scores[labels == label]
        if own.size:
            first, third = np.quantile(own, [0.25, 0.75])
            reach = 3 * (third - first)
            near = own[(own >= first - reach) & (own <= third + reach)]
            fences += [near.min(), near.max()]
    low, high = min(*fences, threshold), max(*fences, threshold)
    return (float(low), float(high)) if high > low else (float(low) - 1, float(high) + 1)


def reliability_picture(dataset: Dataset, colour: Mapping[str, str], prefix: str) -> Picture | None:
    """Draw share of abnormal images over normalised score; None without normalised scores."""
    figure, axes = new_axes()
    axes.plot([0, 1], [0, 1], color=TEXT, linewidth=0.8, linestyle=":")
    drawn = False
    for model in dataset.models:
        if len(set(model.first.labels)) < 2:
            continue
        try:
            bins = reliability_curve(model.first.normalised, model.first.labels)
        except ValueError:
            continue
        drawn = True
        points = [each.mean_score for each in bins], [each.abnormal_share for each in bins]
        axes.plot(*points, marker="o", markersize=3, **_line(model, colour))
    if not drawn:
        return None
    axes.set(xlabel="normalised score (0.5 is the threshold)", ylabel="share of abnormal images")
    caption = "First seed, ten bins of equal width. Dotted: a score that is a probability."
    svg = to_svg(figure, f"{prefix}-reliability", f"Reliability of normalised scores, {dataset.name}")
    return Picture("Calibration", caption, svg, "calibration")


def _line(model: Model, colour: Mapping[str, str]) -> dict[str, Any]:
    trivial = model.trivial
    return {"color": colour[model.name], "linewidth": 1.2 if trivial else 1.8, "linestyle": "--" if trivial else "-"}


def _roc(training: Training) -> FloatArray:
    """Sensitivity on a grid of 1 - specificity."""
    false, true, _ = roc_curve(training.labels, training.scores)
    return _on_grid(false, true)


def _precision_recall(training: Training) -> FloatArray:
    """Best precision at or beyond each recall of a grid, which has no saw teeth to average."""
    precision, recall, _ = precision_recall_curve(training.labels, training.scores)
    order = np.argsort(recall, kind="stable")
    best = np.maximum.accumulate(precision[order][::-1])[::-1]
    place = np.clip(np.searchsorted(recall[order], _GRID), 0, len(best) - 1)
    result: FloatArray = best[place]
    return result


def _on_grid(x: FloatArray, y: FloatArray) -> FloatArray:
    result: FloatArray = np.interp(_GRID, x, y)
    result[0] = y[x == 0].max()
    return result
