"""INT8 graphs: learnt convolutions, or weights alone; and the scores decide whether they stay so."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import TYPE_CHECKING, Literal

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.edge.few_shot_device import FLOAT32, openvino_core
from anomalib_medical.errors import MedicalError, needs_extra
from anomalib_medical.io import counted
from anomalib_medical.models.components import add_noise_patches

from .graph import SCORE

if TYPE_CHECKING:
    import nncf

logger = logging.getLogger(__name__)
Image = NDArray[np.float32]

CALIBRATED_WITH = 300
# Share of the scores' variance that quantization may change before layers are taken back one by one.
MAX_LOSS = 0.01
_MIN_NORMALS = 10
_COMPARED_WITH = 50
# Side in pixels from twice which on images are thinned: the graphs resize them to less.
_LARGE = 768
# Share of the learnt numbers from which on convolutions are what a model's time goes to. DDAD's hold a twentieth: its
# time goes to reading the weights of full layers from memory.
_CONVOLUTIONAL = 0.2
_CONVOLUTIONS = frozenset({"Convolution", "ConvolutionBackpropData", "GroupConvolution"})
# What stands between convolutions and passes quantized values on.
_BETWEEN = frozenset({"Add", "AvgPool", "Constant", "Convert", "MaxPool", "Parameter", "PRelu", "Relu", "Result"})


@dataclass(frozen=True)
class Quantized:
    """A quantized graph and how well its raw scores agree with those of the graph it came from."""

    graph: openvino.Model
    agreement: float  # coefficient of determination on held-back normal images and the same with synthetic anomalies
    what: Literal["convolutions", "weights"]  # that compute with 8 bits, or that are stored in 8 bits
    calibrated: int  # number of normal images that set the ranges; weights alone need none
    compared: int  # number of images, half of them with synthetic anomalies, behind the agreement


class NormalImages(Sequence[Image]):
    """Normal images ``(3, H, W)``, read when they are asked for, large ones thinned to save memory and time."""

    def __init__(self, data: MedicalPredictDataset | MedicalDataset) -> None:
        self._data = data

    def __len__(self) -> int:
        """Count the images."""
        return len(self._data)

    def __getitem__(self, index: int) -> Image:  # type: ignore[override]  # no slices
        """Read an image."""
        image: Image = np.asarray(self._data[index].image)
        step = max(1, max(image.shape[1:]) // _LARGE)
        return np.ascontiguousarray(image[:, ::step, ::step])


def check_quantizable(count: int) -> None:
    """Refuse to calibrate without nncf, or with a handful of images."""
    with needs_extra("int8"):
        import nncf  # noqa: F401
    if count < _MIN_NORMALS:
        images = counted(count, "normal image")
        msg = f"Got {images} for INT8, expected at least {_MIN_NORMALS}, better {CALIBRATED_WITH}."
        raise MedicalError(msg)


def quantize(graph: openvino.Model, normals: Sequence[Image]) -> Quantized:
    """Quantize a graph after training, if its scores stay what they are.

    Of networks of convolutions these are quantized, weights and what they compute with. Cosine distances, ratios, blurs
    and resizes stay in floating point: their results differ in digits that 8 bits do not have, and quantizing them too
    moved Scrd's scores six times as far (benchmarks/results/edge_precision.md). So do matrix products: PatchCore's
    memory bank is one. Where scores agree too little, layers are put back to floating point, those that cost most
    first.

    Of networks of full layers the weights alone are stored in 8 bits: what they compute with is not rounded. The graph
    itself is left as it is; normal images ``(3, H, W)`` must be of no test set.
    """
    check_quantizable(len(normals))
    import nncf

    if not any(learnt_numbers(graph)):
        msg = "There is nothing to quantize: the model has no layers with learnt weights. Use --precision fp16."
        raise MedicalError(msg)
    held_back = min(_COMPARED_WITH, len(normals) // 5)
    order = [int(index) for index in np.random.default_rng(0).permutation(len(normals))]
    compared = [normals[index] for index in order[:held_back]]
    compared += [_corrupt(image, seed) for seed, image in enumerate(compared)]
    if not is_convolutional(graph):
        return _in_a_thread(lambda: _quantize_weights(graph, compared))
    # Images are read when they are needed: there may be hundreds of large ones.
    calibrating = order[held_back:][:CALIBRATED_WITH]
    dataset = nncf.Dataset(calibrating, lambda index: normals[index][None])
    return _in_a_thread(lambda: _quantize_convolutions(graph, dataset, len(calibrating), compared))


def _in_a_thread(work: Callable[[], Quantized]) -> Quantized:
    """Work in a thread that ends with it.

    OpenVINO gives the thread that loads its plug-in a stack for signals, and unmaps it where the plug-in ends: in one
    of nncf's threads. The main thread's next signal, Ctrl-C or a child's end, would end the process.
    """
    future: Future[Quantized] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again where the result is waited for
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result()


def _quantize_convolutions(
    graph: openvino.Model, calibrating: "nncf.Dataset", count: int, compared: list[Image]
) -> Quantized:
    import nncf

    started = time.perf_counter()
    expected = _scores(graph, compared)
    seconds = (time.perf_counter() - started) / len(compared)
    layers = sum(_is_learnt(operation) for operation in graph.get_ops())
    # A first one, before and after; then, if they differ too much, for each layer to rank it and to put it back.
    at_best, per_round = 1 + 2 * len(compared), 2 * layers * len(compared)
    logger.info(
        "INT8: ranges of %s from %d images (looked at about twice), then raw scores compared on %d, half "
        "of them with synthetic anomalies. At %.2g s an image that is about %s. Where scores change too much, layers "
        "are put back to floating point one by one: about %s for each time that they are ranked.",
        counted(layers, "convolution"),
        count,
        len(compared),
        seconds,
        _duration(seconds * (2 * count + at_best)),
        _duration(seconds * per_round),
    )
    # nncf shows the progress of its own steps, and tells of every layer at this level.
    nncf.set_log_level(logging.WARNING)
    with tqdm(total=at_best, desc="INT8: comparing scores", unit="image", disable=None) as progress:

        def agreement(compiled: openvino.CompiledModel, positions: Iterable[int]) -> tuple[float, list[float]]:
            # Layers are ranked with some of the images.
            chosen = list(positions)
            if progress.n >= progress.total:
                progress.total += per_round
                progress.set_description("INT8: putting layers back")
            scores = _scores_of(compiled, [compared[position] for position in chosen])
            progress.update(len(chosen))
            # With what each image adds nncf need not score it once more by itself.
            return determination(expected[chosen], scores), list(-((expected[chosen] - scores) ** 2))

        quantized = nncf.quantize_with_accuracy_control(
            graph,
            calibrating,
            nncf.Dataset(range(len(compared))),
            validation_fn=agreement,
            max_drop=MAX_LOSS,
            subset_size=count,
            ignored_scope=floating_point_scope(graph),
        )
    if not any(operation.get_type_name() == "FakeQuantize" for operation in quantized.get_ops()):
        msg = (
            f"INT8 changes the scores of this model too much: no layer is left for it where {MAX_LOSS:.0%} of their "
            "variance is allowed. Use --precision fp16."
        )
        raise MedicalError(msg)
    reached = determination(expected, _scores(quantized, compared))
    return Quantized(quantized, reached, "convolutions", count, len(compared))


def _quantize_weights(graph: openvino.Model, compared: list[Image]) -> Quantized:
    quantized = with_8_bit_weights(graph)
    agreement = determination(_scores(graph, compared), _scores(quantized, compared))
    if agreement < 1 - MAX_LOSS:
        msg = (
            f"INT8 changes the scores of this model too much: they agree with FP32 to {agreement:.3f} (coefficient of "
            f"determination) with weights of 8 bits, expected {1 - MAX_LOSS:.2f}. Use --precision fp16."
        )
        raise MedicalError(msg)
    return Quantized(quantized, agreement, "weights", 0, len(compared))


def with_8_bit_weights(graph: openvino.Model) -> openvino.Model:
    """A copy of a graph with its weights in 8 bits, a scale for each channel."""
    import nncf

    fixed = nncf.IgnoredScope(names=_fixed(graph), validate=False)
    return nncf.compress_weights(graph.clone(), mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=fixed)


def floating_point_scope(graph: openvino.Model) -> "nncf.IgnoredScope":
    """All operations but learnt convolutions and what stands between them."""
    import nncf

    types = {operation.get_type_name() for operation in graph.get_ops()} - _CONVOLUTIONS - _BETWEEN
    return nncf.IgnoredScope(names=_fixed(graph), types=sorted(types), validate=False)


def is_convolutional(graph: openvino.Model) -> bool:
    """Whether convolutions are quantized, rather than weights alone."""
    convolutions, products = learnt_numbers(graph)
    return convolutions >= _CONVOLUTIONAL * (convolutions + products)


def learnt_numbers(graph: openvino.Model) -> tuple[int, int]:
    """Count the numbers in kernels of learnt convolutions, and those in weights of full layers.

    Stacks of matrices, such as Padim's covariances of each place, are no weights of layers.
    """
    convolutions = products = 0
    for operation in graph.get_ops():
        if _is_learnt(operation):
            convolutions += int(np.prod(operation.input_value(1).get_partial_shape().to_shape()))
        elif operation.get_type_name() == "MatMul":
            for value in operation.input_values():
                is_constant = value.get_node().get_type_name() in {"Constant", "Convert"}
                if is_constant and value.get_partial_shape().is_static and len(value.get_shape()) == 2:
                    products += int(np.prod(value.get_shape()))
    return convolutions, products


def determination(expected: NDArray[np.float64], got: NDArray[np.float64]) -> float:
    """Coefficient of determination; scikit-learn's is no number for one image, about which nncf asks too."""
    return 1 - float(np.mean((expected - got) ** 2) / max(float(np.var(expected)), 1e-24))


