"""Export for devices that bind a support of their own: a support encoder and a query scorer, without torch."""

from pathlib import Path
from tempfile import TemporaryDirectory

import openvino
import torch
from torch import nn
from torch.export import Dim

from anomalib_medical.edge import few_shot_device
from anomalib_medical.models.components import exportable
from anomalib_medical.models.d24fad.lightning_model import D24fad
from anomalib_medical.models.d24fad.torch_model import SCALES, D24fadModel, EncodedSupport

_SUPPORT_NAMES = [f"{part}_{scale}" for scale in range(SCALES) for part in EncodedSupport._fields]


class _SupportEncoder(nn.Module):
    """Images in [0, 1] to the features and keys of each scale."""

    def __init__(self, pre_processor: nn.Module | None, model: D24fadModel) -> None:
        super().__init__()
        self.pre_processor = pre_processor
        self.model = model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = images if self.pre_processor is None else self.pre_processor(images)
        _, student = self.model.encode(images)
        return tuple(tensor for one in self.model.with_keys(student) for tensor in one)


class _QueryScorer(nn.Module):
    """Images in [0, 1] and an encoded support to raw scores and maps."""

    def __init__(self, pre_processor: nn.Module | None, model: D24fadModel) -> None:
        super().__init__()
        self.pre_processor = pre_processor
        self.model = model

    def forward(self, images: torch.Tensor, support: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        images = images if self.pre_processor is None else self.pre_processor(images)
        encoded = [EncodedSupport(*support[2 * scale : 2 * scale + 2]) for scale in range(SCALES)]
        result = self.model.score(images, encoded)
        return result.pred_score, result.anomaly_map  # type: ignore[return-value]  # the model gives both


def export_edge(model: D24fad, folder: str | Path) -> Path:
    """Write the two OpenVINO graphs that `few_shot_device.py` runs without torch.

    Args:
        model: A trained model; its own support, if any, is no part of the graphs, nor is its threshold.
        folder: Where to; made if missing.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts = exportable(model.pre_processor), model.model
    count, height, width = Dim("count", min=1), Dim("height", min=8), Dim("width", min=8)
    image_shape = {0: count, 2: height, 3: width}
    # Sizes that are no multiple of each other, lest the export takes one for the other.
    images = torch.rand(2, 3, 96, 160, device=model.device)
    encoder, scorer = _SupportEncoder(*parts).eval(), _QueryScorer(*parts).eval()
    with torch.no_grad():
        support = [torch.cat([tensor, tensor[:1]]) for tensor in encoder(images)]
    shots = Dim("shots", min=1)
    _convert(encoder, (images,), (image_shape,), ["images"], _SUPPORT_NAMES, folder / few_shot_device.ENCODER)
    _convert(
        scorer,
        (images, support),
        (image_shape, [{0: shots}] * len(support)),
        ["images", *_SUPPORT_NAMES],
        ["pred_score", "anomaly_map"],
        folder / few_shot_device.SCORER,
    )
    return folder


def _convert(
    module: nn.Module,
    example: tuple[object, ...],
    dynamic_shapes: tuple[object, ...],
    inputs: list[str],
    outputs: list[str],
    path: Path,
) -> None:
    with TemporaryDirectory() as temporary:
        onnx = Path(temporary) / "model.onnx"
        torch.onnx.export(
            module,
            example,
            str(onnx),
            dynamo=True,
            dynamic_shapes=dynamic_shapes,
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
        openvino.save_model(openvino.convert_model(onnx), path, compress_to_fp16=False)
