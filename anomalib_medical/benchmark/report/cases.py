"""What the report has of a run folder beside figures: pictures of cases, and commands that bundle weights."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from anomalib_medical.benchmark.records import GalleryEntry
from anomalib_medical.benchmark.report.compare import Standing
from anomalib_medical.benchmark.report.results import Dataset, Training
from anomalib_medical.benchmark.weights import bundle_command

_WIDTH = 420
# Mistakes first.
_OUTCOMES = ("false positive", "false negative", "true positive", "true negative", "")


@dataclass(frozen=True)
class Case:
    """A picture of a case."""

    outcome: str  # `true positive`, ...; "" without a threshold
    place: str  # such as `highest-scoring normal`
    score: str  # its raw score
    data: str  # the picture as an address that holds it


def galleries(dataset: Dataset) -> list[tuple[str, list[Case]]]:
    """Title and cases of each model's first seed, the mistakes first."""
    found = []
    for model in dataset.models:
        training = model.first
        cases = [case for entry in training.job.gallery if (case := _case(training, entry)) is not None]
        cases.sort(key=lambda case: _OUTCOMES.index(case.outcome))
        if cases:
            found.append((f"{model.label} on {dataset.name}, seed {training.info.seed}", cases))
    return found


def why_none(dataset: Dataset, wanted: object) -> str:
    """Why there are no pictures; ``wanted`` is the plan's ``gallery``."""
    if wanted == 0:
        return "No pictures of cases: the plan asked for none (gallery: 0)."
    if not any(model.first.has_maps for model in dataset.models):
        return "No pictures of cases: no model here makes anomaly maps."
    return "No pictures of cases: this copy of the run folder holds none, as they show patients."


def _case(training: Training, entry: GalleryEntry) -> Case | None:
    file = training.folder.path / "gallery" / entry.file
    if not file.is_file():
        return None
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_WIDTH, _WIDTH))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    data = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    place = f"{entry.kind}-scoring {'abnormal' if entry.label else 'normal'}"
    return Case(_outcome(training, entry), place, f"{entry.raw_score:.4g}", data)


def _outcome(training: Training, entry: GalleryEntry) -> str:
    """What the threshold makes of an image; a score equal to it is normal, as everywhere."""
    try:
        called = entry.raw_score > training.threshold
    except ValueError:
        return ""
    return f"{'true' if called == bool(entry.label) else 'false'} {'positive' if called else 'negative'}"


def bundle_commands(standing: Standing, run: Path) -> list[tuple[str, str]]:
    """Label and command of every trained model's first seed whose weights are there, highest AUROC first.

    Args:
        standing: The models of a dataset.
        run: The run folder as the commands are to name it.
    """
    firsts = [(model.label, model.first) for model in standing.order]
    commands = [
        (f"{label}, seed {first.info.seed}", bundle_command(first.folder, run, first.job)) for label, first in firsts
    ]
    return [(label, command) for label, command in commands if command is not None]


def best_bundle(standing: Standing, run: Path) -> str:
    """Which trained model was best, by what, and how to bundle it; "" where no weights are kept."""
    best = next((model for model in standing.order if not model.trivial), None)
    estimate = standing.auroc(best).estimate if best else None
    if best is None or estimate is None or not bundle_commands(standing, run):
        return ""
    several = len(best.trainings) > 1
    words = (
        f"{standing.dataset.name}: of the trained models {best.label} has the highest AUROC on the test set, "
        f"{estimate.value:.3f} ({'mean over its seeds, ' if several else ''}chosen on the images it is measured on, "
        "which favours it)."
    )
    command = bundle_command(best.first.folder, run, best.first.job)
    if command is None:
        return f"{words} Its weights are not kept."
    return f"{words} To bundle its {'first ' if several else ''}seed {best.first.info.seed}:\n  {command}"
