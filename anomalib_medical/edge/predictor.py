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

from . import EdgeError
from .few_shot_device import FLOAT32, openvino_core
from .geometry import WHOLE, Placement, Step, place
from .heatmap import Scale
from .manifest import PostProcessing
from .scores import above, normalize, raw_threshold

MODEL = "model/model.xml"
Image = NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """What the model says of an image."""

    raw_score: float
    score: float | None  # normalised to [0, 1], the limit usually at 0.5; None without a threshold
    abnormal: bool | None  # whether the score is above the threshold; None without one
    threshold: float | None  # raw; None without one
    anomaly_map: Image | None = None  # (h, w) at the model's size, normalised as the score is
    mask: NDArray[np.bool_] | None = None  # where the map is above its own threshold, (h, w); None without one
    placed: Placement = WHOLE  # where map and mask lie on the image
    scale: Scale | None = None  # how the map is drawn

    @property
    def label(self) -> str:
        """``normal`` or ``abnormal``; empty without a threshold."""
        return {None: "", False: "normal", True: "abnormal"}[self.abnormal]


class Scorer(Protocol):
    """Gives raw scores and maps."""

    def score(self, image: Image) -> tuple[float, Image | None]:
        """Score an image ``(3, H, W)`` in [0, 1]: its raw score, and its map ``(h, w)`` if there is one."""


class GraphScorer:
    """Scores with a graph, or the ``.xml`` of one.

    With `many`, most images a second, from `workers` threads at a time, rather than each the soonest.
    """

    def __init__(self, graph: Path | openvino.Model, *, many: bool = False) -> None:
        options = FLOAT32 | {"PERFORMANCE_HINT": "THROUGHPUT" if many else "LATENCY"}
        try:
            compiled = openvino_core().compile_model(graph, "CPU", options)
        except RuntimeError as error:
            name = graph.name if isinstance(graph, Path) else "the graph"
            msg = f"OpenVINO {openvino.__version__} cannot load {name} ({str(error).strip().splitlines()[-1]})."
            raise EdgeError(msg) from error
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
    """Scores images, from `workers` threads at a time, and compares them with the thresholds.

    `geometry` is what the graph's pre-processing does to places.
    """

    def __init__(
        self, scorer: Scorer, post_processing: PostProcessing, workers: int = 1, geometry: Sequence[Step] = ()
    ) -> None:
        self.workers = workers
        self._scorer = scorer
        self._facts = post_processing
        self._geometry = tuple(geometry)
        self._threshold = raw_threshold(post_processing.image, post_processing.normalization)

    def __call__(self, image: Image) -> Prediction:
        """Score an image ``(3, H, W)`` in [0, 1]."""
        raw_score, raw_map = self._scorer.score(image)
        if not np.isfinite(raw_score):
            msg = f"The model gave the score {raw_score}, which is no number: it cannot judge this image."
            raise EdgeError(msg)
        kind, scores, pixels = self._facts.normalization, self._facts.image, self._facts.pixel
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
            scale=None if anomaly_map is None else Scale.of(anomaly_map, pixels, kind),
        )
