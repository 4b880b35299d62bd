"""Export for devices that bind a support of their own: a support encoder and a query scorer, without torch."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openvino
import torch
from torch import nn
from torch.export import Dim

from anomalib_medical.edge import few_shot_device
from anomalib_medical.models.components import exportable
from anomalib_medical.models.d24fad.lightning_model import D24fad


class _SupportEncoder(nn.Module):
    """Images in [0, 1] to the features and keys of each level."""

    def __init__(self, model: D24fad) -> None:
        super().__init__()
        self.pre_processor = exportable(model.pre_processor) or nn.Identity()
        self.model = model.model

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        levels = self.model.levels(*self.model.encode(self.pre_processor(images)))
        return tuple(self.model.support.flatten(self.model.with_keys(levels)))


class _QueryScorer(_SupportEncoder):
    """Images in [0, 1] and an encoded support to raw scores and maps."""

    def forward(self, images: torch.Tensor, support: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        result = self.model.score(self.pre_processor(images), self.model.support.unflatten(support))
        return result.pred_score, result.anomaly_map  # type: ignore[return-value]  # the model gives both


def export_edge(model: D24fad, folder: Path, *, fp16: bool = False) -> None:
    """Write the two OpenVINO graphs that `FewShotDevice` runs: without the model's own support and its threshold."""
    image_shape = {0: Dim("count", min=1), 2: Dim("height", min=8), 3: Dim("width", min=8)}
    # Sizes that are no multiple of each other, lest the export takes one for the other.
    images = torch.rand(2, 3, 96, 160, device=model.device)
    encoder, scorer = _SupportEncoder(model).eval(), _QueryScorer(model).eval()
    with torch.no_grad():
        support = [torch.cat([tensor, tensor[:1]]) for tensor in encoder(images)]
    shots = {0: Dim("shots", min=1)}
    names = model.model.support.names
    encoder_graph = _convert(encoder, {"images": images}, {"images": image_shape}, ["images"], names)
    scorer_graph = _convert(
        scorer,
        {"images": images, "support": support},
        {"images": image_shape, "support": [shots] * len(support)},
        ["images", *names],
        ["pred_score", "anomaly_map"],
    )
    for name, graph in ((few_shot_device.ENCODER, encoder_graph), (few_shot_device.SCORER, scorer_graph)):
        openvino.save_model(graph, folder / name, compress_to_fp16=fp16)


def _convert(
    module: nn.Module, example: dict[str, Any], dynamic_shapes: dict[str, Any], inputs: list[str], outputs: list[str]
) -> openvino.Model:
    with TemporaryDirectory() as temporary:
        onnx = Path(temporary) / "model.onnx"
        torch.onnx.export(
            module,
            tuple(example.values()),
            str(onnx),
            dynamo=True,
            dynamic_shapes=tuple(dynamic_shapes.values()),
            input_names=inputs,
            output_names=outputs,
            verbose=False,
        )
        return openvino.convert_model(onnx)
