"""Few-shot anomaly detection on a device: openvino and numpy, no torch.

`anomalib-medical bundle` puts this file and the two graphs that it runs into a folder for the device; there:

    from runtime.edge.few_shot_device import FewShotDevice

    device = FewShotDevice("model")
    device.bind(support)                         # a few normal images of the new organ
    device.calibrate(normals)                    # others, for the threshold; or device.calibrate() without any
    score, anomaly_map = device.score(image)
    abnormal = score > device.threshold

Images are numpy arrays ``(3, height, width)``, float32 in [0, 1], of any size, read as in training.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import openvino
from numpy.typing import NDArray

from ..io import counted
from .scores import order_statistic

Image = NDArray[np.float32]

ENCODER = "support_encoder.xml"
SCORER = "query_scorer.xml"
# Without it OpenVINO computes in bfloat16 where the processor can, and scores move by 3e-3.
FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}


class NormalScores(NamedTuple):
    """Scores of N normal images, for thresholds and ranges."""

    scores: list[float]  # raw
    map_minima: list[float]  # smallest value of each image's map
    map_maxima: list[float]


@cache
def openvino_core() -> openvino.Core:
    """Return the one core of this process, which lives as long as it.

    OpenVINO gives the thread that loads its plug-in a stack for signals, and unmaps it where the last that uses the
    plug-in ends, be it in another thread: the next signal, Ctrl-C or a child's end, would end the process.
    """
    # OpenVINO makes its table of types when the first asks, in a way that two threads that ask at once (two images
    # being scored) wait for each other for ever, and hold Python's lock: made here, nobody has to wait.
    openvino.Type.f32.to_dtype()
    return openvino.Core()


class FewShotDevice:
    """Scores images against a support that is bound on the device.

    Args:
        folder: Where the graphs are.

    Attributes:
        threshold: Score above which an image is abnormal; NaN before :meth:`calibrate`, and after another support.
    """

    def __init__(self, folder: str | Path) -> None:
        self._encoder, self._scorer = (
            openvino_core().compile_model(Path(folder) / name, "CPU", FLOAT32) for name in (ENCODER, SCORER)
        )
        self._support: dict[str, NDArray[np.float32]] = {}
        self._images: list[Image] = []
        self.threshold = math.nan

    def __len__(self) -> int:
        """Count the support images."""
        return len(next(iter(self._support.values()), ()))

    def bind(self, images: Sequence[Image]) -> None:
        """Compare with other normal images from now on; the threshold of the former ones is dropped.

        Args:
            images: One or more, each ``(3, height, width)`` in [0, 1].
        """
        if not len(images):
            msg = "The support set has 0 images, expected at least 1 normal image."
            raise ValueError(msg)
        # One by one: sizes may differ.
        encoded = [self._encoder(_batch(image)) for image in images]
        names = [output.get_any_name() for output in self._encoder.outputs]
        self._support = {
            name: np.concatenate([results[index] for results in encoded]) for index, name in enumerate(names)
        }
        self._images = list(images)
        self.threshold = math.nan

    @property
    def encoded(self) -> Mapping[str, NDArray[np.float32]]:
        """The support as the graphs see it, to be kept and given to :meth:`restore`."""
        return dict(self._support)

    def restore(self, encoded: Mapping[str, NDArray[np.float32]]) -> None:
        """Take up what :attr:`encoded` was, without a threshold; a support of another model is refused."""
        expected = {output.get_any_name() for output in self._encoder.outputs}
        if set(encoded) != expected or len({len(values) for values in encoded.values()}) != 1:
            msg = f"Got a support of {', '.join(sorted(encoded)) or 'nothing'}, expected {', '.join(sorted(expected))}."
            raise ValueError(msg)
        self._support = dict(encoded)
        self._images = []
        self.threshold = math.nan

    def score(self, image: Image) -> tuple[float, NDArray[np.float32]]:
        """Score an image ``(3, height, width)`` in [0, 1]: its raw anomaly score, and its map at the model's size."""
        return self._score(image, self._support)

    def calibrate(self, normals: Sequence[Image] | None = None, target_specificity: float = 0.95) -> float:
        """Set the threshold that the wanted share of normal images stays at or below, and return it.

        Args:
            normals: Normal images that are not in the support, 19 or more for a specificity of 0.95. Without any, each
                support image is compared with the others, of which there must be 1 or more.
            target_specificity: The share, between 0 and 1.
        """
        self.threshold = order_statistic(self.score_normals(normals).scores, target_specificity)
        return self.threshold

    def score_normals(self, normals: Sequence[Image] | None = None) -> NormalScores:
        """Score normal images that are not in the support; without any, each support image against the others."""
        if normals is None and len(self._images) > 1:
            results = [
                self._score(image, {name: np.delete(values, index, axis=0) for name, values in self._support.items()})
                for index, image in enumerate(self._images)
            ]
        else:
            results = [self.score(image) for image in normals or ()]
        if not results:
            # Those of a restored support are not kept.
            images = counted(len(self._images), "support image")
            msg = f"Got no normal images and {images} bound here, expected at least 1 of the former or 2 of the latter."
            raise ValueError(msg)
        maps = [anomaly_map for _, anomaly_map in results]
        return NormalScores(
            [score for score, _ in results], [float(each.min()) for each in maps], [float(each.max()) for each in maps]
        )

    def _score(self, image: Image, support: dict[str, NDArray[np.float32]]) -> tuple[float, NDArray[np.float32]]:
        if not support:
            msg = "No support is bound: call bind with a few normal images first."
            raise ValueError(msg)
        result = self._scorer({"images": _batch(image), **support})
        return float(result["pred_score"][0]), result["anomaly_map"][0, 0]


def _batch(image: Image) -> Image:
    values = np.asarray(image, dtype=np.float32)
    if values.ndim != 3 or values.shape[0] != 3 or not bool(((values >= 0) & (values <= 1)).all()):
        msg = f"Got an image of shape {values.shape}, expected (3, height, width) with values in [0, 1]."
        raise ValueError(msg)
    return values[None]
