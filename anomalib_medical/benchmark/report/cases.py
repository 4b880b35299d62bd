"""Pictures of the highest and the lowest scores, and what the threshold makes of them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

from anomalib_medical.benchmark.records import GalleryEntry
from anomalib_medical.benchmark.report.results import Dataset, Model, Training

_WIDTH = 420
# Mistakes first.
_OUTCOMES = ("false positive", "false negative", "true positive", "true negative", "")


@dataclass(frozen=True)
class GalleryPicture:
    """A picture of a case.

    Attributes:
        outcome: ``true positive``, ...; "" without a threshold.
        place: Such as ``highest-scoring normal``.
        score: Its raw score.
        data: The picture as the text of a data address.
    """

    outcome: str
    place: str
    score: str
    data: str


@dataclass(frozen=True)
class Gallery:
    """The cases of a model, the mistakes first."""

    title: str
    pictures: list[GalleryPicture]


def galleries(dataset: Dataset) -> list[Gallery]:
    """Take the pictures of each model's first seed."""
    return [found for model in dataset.models if (found := _gallery(model, dataset)) is not None]


def why_none(dataset: Dataset, wanted: object) -> str:
    """Why there are no pictures; ``wanted`` is the plan's ``gallery``."""
    if wanted == 0:
        return "No pictures of cases: the plan asked for none (gallery: 0)."
    if all(not model.first.has_maps for model in dataset.models):
        return "No pictures of cases: no model here makes anomaly maps."
    return "No pictures of cases: this copy of the run folder holds none, as they show patients."


def _gallery(model: Model, dataset: Dataset) -> Gallery | None:
    training = model.first
    cases = [picture for entry in training.job.gallery if (picture := _case(training, entry)) is not None]
    pictures = sorted(cases, key=lambda case: _OUTCOMES.index(case.outcome))
    return Gallery(f"{model.label} on {dataset.name}, seed {training.info.seed}", pictures) if pictures else None


def _case(training: Training, entry: GalleryEntry) -> GalleryPicture | None:
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
    return GalleryPicture(_outcome(training, entry), place, f"{entry.raw_score:.4g}", data)


def _outcome(training: Training, entry: GalleryEntry) -> str:
    """What the threshold makes of an image; a score equal to it is normal, as everywhere."""
    try:
        called = entry.raw_score > training.threshold
    except ValueError:
        return ""
    return f"{'true' if called == bool(entry.label) else 'false'} {'positive' if called else 'negative'}"
