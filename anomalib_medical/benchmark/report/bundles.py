"""Which commands make bundles of the trainings, and what the best of them was chosen by."""

from __future__ import annotations

from pathlib import Path

from anomalib_medical.benchmark.report.standing import Standing
from anomalib_medical.benchmark.weights import bundle_command


def bundle_commands(standing: Standing, run: Path) -> list[tuple[str, str]]:
    """Label and command of every trained model's first seed whose weights are there, highest AUROC first.

    Args:
        standing: The models of a dataset.
        run: The run folder as the commands are to name it.
    """
    found = []
    for model in standing.order:
        command = bundle_command(model.first.folder, run, model.first.job)
        if command is not None:
            found.append((f"{model.label}, seed {model.first.info.seed}", command))
    return found


def best_bundle(standing: Standing, run: Path) -> str:
    """Which trained model was best, by what, and how to bundle it; "" where no weights are kept."""
    trained = [model for model in standing.order if not model.trivial]
    estimate = standing.auroc(trained[0]).estimate if trained else None
    if estimate is None or not bundle_commands(standing, run):
        return ""
    best = trained[0]
    over = "mean over its seeds, " if len(best.trainings) > 1 else ""
    words = (
        f"{standing.dataset.name}: of the trained models {best.label} has the highest AUROC on the test set, "
        f"{estimate.value:.3f} ({over}chosen on the images it is measured on, which favours it)."
    )
    command = bundle_command(best.first.folder, run, best.first.job)
    if command is None:
        return f"{words} Its weights are not kept."
    return (
        f"{words} To bundle its {'first ' if len(best.trainings) > 1 else ''}seed {best.first.info.seed}:\n  {command}"
    )
