"""Bundles made by hand, and the runtime in them run as on a device."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import openvino
import torch
from PIL import Image

from anomalib_medical import Scrd
from anomalib_medical.data.images import read_image
from anomalib_medical.deploy.bundle import copy_runtime
from anomalib_medical.edge.manifest import Manifest, ModelFacts, Reading, SelfTest, hash_files
from anomalib_medical.edge.scores import normalize
from anomalib_medical.post_processing import device_facts
from tests.helpers.exports import compiled

MISSING = ("torch", "torchvision", "anomalib", "anomalib_medical", "lightning", "timm", "pandas", "cv2", "scipy")
_SITE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {missing!r}:
            raise ModuleNotFoundError(name + " is not on this device", name=name.partition(".")[0])

sys.meta_path.insert(0, Missing())
"""


def trained_model(scores=(1.6, 1.65, 1.685)) -> Scrd:
    """An untrained model with a threshold, which scores as a trained one does."""
    model = Scrd(backbone="resnet18", image_size=64, pre_trained=False, seed=0).eval()
    values = torch.tensor(scores)
    # Among the scores of noise, so that there are normal and abnormal images.
    model.post_processor.calibrate(values, values * 0.9, values * 1.02)
    return model


def write_bundle(folder: Path, model, **reading) -> Path:
    """Make a bundle of a model without a support."""
    (folder / "model").mkdir(parents=True)
    post_processor, model.post_processor = model.post_processor, None
    exported = model.to_openvino(folder / "export")
    model.post_processor = post_processor
    openvino.save_model(openvino.Core().read_model(exported), folder / "model" / "model.xml", compress_to_fp16=False)
    for path in sorted((folder / "export").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (folder / "export").rmdir()
    (folder / "self_test").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (90, 70), np.uint8)
    Image.fromarray(noise).save(folder / "self_test" / "noise.png")
    copy_runtime(folder)
    image = read_image(folder / "self_test" / "noise.png")
    raw = float(np.squeeze(compiled(folder / "model" / "model.xml")(image[None].numpy())["pred_score"]))
    facts = device_facts(model.post_processor)
    score = float(normalize(np.asarray([raw], np.float32), facts.image, facts.normalization)[0])
    manifest = Manifest(
        created="2026-01-02T03:04:05+00:00",
        model=ModelFacts(type(model).__name__, (64, 64)),
        precision="fp32",
        post_processing=facts,
        reading=Reading(**reading),
        self_test=SelfTest("self_test/noise.png", raw, score, 1e-4),
    )
    replace(manifest, files=hash_files(folder)).write(folder)
    return folder


def device_environment(folder: Path, missing=MISSING) -> dict[str, str]:
    """Environment of a process in which what a device lacks cannot be imported."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(_SITE.format(missing=tuple(missing)))
    keep = {key: os.environ[key] for key in ("PATH", "HOME", "TMPDIR", "OMP_NUM_THREADS") if key in os.environ}
    return keep | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}


def on_device(
    bundle: Path,
    *arguments: object,
    missing=MISSING,
    compiled_files=False,
    launcher=("-m", "edge"),
    variables: Mapping[str, str] | None = None,
    **settings,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m edge` in a bundle."""
    environment = device_environment(bundle.parent / "site", missing) | dict(variables or {})
    if compiled_files:
        del environment["PYTHONDONTWRITEBYTECODE"]
    return subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        cwd=bundle,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **settings,
    )
