"""OpenVINO graphs of trained models: raw scores and maps, the post-processing left to the runtime."""

import copy
import logging
from tempfile import TemporaryDirectory

import openvino
from anomalib.models.components import AnomalibModule

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components import ONE_IMAGE, OPSET, exportable

SCORE = "pred_score"


def raw_graph(model: AnomalibModule) -> openvino.Model:
    """From an image ``(1, 3, H, W)`` in [0, 1] of any size to ``pred_score`` and, if there is one, ``anomaly_map``.

    The post-processor stays out because the runtime reports raw scores too, binds other thresholds to a few-shot model,
    and because quantization must not touch it.
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
    # That the outputs which a model lacks are none.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder:
        try:
            onnx = chosen.eval().to_onnx(folder, dynamic_axes=ONE_IMAGE, opset_version=OPSET, verbose=False)
        except (NotImplementedError, RuntimeError) as error:
            reason = (str(error).strip().splitlines() or ["no reason given"])[0]
            msg = f"{type(model).__name__} cannot be exported ({type(error).__name__}: {reason})."
            raise MedicalError(msg) from error
        if onnx is None:
            # Some warn and return nothing, AnomalyVFM for one.
            msg = f"{type(model).__name__} has no export in anomalib: there is nothing to bundle."
            raise MedicalError(msg)
        graph = openvino.convert_model(onnx)
    names = [output.get_any_name() for output in graph.outputs]
    if SCORE not in names:
        msg = f"{type(model).__name__} gives {', '.join(names)}, expected {SCORE} among them: it cannot be bundled."
        raise MedicalError(msg)
    return graph
