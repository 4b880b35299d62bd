"""Few-shot models: another support set, bound and calibrated on the device, and kept there."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ..io import counted, list_folder, picture_sha256, sha256
from . import EdgeError
from .few_shot_device import FewShotDevice
from .manifest import Calibration, Manifest, PostProcessing, Reading
from .predictor import MODEL, GraphScorer, Predictor
from .reading import Picture, read_file
from .results import write_atomically
from .scores import order_statistic

logger = logging.getLogger("edge")

FILE = "support/support.npz"
_FACTS = "facts"
_SPECIFICITY = 0.95
Image = NDArray[np.float32]


@dataclass(frozen=True)
class SupportFacts:
    """What is kept of a support beside its features; no name of a file."""

    images: list[str]  # SHA-256 of each support image's file
    normals: int  # number of images behind the threshold; 0 if each support image was compared with the others
    scorer: str  # SHA-256 of the graph that it was encoded for
    post_processing: PostProcessing


def make_predictor(bundle: Path, manifest: Manifest, *, many: bool = False) -> tuple[Predictor, SupportFacts | None]:
    """Open the model, to score `many` images or each the soonest: with the support that was bound here, if one was."""
    geometry = manifest.model.geometry
    if not (manifest.model.few_shot and (bundle / FILE).exists()):
        graph = GraphScorer(bundle / MODEL, many=many)
        return Predictor(graph, manifest.post_processing, graph.workers, geometry), None
    facts, encoded = _load(bundle)
    device = FewShotDevice(bundle / "model")
    device.restore(encoded)
    return Predictor(device, facts.post_processing, geometry=geometry), facts


def bind_support(bundle: Path, manifest: Manifest, folder: Path, normals: Path | None, *, again: bool) -> SupportFacts:
    """Encode a folder of normal images, take thresholds from others, and keep both in the bundle.

    Without other normals each support image is compared with the others; `again` replaces what was bound before.
    """
    if not manifest.model.few_shot:
        msg = f"This bundle's model, {manifest.model.name}, compares with no support set: only D24fad binds one."
        raise EdgeError(msg)
    target = bundle / FILE
    if target.exists() and not again:
        msg = "A support set is bound already, and runs use it. Give --replace to bind this one in its place."
        raise EdgeError(msg)
    digests, support = _read(folder, manifest.reading, "support")
    others_digests, others = ([], None) if normals is None else _read(normals, manifest.reading, "--normals")
    if repeated := set(digests).intersection(others_digests):
        images = counted(len(repeated), "image")
        msg = f"In --normals and in the support: {images}, whose scores say nothing. Take them out."
        raise EdgeError(msg)
    if others is None and len(support) < 2:
        msg = "Got 1 support image and no --normals: give others for the threshold, or 2 support images or more."
        raise EdgeError(msg)
    device = FewShotDevice(bundle / "model")
    device.bind(support)
    scores = device.score_normals(others)
    trained = manifest.post_processing
    share = trained.target_specificity or _SPECIFICITY
    # The sensitivity that was trained with holds for the new thresholds too.
    kept = trained.normalization == "softsign"
    limits = (trained.image.limit, trained.pixel.limit) if kept else (0.5, 0.5)
    # As MedicalPostProcessor sets them, at a share of normal images.
    image = Calibration(order_statistic(scores.scores, share), min(scores.scores), max(scores.scores), limits[0])
    minimum, maximum = min(scores.map_minima), max(scores.map_maxima)
    pixel = Calibration(order_statistic(scores.map_maxima, share), minimum, maximum, limits[1])
    facts = SupportFacts(
        images=digests,
        normals=len(others or ()),
        scorer=_scorer_digest(bundle),
        post_processing=PostProcessing("softsign", image, pixel, share, "specificity", len(scores.scores)),
    )
    content = io.BytesIO()
    arrays: dict[str, NDArray[Any]] = dict(device.encoded)
    arrays[_FACTS] = np.frombuffer(json.dumps(asdict(facts)).encode(), np.uint8)
    np.savez(content, allow_pickle=False, **arrays)
    target.parent.mkdir(exist_ok=True)
    write_atomically(target, content.getvalue())
    return facts


def _load(bundle: Path) -> tuple[SupportFacts, dict[str, Image]]:
    fault = ""
    try:
        with np.load(bundle / FILE, allow_pickle=False) as file:
            encoded = {name: file[name] for name in file.files if name != _FACTS}
            content = json.loads(file[_FACTS].tobytes())
        facts = SupportFacts(**content | {"post_processing": PostProcessing.of(content["post_processing"])})
        if facts.scorer == _scorer_digest(bundle):
            return facts, encoded
        fault = "of another model"
    except (BadZipFile, EOFError, KeyError, OSError, TypeError, ValueError) as error:
        fault = f"damaged ({type(error).__name__})"
    msg = (
        f"The support set that was bound on this device is {fault}. Bind it again: python -m edge support FOLDER "
        "--replace"
    )
    raise EdgeError(msg)


def _scorer_digest(bundle: Path) -> str:
    return sha256(bundle / "model" / "query_scorer.bin")


def _read(folder: Path, reading: Reading, what: str) -> tuple[list[str], list[Image]]:
    """Digests and pixels of all pictures; a file that fails is named by its number: its name may say who it is of."""
    listing = list_folder(folder)
    left_out = listing.left_out(names=False)
    digests, images = [], []
    files = tqdm(listing.images, desc=f"Reading {what}", unit="image", disable=None)
    for number, path in enumerate(files, start=1):
        for event in read_file(path, reading):
            if isinstance(event, Picture):
                digests.append(picture_sha256(event.address))
                images.append(event.pixels)
            elif event is not None:
                result = event
        if result.reason:
            msg = f"{what}: image {number}, in the order of their names, cannot be read: {result.reason}"
            raise EdgeError(msg)
    if not images:
        found = "no image in it" if folder.is_dir() else "no such folder"
        msg = f"{what}: found {found}, expected a folder with normal images of the new organ. {left_out}".strip()
        raise EdgeError(msg)
    if left_out:
        logger.warning("%s: %s", what, left_out)
    return digests, images
