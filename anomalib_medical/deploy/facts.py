"""What a bundle has to know of a trained model beside its graph."""

from anomalib.models.components import AnomalibModule
from anomalib.models.image.super_add import SuperADDPostProcessor
from anomalib.post_processing import PostProcessor

from anomalib_medical.edge.manifest import Calibration, Normalization, PostProcessing, ThresholdRule
from anomalib_medical.io import finite_or_none
from anomalib_medical.post_processing import MedicalPostProcessor


def post_processing_of(model: AnomalibModule) -> PostProcessing:
    """Thresholds, score ranges and the kind of normalisation of a model's post-processor."""
    post_processor = model.post_processor
    if not isinstance(post_processor, PostProcessor):
        return PostProcessing()
    normalization: Normalization = "linear"
    target_specificity = held_out = None
    rule: ThresholdRule = "percentile" if isinstance(post_processor, SuperADDPostProcessor) else "f1"
    if isinstance(post_processor, MedicalPostProcessor):
        if post_processor.awaits_calibration:
            return PostProcessing()
        if post_processor.threshold == "specificity":
            normalization, target_specificity = "softsign", post_processor.target_specificity
        rule, held_out = post_processor.threshold, post_processor.held_out or None
    thresholds = bool(post_processor.enable_thresholding)
    image = Calibration(
        threshold=finite_or_none(float(post_processor.image_threshold)),
        minimum=finite_or_none(float(post_processor.image_min)),
        maximum=finite_or_none(float(post_processor.image_max)),
        limit=finite_or_none(float(post_processor.normalized_image_threshold)) if thresholds else None,
    )
    pixel = Calibration(
        threshold=finite_or_none(float(post_processor.pixel_threshold)),
        minimum=finite_or_none(float(post_processor.pixel_min)),
        maximum=finite_or_none(float(post_processor.pixel_max)),
        limit=finite_or_none(float(post_processor.normalized_pixel_threshold)) if thresholds else None,
    )
    return PostProcessing(
        normalization=normalization if post_processor.enable_normalization else "none",
        image=image,
        pixel=pixel,
        target_specificity=target_specificity,
        threshold_rule=rule if thresholds else None,
        held_out=held_out if thresholds else None,
    )
