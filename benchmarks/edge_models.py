"""The models whose speed is measured, untrained, as torch files and as bundles."""

from pathlib import Path
from typing import Any

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Scrd, resnet18": ("Scrd", {"backbone": "resnet18"}),
    "Scrd, wide_resnet50_2": ("Scrd", {"backbone": "wide_resnet50_2"}),
    "Ddad": ("Ddad", {}),
    "D24fad, resnet18": ("D24fad", {"backbone": "resnet18"}),
    "ReverseDistillation, wide_resnet50_2": (
        "ReverseDistillation",
        {"backbone": "wide_resnet50_2", "layers": ["layer1", "layer2", "layer3"]},
    ),
    "Patchcore, wide_resnet50_2": ("Patchcore", {"backbone": "wide_resnet50_2", "layers": ["layer2", "layer3"]}),
}
VARIANTS = ("torch", "fp32", "fp16", "int8")
SIDE = 256
# Of PatchCore: 1% of the patches of 500 images of 256x256.
_MEMORY_BANK = 5120
_SUPPORT = 4
_GRAPH = "model/model.xml"
# Share of a map that is above its threshold.
_MARKED = 0.02


def file_of(folder: Path, variant: str) -> Path:
    """Where a variant of a model is written."""
    return folder / ("model.pt" if variant == "torch" else f"{variant}/{_GRAPH}")


def prepare(name: str, folder: str) -> None:
    """Write the torch model and the bundles of a model.

    Args:
        name: Of `MODELS`.
        folder: Where to.
    """
    import nncf
    import torch
    from anomalib import models as theirs

    import anomalib_medical
    from anomalib_medical.deploy.graph import raw_graph
    from anomalib_medical.deploy.quantize import floating_point_scope, is_convolutional, with_8_bit_weights

    class_name, arguments = MODELS[name]
    cls = getattr(anomalib_medical, class_name, None) or getattr(theirs, class_name)
    if class_name != "Ddad":
        arguments = arguments | {"pre_trained": False}
    torch.manual_seed(0)
    model = cls(**arguments)
    images = torch.rand(4, 3, SIDE, SIDE)
    with torch.no_grad():
        batch = model.pre_processor.transform(images)
        model.model.train()
        if class_name == "D24fad":
            model.model.encode(batch)
        elif class_name != "Ddad":
            features = model.model(batch)
            if class_name == "Patchcore":
                model.model.memory_bank = torch.rand(_MEMORY_BANK, features.shape[-1])
                model.model.embedding_store.clear()
        model.eval()
        if class_name == "D24fad":
            model.set_support(list(images[:_SUPPORT]))
    torch.save(model, Path(folder) / "model.pt")
    graph = raw_graph(model)
    normals = [torch.rand(1, 3, SIDE, SIDE).numpy() for _ in range(20)]
    for variant in VARIANTS[1:]:
        # Without the control of accuracy, which has nothing to hold on to in scores of untrained networks.
        chosen = graph
        if variant == "int8":
            chosen = with_8_bit_weights(graph)
            if is_convolutional(graph):
                calibration, scope = nncf.Dataset(normals), floating_point_scope(graph)
                chosen = nncf.quantize(graph.clone(), calibration, subset_size=len(normals), ignored_scope=scope)
        write_bundle(Path(folder) / variant, chosen, class_name, variant)


def write_bundle(folder: Path, graph: Any, name: str, precision: str) -> None:  # noqa: ANN401 - OpenVINO has no types
    """Write graph, runtime and manifest, with thresholds that some of every image is above: it has to be outlined."""
    from dataclasses import replace

    import numpy as np
    import openvino

    from anomalib_medical.deploy.bundle import copy_runtime
    from anomalib_medical.deploy.self_test import NAME, write_self_test_image
    from anomalib_medical.edge import manifest as facts
    from anomalib_medical.edge.predictor import GraphScorer
    from anomalib_medical.io import read_pixels

    (folder / _GRAPH).parent.mkdir(parents=True)
    openvino.save_model(graph, folder / _GRAPH, compress_to_fp16=precision == "fp16")
    copy_runtime(folder)
    noise = np.stack([read_pixels(write_self_test_image(folder))] * 3)
    score, values = GraphScorer(folder / _GRAPH).score(noise)
    assert values is not None  # all of MODELS have maps
    pixel = np.quantile(values, [1 - _MARKED, 0, 1]).tolist()
    made = facts.Manifest(
        created="",
        model=facts.ModelFacts(name),
        precision=precision,
        post_processing=facts.PostProcessing(
            "softsign",
            facts.Calibration(score, 0.9 * score, 1.1 * score, 0.5),
            facts.Calibration(*pixel, limit=0.5),
        ),
        reading=facts.Reading(),
        self_test=facts.SelfTest(NAME, score, 0.5, abs(score)),
    )
    replace(made, files=facts.hash_files(folder)).write(folder)
