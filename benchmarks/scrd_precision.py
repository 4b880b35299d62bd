"""Measure what the precision of an exported Scrd costs: score differences and AUROC against the engine.

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/scrd_precision.py --data brain_flair \
        --ckpt_path results/Scrd/brain_flair/latest/weights/lightning/model.ckpt

Exports the checkpoint to OpenVINO as FP32, FP16, INT8 weights and INT8 by post-training quantization (calibrated on
the held-out training normals), scores the whole test set with each, and compares with the torch model: normalised
scores, as users see them, and raw ones (a second export without the post-processor). Writes a Markdown table.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import openvino
import torch
from anomalib.deploy import CompressionType
from common import data_set
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from anomalib_medical import Scrd

PRECISIONS = {
    "FP32": None,
    "FP16": CompressionType.FP16,
    "INT8 weights": CompressionType.INT8,
    "INT8 PTQ": CompressionType.INT8_PTQ,
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="brain_flair", help="folder of ANOMALIB_MEDICAL_DATA")
    parser.add_argument("--ckpt_path", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/scrd_precision.md"))
    args = parser.parse_args()
    datamodule = data_set(args.data)
    test = datamodule.test_data
    labels = test.samples.label_index.to_numpy().astype(int)
    images = [test[index].image.numpy()[None] for index in range(len(test))]
    rows = []
    for kind in ("normalised", "raw"):
        model = Scrd.load_from_checkpoint(args.ckpt_path, map_location="cpu").eval()
        if kind == "raw":
            model.post_processor = None
        with torch.no_grad():
            reference = np.array([float(model(torch.from_numpy(image)).pred_score) for image in images])
        for name, compression in PRECISIONS.items():
            with tempfile.TemporaryDirectory() as folder:
                path = model.to_openvino(folder, compression_type=compression, datamodule=datamodule)
                size = sum(file.stat().st_size for file in path.parent.glob("model.*")) / 2**20
                scores = _scores(path, images, f"{kind}, {name}")
            difference = np.abs(scores - reference)
            rows.append(
                f"| {kind} | {name} | {size:.1f} MiB | {difference.max():.1e} | {difference.mean():.1e} | "
                f"{roc_auc_score(labels, reference):.4f} | "
                f"{roc_auc_score(labels, scores) - roc_auc_score(labels, reference):+.4f} |"
            )
            print(rows[-1], flush=True)
    hyper = Scrd.load_from_checkpoint(args.ckpt_path, map_location="cpu").hparams
    lines = [
        "# Precision of exported models",
        "",
        f"    python benchmarks/scrd_precision.py --data {args.data} --ckpt_path <checkpoint>",
        "",
        (
            f"Scrd, {hyper['backbone']}, {hyper['image_size']} px, {len(labels)} test images of {args.data}; OpenVINO "
            f"{openvino.__version__.split('-')[0]} on the CPU with INFERENCE_PRECISION_HINT f32, images at "
            "their native size. Differences are absolute, against the torch model."
        ),
        "",
        "| score | precision | size | largest difference | mean difference | AUROC in torch | change |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    args.out.write_text("\n".join(lines), encoding="utf-8")


def _scores(path: Path, images: list[np.ndarray], what: str) -> np.ndarray:
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array([float(np.squeeze(compiled(image)["pred_score"])) for image in tqdm(images, desc=what)])


if __name__ == "__main__":
    main()
