"""OpenVINO graphs of trained models: raw scores and maps, the post-processing left to the runtime."""

import copy
import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import openvino
from anomalib.models.components import AnomalibModule

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components import OPSET, exportable

SCORE = "pred_score"
# Of any height and width. One at a time: some of anomalib's models cannot be exported for any number of images.
_ONE_IMAGE = {"input": {2: "height", 3: "width"}}
# Without it CPUs that know bfloat16 use it, and scores move by 3e-3.
F32 = {"INFERENCE_PRECISION_HINT": "f32"}


class BundleExportError(MedicalError):
    """A model cannot be made into a bundle."""


def raw_graph(model: AnomalibModule) -> openvino.Model:
    """Convert a model without its post-processor.

    The post-processor stays out because the runtime reports raw scores too, binds other thresholds to a few-shot model,
    and because quantization must not touch it.

    Args:
        model: A trained model with its pre-processor.

    Returns:
        A graph from an image ``(1, 3, H, W)`` in [0, 1] of any size to ``pred_score`` and, if there is one,
        ``anomaly_map``.

    Raises:
        BundleExportError: If the model cannot be exported, or gives no score.
    """
    chosen = copy.copy(model)
    # Modules are kept in a dictionary of their own, which a shallow copy shares.
    chosen._modules = dict(model._modules)  # noqa: SLF001 - torch has no public way
    chosen.post_processor = None
    # anomalib's own exports resizing without the antialiasing that its engine resizes with.
    chosen.pre_processor = exportable(model.pre_processor)
    # Lines for each constant that occurs twice or stays as it is.
    for name in ("onnx_ir", "onnxscript"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with TemporaryDirectory() as folder:
        try:
            onnx = chosen.eval().to_onnx(folder, dynamic_axes=_ONE_IMAGE, opset_version=OPSET, verbose=False)
        except (NotImplementedError, RuntimeError) as error:
            msg = f"{type(model).__name__} cannot be exported ({type(error).__name__}: {_first_line(error)})."
            raise BundleExportError(msg) from error
        graph = openvino.convert_model(onnx)
    names = [output.get_any_name() for output in graph.outputs]
    if SCORE not in names:
        msg = f"{type(model).__name__} gives {', '.join(names)}, expected {SCORE} among them: it cannot be bundled."
        raise BundleExportError(msg)
    return graph


def save(graph: openvino.Model, path: Path, *, fp16: bool) -> None:
    """Write ``.xml`` and ``.bin``, weights in half precision or as they are."""
    openvino.save_model(graph, path, compress_to_fp16=fp16)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
