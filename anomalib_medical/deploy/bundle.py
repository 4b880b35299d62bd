"""A folder for a device without torch: graph, thresholds, runtime, self-test, model card and a manifest of it all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openvino
from anomalib.models.components import AnomalibModule
from numpy.typing import NDArray

from anomalib_medical import __version__, edge, io
from anomalib_medical.data import MedicalFolder
from anomalib_medical.data.geometry import model_steps
from anomalib_medical.data.images import read_image
from anomalib_medical.edge.manifest import Manifest, ModelFacts, SelfTest, hash_files
from anomalib_medical.edge.predictor import MODEL, GraphScorer
from anomalib_medical.edge.scores import normalize
from anomalib_medical.errors import MedicalError
from anomalib_medical.models import D24fad
from anomalib_medical.models.components import MapScore
from anomalib_medical.post_processing import device_facts

from .checkpoint import load_model
from .documents import CardFacts, model_card, readme
from .few_shot_graphs import export_edge
from .graph import raw_graph
from .measure import measure, open_normals, open_test_data
from .quantize import NormalImages, check_quantizable, quantize
from .request import BundleRequest, Precision
from .sbom import write_sbom
from .self_test import NAME as SELF_TEST_IMAGE
from .self_test import TOLERANCE, difference_to_engine, write_self_test_image

# Of MedicalFolder.
_TEST_OPTIONS = ("patient_pattern", "patient_from", "mask_labels", "mask_threshold")
_HERE = Path(__file__).parent
# Share of the raw score by which another processor may differ: 8-bit convolutions add up in an order of their own.
_TOLERANCES: dict[Precision, float] = {"fp32": TOLERANCE, "fp16": TOLERANCE, "int8": 2e-2}


def make_bundle(request: BundleRequest) -> Manifest:
    """Write a bundle, whole or not at all; returns its manifest."""
    output = request.output
    _check_output(output)
    # What can be wrong is found before minutes of exporting.
    normals = _normals(request)
    data = None
    if request.test_data is not None:
        options = {name: getattr(request, name) for name in _TEST_OPTIONS}
        data = open_test_data(request.test_data, request.reading, request.manifest_root, **options)
    model = load_model(request.ckpt_path, request.model)
    check_model(model)
    output.parent.mkdir(parents=True, exist_ok=True)
    # Beside the output, so that renaming is one step; a failure leaves nothing behind.
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}-") as temporary:
        folder = Path(temporary) / output.name
        manifest = _fill(folder, model, request, normals, data)
        _check_output(output)
        folder.rename(output)
    return manifest


def check_model(model: AnomalibModule) -> None:
    """Refuse a model whose pre-processing is not known, and a few-shot model that has nothing to compare with."""
    steps = model_steps(model)
    if any(step.kind == "resize_longer" or step.kind == "resize_shorter" and len(step.sizes) > 1 for step in steps):
        msg = f"{type(model).__name__} resizes with max_size, which no graph does: train without."
        raise MedicalError(msg)
    support = getattr(model.model, "support", None)
    if support is not None and len(support) == 0:
        msg = (
            f"The checkpoint of {type(model).__name__} has no support set, so it cannot score anything yet: make a "
            "checkpoint with one by `anomalib-medical retarget`, and bundle that."
        )
        raise MedicalError(msg)


def copy_runtime(bundle: Path) -> None:
    """Put the packages `edge` and `io` into a bundle, as they are, and the file that ``python -m edge`` runs."""
    target = bundle / "runtime"
    for package in (edge, io):
        source = Path(package.__path__[0])
        shutil.copytree(source, target / source.name, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "__init__.py").touch()
    shutil.copy(_HERE / "templates" / "edge.py", bundle)


def _check_output(output: Path) -> None:
    if output.exists() or output.is_symlink():
        msg = f"{output} is there already, and nothing is overwritten: choose another --output."
        raise MedicalError(msg)


def _normals(request: BundleRequest) -> Sequence[NDArray[np.float32]] | None:
    if request.precision != "int8":
        return None
    if request.normals is None:
        msg = (
            "INT8 is calibrated with normal images: give --normals, a folder or manifest of those of training or "
            "validation, not of a test."
        )
        raise MedicalError(msg)
    images = NormalImages(open_normals(request.normals, request.reading, request.manifest_root))
    check_quantizable(len(images))
    return images


def _fill(
    folder: Path,
    model: AnomalibModule,
    request: BundleRequest,
    normals: Sequence[NDArray[np.float32]] | None,
    data: MedicalFolder | None,
) -> Manifest:
    precision = request.precision
    fp32 = raw_graph(model)
    (folder / "model").mkdir(parents=True)
    image = read_image(write_self_test_image(folder))
    post_processing = device_facts(model.post_processor)
    difference = difference_to_engine(model, fp32, post_processing, image)
    quantized = None if normals is None else quantize(fp32, normals)
    graph = fp32 if quantized is None else quantized.graph
    openvino.save_model(graph, folder / MODEL, compress_to_fp16=precision == "fp16")
    if isinstance(model, D24fad):
        export_edge(model, folder / "model", fp16=precision == "fp16")
    copy_runtime(folder)
    for name in ("requirements.txt", "requirements-serve.txt"):
        shutil.copy(_HERE / name, folder)
    # The file on the device is scored, not the graph in memory: half precision comes with saving.
    scorer = GraphScorer(folder / MODEL)
    raw_score, _ = scorer.score(image.numpy())
    score = normalize(np.asarray(raw_score, np.float32), post_processing.image, post_processing.normalization)
    steps = model_steps(model)
    size = next(((step.sizes[0], step.sizes[1]) for step in steps if step.kind == "resize"), None)
    manifest = Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=ModelFacts(type(model).__name__, size, scorer.has_map, isinstance(model, D24fad), steps),
        precision=precision,
        post_processing=post_processing,
        reading=request.reading,
        self_test=SelfTest(SELF_TEST_IMAGE, raw_score, float(score), _TOLERANCES[precision] * max(1, abs(raw_score))),
        versions={name: version(name) for name in ("anomalib", "openvino", "torch")}
        | {"anomalib-medical": __version__},
    )
    map_score = getattr(model.model, "map_score", None)
    facts = CardFacts(
        checkpoint_sha256=io.sha256(request.ckpt_path),
        difference=difference,
        trained_on=request.trained_on,
        teacher=getattr(model, "teacher_source", None),
        score=map_score.describe() if isinstance(map_score, MapScore) else None,
        support_count=len(getattr(model.model, "support", ())),
        quantized=quantized,
        measured=None if data is None else measure(folder / MODEL, fp32, data, post_processing),
        test_name="" if data is None else data.name,
    )
    (folder / "MODEL_CARD.md").write_text(model_card(manifest, facts), encoding="utf-8")
    (folder / "README.md").write_text(readme(manifest), encoding="utf-8")
    shutil.copytree(_HERE / "templates" / "service", folder / "service")
    write_sbom(folder, manifest, facts.checkpoint_sha256)
    manifest = replace(manifest, files=hash_files(folder))
    manifest.write(folder)
    return manifest
