"""The model card and the README of a bundle."""

from __future__ import annotations

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
    """What the model card tells beside the manifest.

    Attributes:
        checkpoint_sha256: Of the checkpoint.
        difference: Between the raw scores of torch and of the FP32 graph on the self-test image.
        trained_on: Data and protocol, in the user's words.
        teacher: Where the teacher's weights came from.
        support_count: Number of support images of a few-shot model.
        quantized: How INT8 agrees with FP32.
        measured: Results on a test set.
        test_name: Its name.
    """

    checkpoint_sha256: str
    difference: float
    trained_on: str | None = None
    teacher: str | None = None
    support_count: int = 0
    quantized: Quantized | None = None
    measured: Measured | None = None
    test_name: str = ""


def model_card(manifest: Manifest, facts: CardFacts) -> str:
    """Write the card, in Markdown."""
    measured = facts.measured
    of_patients = measured is not None and measured.auroc.n_patients < measured.auroc.n_images
    return _render(
        "MODEL_CARD.md.jinja",
        manifest=manifest,
        **vars(facts) | {"trained_on": facts.trained_on or _UNKNOWN_DATA},
        versions=", ".join(f"{name} {number}" for name, number in sorted(manifest.versions.items())),
        image_size=_size_text(manifest),
        precision_note=_precision_note(manifest.precision, facts.quantized),
        window=manifest.reading.window or "of the files",
        threshold_text=_threshold_text(manifest),
        units="patients" if of_patients else "images",
    )


def _size_text(manifest: Manifest) -> str:
    """Say what the graph does to an image's size, and what of the image it does not see."""
    size, steps = manifest.model.image_size, manifest.model.geometry
    if all(step.kind == "resize" for step in steps):
        return "the image's own" if size is None else f"{size[0]}x{size[1]} (height x width)"
    told = [f"{step.kind.replace('_', ' ')} {'x'.join(map(str, step.sizes))}".strip() for step in steps]
    return f"{', then '.join(told)}; nothing is marked in what this leaves out"


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


def _precision_note(precision: str, quantized: Quantized | None) -> str:
    if precision == "fp16" or (quantized is not None and quantized.what == "weights"):
        return " weights, computed in FP32"
    return " convolutions, the rest in FP32" if quantized is not None else ""


def _threshold_text(manifest: Manifest) -> str:
    threshold = raw_threshold(manifest.post_processing.image, manifest.post_processing.normalization)
    if threshold is None:
        return "None: the model gives raw scores and calls no image abnormal."
    return f"Images with a raw score above {threshold:.6g} are called abnormal. {_how_set(manifest.post_processing)}"


def _how_set(processing: PostProcessing) -> str:
    count = "number not recorded" if processing.held_out is None else str(processing.held_out)
    if processing.target_specificity is not None:
        share = 100 * processing.target_specificity
        return f"Set so that {share:g}% of held-out normal images ({count}) score no more."
    if processing.threshold_rule == "percentile":
        return f"Set by a percentile of the validation images' scores ({count})."
    told = f"Set where F1 is best on validation images ({count})."
    if processing.image.threshold == processing.image.maximum:
        # What anomalib takes without labelled anomalies.
        told += " It is their highest score, as where none of them is abnormal."
    return told
