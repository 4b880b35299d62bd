"""The image of the self-test, and whether a bundle says of images what the engine says of them."""

from pathlib import Path

import numpy as np
import openvino
import torch
from anomalib.data import ImageBatch
from anomalib.models.components import AnomalibModule
from anomalib.post_processing import PostProcessor
from anomalib.pre_processing import PreProcessor
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from anomalib_medical.edge.manifest import Calibration, PostProcessing
from anomalib_medical.edge.predictor import GraphScorer
from anomalib_medical.edge.scores import above, normalize
from anomalib_medical.errors import MedicalError

NAME = "self_test/noise.png"
# Share of the raw score, or of 1, by which a graph may differ from the engine.
TOLERANCE = 1e-4
# By which normalised values of the same raw ones may differ, in single precision.
_ROUNDING = 1e-5
# Neither square nor the size of any model: resizing is tested too.
_SIZE = (180, 264)


def write_self_test_image(folder: Path) -> Path:
    """Write smooth noise into a bundle, the same whenever it is called: no patient's image leaves the hospital."""
    noise = gaussian_filter(np.random.default_rng(0).standard_normal(_SIZE), sigma=6)
    pixels = np.clip(128 + 48 * noise / noise.std(), 0, 255).astype(np.uint8)
    path = folder / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def difference_to_engine(
    model: AnomalibModule, graph: openvino.Model, post_processing: PostProcessing, image: torch.Tensor
) -> float:
    """Refuse what does not score or judge as the engine does; returns the difference of an image's raw scores."""
    with torch.no_grad():
        batch = ImageBatch(image=image[None].clone())
        if isinstance(model.pre_processor, PreProcessor):
            model.pre_processor.on_predict_batch_start(None, None, batch, 0)  # type: ignore[arg-type]  # unused
        expected = float(model.model(batch.image).pred_score.squeeze())
    difference = abs(GraphScorer(graph).score(image.numpy())[0] - expected)
    if not difference <= TOLERANCE * max(1, abs(expected)):
        msg = (
            f"The exported {type(model).__name__} does not score as the trained one does: raw score {expected:.6g} in "
            f"torch, {difference:.2g} off in OpenVINO."
        )
        raise MedicalError(msg)
    compare_post_processing(model, post_processing)
    return difference


def compare_post_processing(model: AnomalibModule, bundled: PostProcessing) -> None:
    """Refuse post-processing that makes other normalised values, labels or masks of raw values than the engine."""
    scores, values_of_maps = _raw_values(bundled.image), _raw_values(bundled.pixel)
    # Copies, which the engine changes; and one map, not one an image: there are engines that take seconds for each.
    images = ImageBatch(image=torch.zeros(len(scores), 3, 1, 1), pred_score=torch.tensor(scores))
    picture = ImageBatch(
        image=torch.zeros(1, 3, 1, 1),
        pred_score=torch.zeros(1),
        anomaly_map=torch.tensor(values_of_maps).view(1, 1, -1),
    )
    if isinstance(model.post_processor, PostProcessor):
        for batch in (images, picture):
            model.post_processor.post_process_batch(batch)
    for what, raw, calibration, expected, decided in (
        ("score", scores, bundled.image, images.pred_score, images.pred_label),
        ("map", values_of_maps, bundled.pixel, picture.anomaly_map, picture.pred_mask),
    ):
        values = normalize(raw, calibration, bundled.normalization)
        difference = float(np.abs(values - np.asarray(expected).ravel()).max())
        abnormal = above(values, calibration)
        # anomalib hands the scores on as labels where it has no threshold.
        labels = None if decided is None or decided.dtype != torch.bool else decided.numpy().ravel()
        clear = np.abs(values - (calibration.limit or 0)) > _ROUNDING
        same = abnormal is labels if abnormal is None or labels is None else bool((abnormal == labels)[clear].all())
        if not (difference <= _ROUNDING and same):
            msg = (
                f"A bundle of this {type(model).__name__} would not judge as the engine does: its post-processor "
                f"{type(model.post_processor).__name__} makes another normalised {what} (off by {difference:.2g}) or "
                f"another {'label' if what == 'score' else 'mask'} of the same raw values. Train it with "
                "anomalib_medical.MedicalPostProcessor or anomalib's PostProcessor."
            )
            raise MedicalError(msg)


def _raw_values(calibration: Calibration) -> NDArray[np.float32]:
    """Values on both sides of the threshold, within and beyond the range of the validation images."""
    known = [value for value in (calibration.minimum, calibration.threshold, calibration.maximum) if value is not None]
    low, high = min(known, default=0.0), max(known, default=1.0)
    span = high - low or max(abs(high), 1e-3)
    return np.concatenate([known, np.linspace(low - 2 * span, high + 2 * span, 101)]).astype(np.float32)
