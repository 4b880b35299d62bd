"""Exported models against the engine."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from anomalib.data import ImageBatch, InferenceBatch

from anomalib_medical.edge.few_shot_device import openvino_core

NATIVE, ODD = (64, 64), (90, 132)
TOLERANCE = 1e-4


def images(size, count=3):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(1))


def by_engine(model, batch):
    """What the engine does with a batch: pre-processing by the callback, the model's step, post-processing."""
    item = ImageBatch(image=batch.clone())
    model.pre_processor.on_predict_batch_start(None, None, item, 0)
    with torch.no_grad():
        item = model.predict_step(item, 0)
    if model.post_processor is not None:
        model.post_processor.post_process_batch(item)
    return InferenceBatch(
        pred_score=item.pred_score,
        anomaly_map=item.anomaly_map,
        pred_label=item.pred_label,
        pred_mask=item.pred_mask,
    )


def compiled(path):
    """A graph on the CPU; asked for again, the same, unless the file was written anew."""
    return _compiled(path, Path(path).stat().st_mtime_ns)


@lru_cache(maxsize=4)
def _compiled(path, _changed):
    core = openvino_core()
    return core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


@lru_cache(maxsize=1)
def _unpickled(path, _changed):
    # The file is ours, made a moment ago: only such a file may be unpickled.
    return torch.load(path, weights_only=False)["model"].eval()


def assert_equal_results(expected, got):
    score, anomaly_map = (np.asarray(got[name]).squeeze() for name in ("pred_score", "anomaly_map"))
    np.testing.assert_allclose(score, expected.pred_score.numpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(anomaly_map, expected.anomaly_map.squeeze(1).numpy(), rtol=0, atol=TOLERANCE)


def export_all(model, folder):
    return {"torch": model.to_torch(folder), "onnx": model.to_onnx(folder), "openvino": model.to_openvino(folder)}


def by_export(exported, kind, batch):
    """What an exported model says about a batch, by name."""
    if kind == "torch":
        loaded = _unpickled(exported["torch"], Path(exported["torch"]).stat().st_mtime_ns)
        with torch.no_grad():
            return loaded(batch)._asdict()
    network = compiled(exported[kind])
    return {output.get_any_name(): value for output, value in network(batch.numpy()).items()}
