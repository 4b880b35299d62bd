"""The model card and the README of a bundle."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from anomalib_medical.edge.manifest import Manifest, PostProcessing
from anomalib_medical.edge.scores import raw_threshold

from .measure import Measured
from .quantize import Quantized

_UNKNOWN_DATA = "Not said when the bundle was made (`--trained_on`)."


@dataclass(frozen=True)
class CardFacts:
    """What the model card tells beside the manifest."""

    checkpoint_sha256: str
    difference: float  # between the raw scores of torch and of the FP32 graph on the self-test image
    trained_on: str | None = None  # data and protocol, in the user's words
    teacher: str | None = None  # where its weights came from
    score: str | None = None  # what it is of the map
    support_count: int = 0  # of a few-shot model
    quantized: Quantized | None = None
    measured: Measured | None = None
    test_name: str = ""


def model_card(manifest: Manifest, facts: CardFacts) -> str:
    """Write the card, in Markdown."""
    measured, quantized, size = facts.measured, facts.quantized, manifest.model.image_size
    of_patients = measured is not None and measured.auroc.n_patients < measured.auroc.n_images
    image_size = "the image's own" if size is None else f"{size[0]}x{size[1]} (height x width)"
    if any(step.kind != "resize" for step in manifest.model.geometry):
        steps = [f"{step.kind.replace('_', ' ')} {'x'.join(map(str, step.sizes))}" for step in manifest.model.geometry]
        image_size = f"{', then '.join(map(str.strip, steps))}; nothing is marked in what this leaves out"
    precision_note = ""
    if manifest.precision == "fp16" or (quantized is not None and quantized.what == "weights"):
        precision_note = " weights, computed in FP32"
    elif quantized is not None:
        precision_note = " convolutions, the rest in FP32"
    return _render(
        "MODEL_CARD.md.jinja",
        manifest=manifest,
        **vars(facts) | {"trained_on": facts.trained_on or _UNKNOWN_DATA},
        versions=", ".join(f"{name} {number}" for name, number in sorted(manifest.versions.items())),
        image_size=image_size,
        precision_note=precision_note,
        window=manifest.reading.window or "of the files",
        threshold_text=_threshold_text(manifest.post_processing),
        series_text=_series_text(manifest.post_processing),
        units="patients" if of_patients else "images",
    )


def readme(manifest: Manifest) -> str:
    """Write the README for the engineer, in Markdown."""
    threshold = raw_threshold(manifest.post_processing.image, manifest.post_processing.normalization)
    return _render("README.md.jinja", manifest=manifest, threshold="none" if threshold is None else f"{threshold:.6g}")


def _render(name: str, **values: Any) -> str:  # noqa: ANN401 - what the templates take
    # Markdown, not HTML: nothing is escaped.
    environment = Environment(
        loader=PackageLoader("anomalib_medical.deploy"),
        undefined=StrictUndefined,
        autoescape=False,  # noqa: S701
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(**values)


def _threshold_text(processing: PostProcessing) -> str:
    threshold = raw_threshold(processing.image, processing.normalization)
    if threshold is None:
        return "None: the model gives raw scores and calls no image abnormal."
    if math.isinf(threshold):
        return f"Its sensitivity is set so that {'no' if threshold > 0 else 'every'} image is called abnormal."
    count = "number not recorded" if processing.held_out is None else str(processing.held_out)
    known = processing.image.threshold
    origin = "Set" if threshold == known else f"The sensitivity moved it from {known:.6g}, which was set"
    if processing.target_specificity is not None:
        share = 100 * processing.target_specificity
        how = f"{origin} so that {share:g}% of held-out normal images ({count}) score no more."
    elif processing.threshold_rule == "percentile":
        how = f"{origin} by a percentile of the validation images' scores ({count})."
    else:
        how = f"{origin} where F1 is best on validation images ({count})."
        if known == processing.image.maximum:
            # What anomalib takes without labelled anomalies.
            how += " It is their highest score, as where none of them is abnormal."
    return f"Images with a raw score above {threshold:.6g} are called abnormal. {how}"


def _series_text(processing: PostProcessing) -> str:
    """Say what a series' score is, and where the thresholds of series and patients are and come from."""
    top, share = processing.series_top, processing.target_specificity
    what = "its highest slice score" if top == 1 else f"the mean of its {top} highest slice scores"
    sentences = [f"A series (a volume) has {what}, a patient the highest score of the series."]
    for name, calibration, count in (
        ("Series", processing.series, processing.held_out_series),
        ("Patients", processing.patient, processing.held_out_patients),
    ):
        threshold = raw_threshold(calibration, processing.normalization)
        if threshold is None or share is None or count is None:
            sentences.append(f"{name} get no label: the held-out normal images were of no known ones.")
            continue
        needed = math.ceil(share / (1 - share) - 1e-9)
        few = (
            f", too few for a specificity of {100 * share:g}%, which {needed} are needed for" if count < needed else ""
        )
        how = f"from {count} held-out normal ones{few}"
        sentences.append(f"{name} with a raw score above {threshold:.6g} are called abnormal ({how}).")
    return " ".join(sentences)
