"""What a post-processor, ours or anomalib's, makes of raw scores, as the device is told it."""

import math
from typing import Any, Literal, TypeGuard

from anomalib.models.image.super_add import SuperADDPostProcessor
from anomalib.post_processing import PostProcessor
from torch import nn

from anomalib_medical.edge import scores
from anomalib_medical.edge.manifest import Calibration, Normalization, PostProcessing, ThresholdRule
from anomalib_medical.io import finite_or_none

from .medical_post_processor import MedicalPostProcessor


def device_facts(post_processor: nn.Module | None) -> PostProcessing:
    """Thresholds, score ranges and the kind of normalisation."""
    if not _judges(post_processor):
        return PostProcessing()
    target_specificity = held_out = None
    rule: ThresholdRule = "percentile" if isinstance(post_processor, SuperADDPostProcessor) else "f1"
    if isinstance(post_processor, MedicalPostProcessor):
        rule, held_out = post_processor.threshold, post_processor.held_out or None
        target_specificity = post_processor.target_specificity if rule == "specificity" else None
    thresholds = bool(post_processor.enable_thresholding)
    return PostProcessing(
        normalization=_normalization(post_processor),
        image=_calibration(post_processor, "image"),
        pixel=_calibration(post_processor, "pixel"),
        target_specificity=target_specificity,
        threshold_rule=rule if thresholds else None,
        held_out=held_out if thresholds else None,
        **(_groups(post_processor) if isinstance(post_processor, MedicalPostProcessor) and thresholds else {}),
    )


def _groups(post_processor: MedicalPostProcessor) -> dict[str, Any]:
    """What is known of series and patients; their scores are normalised, and judged, as those of images."""
    limit = _calibration(post_processor, "image").limit
    facts: dict[str, Any] = {"series_top": post_processor.series_top}
    for kind, counts in (("series", "held_out_series"), ("patient", "held_out_patients")):
        if found := post_processor.groups.get(kind):
            threshold = found["threshold"]
            facts[kind] = Calibration(
                threshold,
                found["minimum"],
                found["maximum"],
                limit if post_processor.enable_normalization else threshold,
            )
            facts[counts] = int(found["held_out"])
    return facts


def raw_threshold(post_processor: nn.Module | None, of: Literal["image", "pixel"] = "image") -> float:
    """The raw score (map value) above which an image (a pixel) is called abnormal, nan if there is no threshold.

    anomalib keeps the threshold in raw scores, but compares the normalised score with `1 - image_sensitivity`.
    """
    if not _judges(post_processor):
        return math.nan
    found = scores.raw_threshold(_calibration(post_processor, of), _normalization(post_processor))
    return math.nan if found is None else found


def _judges(post_processor: nn.Module | None) -> TypeGuard[PostProcessor]:
    return isinstance(post_processor, PostProcessor) and not getattr(post_processor, "awaits_calibration", False)


def _normalization(post_processor: PostProcessor) -> Normalization:
    if not post_processor.enable_normalization:
        return "none"
    ours = isinstance(post_processor, MedicalPostProcessor) and post_processor.threshold == "specificity"
    return "softsign" if ours else "linear"


def _calibration(post_processor: PostProcessor, of: Literal["image", "pixel"]) -> Calibration:
    threshold, low, high, limit = (
        finite_or_none(float(getattr(post_processor, name.format(of))))
        for name in ("{}_threshold", "{}_min", "{}_max", "normalized_{}_threshold")
    )
    return Calibration(threshold, low, high, limit if post_processor.enable_thresholding else None)
