"""From an image to its scores: the graph of the bundle, by OpenVINO alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import openvino
from numpy.typing import NDArray

from ..io import agree
from .errors import EdgeError
from .few_shot_device import openvino_core
from .geometry import WHOLE, Placement, Step, place
from .manifest import Manifest, PostProcessing
from .scores import above, normalize, raw_threshold

MODEL = "model/model.xml"
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What the model says of an image.

    Attributes:
        raw_score: As the graph gives it.
        score: Normalised to [0, 1], the limit usually at 0.5; None without a threshold.
        abnormal: Whether the score is above the threshold; None without one.
        threshold: The raw score above which images are abnormal; None without one.
        anomaly_map: ``(h, w)`` at the model's size, normalised as the score is; None if the model gives no map.
        mask: Where the map is above its own threshold, ``(h, w)``; None without one.
        placed: Where map and mask lie on the image.
    """

    raw_score: float
    score: float | None
    abnormal: bool | None
    threshold: float | None
    anomaly_map: Image | None = None
    mask: NDArray[np.bool_] | None = None
    placed: Placement = WHOLE


class Scorer(Protocol):
    """Gives raw scores and maps."""

    def score(self, image: Image) -> tuple[float, Image | None]:
        """Score an image ``(3, H, W)`` in [0, 1]: its raw score, and its map ``(h, w)`` if there is one."""


class GraphScorer:
    """Scores with a graph.

    Args:
        graph: The ``.xml`` of a graph, or a graph.
        many: Whether to score most images a second, several of them side by side, rather than each the soonest.

    Attributes:
        has_map: Whether there is a map beside the score.
        workers: From how many threads :meth:`score` is worth being called at a time.
    """

    def __init__(self, graph: Path | openvino.Model, *, many: bool = False) -> None:
        compiled = _compile(graph, many=many)
        self.has_map = any("anomaly_map" in output.get_names() for output in compiled.outputs)
        self.workers = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) if many else 1
        self._requests: SimpleQueue[Any] = SimpleQueue()
        for _ in range(self.workers):
            self._requests.put(compiled.create_infer_request())

    def score(self, image: Image) -> tuple[float, Image | None]:
        """Score an image ``(3, H, W)`` in [0, 1]: its raw score, and its map ``(h, w)`` if there is one."""
        request = self._requests.get()
        try:
            # The results are copies: the request writes its next ones to the same place.
            result = request.infer(image[None], share_inputs=True)
        finally:
            self._requests.put(request)
        anomaly_map = np.squeeze(result["anomaly_map"]) if self.has_map else None
        return float(np.squeeze(result["pred_score"])), anomaly_map


class Predictor:
    """Scores images and compares them with the thresholds.

    Args:
        scorer: Gives the raw scores.
        post_processing: Thresholds and ranges.
        workers: From how many threads it may be called at a time.
        geometry: What the graph's pre-processing does to places.
    """

    def __init__(
        self, scorer: Scorer, post_processing: PostProcessing, workers: int = 1, geometry: Sequence[Step] = ()
    ) -> None:
        self.workers = workers
        self._scorer = scorer
        self._post_processing = post_processing
        self._geometry = tuple(geometry)
        self._threshold = raw_threshold(post_processing.image, post_processing.normalization)

    def __call__(self, image: Image) -> Prediction:
        """Score an image ``(3, H, W)`` in [0, 1].

        Raises:
            EdgeError: If the score is no number.
        """
        raw_score, raw_map = self._scorer.score(image)
        if not np.isfinite(raw_score):
            msg = f"The model gave the score {raw_score}, which is no number: it cannot judge this image."
            raise EdgeError(msg)
        kind, scores, pixels = (
            self._post_processing.normalization,
            self._post_processing.image,
            self._post_processing.pixel,
        )
        score = normalize(np.asarray([raw_score], np.float32), scores, kind)
        abnormal = above(score, scores)
        anomaly_map = None if raw_map is None else normalize(raw_map, pixels, kind)
        return Prediction(
            raw_score=raw_score,
            score=None if kind == "none" or scores.threshold is None else float(score[0]),
            abnormal=None if abnormal is None else bool(abnormal[0]),
            threshold=self._threshold,
            anomaly_map=anomaly_map,
            mask=None if anomaly_map is None else above(anomaly_map, pixels),
            placed=place(self._geometry, (image.shape[-2], image.shape[-1])),
        )


def _compile(graph: Path | openvino.Model, *, many: bool) -> Any:  # noqa: ANN401 - OpenVINO has no types
    """Load a graph for the processor, whose cores are shared out among many images, or all used for one.

    Raises:
        EdgeError: If OpenVINO cannot.
    """
    # On processors that know bfloat16, OpenVINO would use it.
    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "THROUGHPUT" if many else "LATENCY"}
    try:
        return openvino_core().compile_model(graph, "CPU", options)
    except RuntimeError as error:
        name = graph.name if isinstance(graph, Path) else "the graph"
        msg = f"OpenVINO {openvino.__version__} cannot load {name} ({str(error).strip().splitlines()[-1]})."
        raise EdgeError(msg) from error


def open_bundle(bundle: Path) -> Manifest:
    """Read a bundle's manifest, and compare every file with it.

    Raises:
        BundleError: If the manifest cannot be read.
        EdgeError: If a file is missing, changed or added.
    """
    manifest = Manifest.read(bundle)
    differences = manifest.differences(bundle)
    if differences:
        shown = "\n".join(f"- {line}" for line in differences[:10])
        more = f"\n(and {len(differences) - 10} more)" if len(differences) > 10 else ""
        msg = (
            f"This bundle is not as it was made; {len(differences)} of its files "
            f"{agree(len(differences), 'differs', 'differ')} from manifest.json:\n{shown}{more}\n"
            "Nothing was scored. Copy the bundle again from where it was made, into an empty folder."
        )
        raise EdgeError(msg)
    return manifest