def _fixed(graph: openvino.Model) -> list[str]:
    """Names of the convolutions that are not learnt, such as blurs."""
    return [
        operation.get_friendly_name()
        for operation in graph.get_ops()
        if operation.get_type_name() in _CONVOLUTIONS and not _is_learnt(operation)
    ]


def _is_learnt(operation: openvino.Node) -> bool:
    """Whether it is a convolution, with a constant kernel that is no blur of one channel."""
    if operation.get_type_name() not in _CONVOLUTIONS:
        return False
    shape = operation.input_value(1).get_partial_shape()
    return not shape.is_dynamic and tuple(shape.to_shape())[:2] != (1, 1)


def _corrupt(image: Image, seed: int) -> Image:
    """Give an image a synthetic anomaly, so that not only the scores of normal images are compared."""
    noisy = add_noise_patches(
        torch.from_numpy(image)[None],
        torch.Generator().manual_seed(seed),
        kind="simplex",
        strength=0.5,
        patch_size=(0.1, 0.4),
        octaves=6,
    )
    return np.asarray(noisy[0].clamp(0, 1))


def _scores(graph: openvino.Model, images: Sequence[Image]) -> NDArray[np.float64]:
    return _scores_of(openvino_core().compile_model(graph, "CPU", FLOAT32), images)


def _scores_of(compiled: openvino.CompiledModel, images: Sequence[Image]) -> NDArray[np.float64]:
    return np.array([float(np.squeeze(compiled(image[None])[SCORE])) for image in images])


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
