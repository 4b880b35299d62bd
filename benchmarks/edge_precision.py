"""Measure what the precision of a bundle costs: raw scores and AUROC of FP32, FP16 and INT8 against torch.

    ANOMALIB_MEDICAL_DATA=/path/to/data python benchmarks/edge_precision.py --data brain_flair \
        --ckpt_path results/Scrd/brain_flair/latest/weights/lightning/model.ckpt

Exports the checkpoint as `anomalib-medical bundle` does, and scores the whole test set with each graph at the images'
native size. INT8 is calibrated on training normals alone, and nothing of it was chosen on a test set. "INT8, all" is
nncf's default quantization of the same graph, post-processing excluded, as a comparison. Every measurement is a line of
`results/edge_precision.jsonl`; `results/edge_precision.md` is the table of its newest lines.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino
import torch
from common import data_set
from tqdm import tqdm

from anomalib_medical.data import MedicalPredictDataset
from anomalib_medical.data.geometry import model_steps
from anomalib_medical.deploy.checkpoint import load_model
from anomalib_medical.deploy.graph import raw_graph
from anomalib_medical.deploy.quantize import CALIBRATED_WITH, NormalImages, quantize
from anomalib_medical.edge.predictor import GraphScorer
from anomalib_medical.metrics import image_auroc

RESULTS = Path(__file__).parent / "results"
PRECISIONS = ("torch", "fp32", "fp16", "int8", "int8_all")
NAMES = {"torch": "torch", "fp32": "FP32", "fp16": "FP16", "int8": "INT8", "int8_all": "INT8, all"}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="brain_flair", help="folder of ANOMALIB_MEDICAL_DATA")
    parser.add_argument("--ckpt_path", type=Path, required=True)
    parser.add_argument("--model", help="class, for checkpoints that do not name it")
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS, help="%(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "edge_precision", help="without suffix")
    args = parser.parse_args()
    data = data_set(args.data)
    model = load_model(args.ckpt_path, args.model)
    step = torch.load(args.ckpt_path, map_location="cpu", weights_only=False, mmap=True)["global_step"]
    test = data.test_data
    images = [np.asarray(test[index].image) for index in range(len(test))]
    labels = test.samples.label_index.to_numpy().astype(int)
    patients = [str(patient) for patient in test.samples.patient_id]
    reference = _by_torch(model, images)
    common = {
        "data": args.data,
        "model": type(model).__name__,
        "backbone": str(model.hparams.get("backbone", "-")),
        "image_size": next((step.sizes for step in model_steps(model) if step.kind == "resize"), None),
        "steps": step,
        "spread": float(reference.std()),
        "versions": {"openvino": openvino.__version__.split("-")[0], "nncf": nncf.__version__},
    }
    auroc = image_auroc(reference, labels, patients).value
    graph = raw_graph(model)
    normals = NormalImages(MedicalPredictDataset(data.root / "train" / "good"))
    for precision in args.precisions:
        agreement, size, scores = None, None, reference
        if precision != "torch":
            chosen = graph
            if precision == "int8":
                quantized = quantize(graph, normals)
                chosen, agreement = quantized.graph, quantized.agreement
            elif precision == "int8_all":
                chosen = _quantize_all(graph, normals)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.xml"
                openvino.save_model(chosen, path, compress_to_fp16=precision == "fp16")
                size = sum(file.stat().st_size for file in path.parent.iterdir()) / 2**20
                scorer = GraphScorer(path)
                scores = np.array([scorer.score(image)[0] for image in tqdm(images, desc=precision)])
        estimate, difference = image_auroc(scores, labels, patients), np.abs(scores - reference)
        measured = {
            "precision": precision,
            "size_mib": size,
            "agreement": agreement,
            "largest_difference": float(difference.max()),
            "mean_difference": float(difference.mean()),
            "auroc": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
            "change": estimate.value - auroc,
            "n_images": estimate.n_images,
            "n_patients": estimate.n_patients,
        }
        # One at a time: an hour of quantization is not lost with what comes after it.
        with args.out.with_suffix(".jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(common | measured) + "\n")
        lines = args.out.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()
        args.out.with_suffix(".md").write_text(_page([json.loads(line) for line in lines]), encoding="utf-8")


def _by_torch(model: Any, images: list[np.ndarray]) -> np.ndarray:  # noqa: ANN401 - any of anomalib's models
    with torch.no_grad():
        batches = (model.pre_processor.transform(torch.from_numpy(image)[None]) for image in images)
        return np.array(
            [float(model.model(batch).pred_score) for batch in tqdm(batches, desc="torch", total=len(images))]
        )


def _quantize_all(graph: openvino.Model, normals: NormalImages) -> openvino.Model:
    chosen = list(range(min(CALIBRATED_WITH, len(normals))))
    dataset = nncf.Dataset(chosen, lambda index: normals[index][None])
    return nncf.quantize(graph.clone(), dataset, subset_size=len(chosen))


def _page(records: list[dict[str, Any]]) -> str:
    newest = {(one["data"], one["model"], one["backbone"], one["steps"], one["precision"]): one for one in records}
    versions = records[-1]["versions"]
    lines = [
        "# Precision of bundles",
        "",
        "    python benchmarks/edge_precision.py --data <data set> --ckpt_path <checkpoint> [--model <class>]",
        "",
        (
            f"Raw scores against torch, images at their native size; OpenVINO {versions['openvino']}, nncf "
            f"{versions['nncf']}, CPU, INFERENCE_PRECISION_HINT f32. FP16 is FP32 with weights stored in half "
            "precision; INT8 quantizes convolutions with learnt kernels, of Ddad, whose numbers are nearly all in full "
            'layers, the weights alone; "INT8, all" is nncf\'s default on the same graph. '
            "Agreement: coefficient of determination with FP32 on held-back training normals and the same with "
            "synthetic anomalies, all that quantization looks at. AUROC: 95% interval, bootstrap over patients. The "
            "models were trained briefly: they show what precision costs, not what they can do."
        ),
        "",
        (
            "| data | model | steps | precision | size | largest difference | mean difference | spread of scores | "
            "agreement | AUROC | change |"
        ),
        "|---" * 11 + "|",
    ]
    for one in newest.values():
        size = "-" if one["size_mib"] is None else f"{one['size_mib']:.1f} MiB"
        agreement = "-" if one["agreement"] is None else f"{one['agreement']:.4f}"
        pixels = "x".join(str(side) for side in one["image_size"] or ["-"])
        lines.append(
            f"| {one['data']} | {one['model']}, {one['backbone']}, {pixels} | {one['steps']} | "
            f"{NAMES[one['precision']]} | {size} | {one['largest_difference']:.1e} | {one['mean_difference']:.1e} | "
            f"{one['spread']:.3g} | {agreement} | {one['auroc']:.4f} [{one['low']:.3f}, {one['high']:.3f}] | "
            f"{one['change']:+.4f} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
