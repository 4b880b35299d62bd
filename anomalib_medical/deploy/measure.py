"""What a bundle is worth on a test set: AUROC with its interval, and what its precision costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from tqdm import tqdm

from anomalib_medical.data import MedicalDataset, MedicalFolder, MedicalPredictDataset, make_medical_folder_dataset
from anomalib_medical.edge.manifest import PostProcessing, Reading
from anomalib_medical.edge.predictor import GraphScorer
from anomalib_medical.edge.scores import raw_threshold
from anomalib_medical.io import Window
from anomalib_medical.metrics import Estimate, image_auroc


@dataclass(frozen=True)
class Measured:
    """Raw scores of a graph, and of its FP32 original, on labelled images."""

    normal: int  # number of images
    abnormal: int
    auroc: Estimate
    auroc_fp32: Estimate
    largest_difference: float  # of raw scores, between both
    mean_difference: float
    specificity: float | None  # share of normal images not above the threshold; None without one
    sensitivity: float | None  # share of abnormal images above it


def measure(graph: Path, fp32: openvino.Model, data: MedicalFolder, post_processing: PostProcessing) -> Measured:
    """Score the test images with the bundle's ``.xml`` and with the graph before its precision was changed."""
    test = data.test_data
    scorers = GraphScorer(graph), GraphScorer(fp32)
    scores = np.array(
        [
            [scorer.score(np.asarray(test[index].image))[0] for scorer in scorers]
            for index in tqdm(range(len(test)), desc="Scoring the test images", disable=None)
        ]
    )
    labels = test.samples.label_index.to_numpy().astype(int)
    patients = [str(patient) for patient in test.samples.patient_id]
    threshold = raw_threshold(post_processing.image, post_processing.normalization)
    return summarize(scores[:, 0], scores[:, 1], labels, patients, threshold)


def summarize(
    scores: NDArray[np.float64],
    scores_fp32: NDArray[np.float64],
    labels: NDArray[np.int_],
    patients: list[str],
    threshold: float | None,
) -> Measured:
    """Compare raw scores ``(N,)`` of two graphs, given labels ``(N,)``, 1 for abnormal."""
    difference = np.abs(scores - scores_fp32)
    above = scores > (np.nan if threshold is None else threshold)
    return Measured(
        normal=int((labels == 0).sum()),
        abnormal=int((labels == 1).sum()),
        auroc=image_auroc(scores, labels, patients),
        auroc_fp32=image_auroc(scores_fp32, labels, patients),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        specificity=None if threshold is None else float((~above[labels == 0]).mean()),
        sensitivity=None if threshold is None else float(above[labels == 1].mean()),
    )


def open_test_data(
    data: Path,
    reading: Reading,
    manifest_root: Path | None = None,
    **options: Any,  # noqa: ANN401 # MedicalFolder's own
) -> MedicalFolder:
    """Find test images in a folder in the layout of `MedicalFolder`, or in its manifest, read as the bundle does."""
    manifest, root = _manifest(data, manifest_root)
    module = MedicalFolder(
        root=root,
        name=data.resolve().stem if manifest else None,
        manifest=manifest,
        window=reading.window,
        axis=reading.axis,
        slice_range=reading.slice_range,
        num_workers=0,
        **options,
    )
    module.prepare_data()
    module.setup()
    return module


def open_normals(
    data: Path, reading: Reading, manifest_root: Path | None = None
) -> MedicalPredictDataset | MedicalDataset:
    """Find normal images: all of a folder, or those of a manifest that are in its splits train and val."""
    window = Window.of(reading.window)
    manifest, root = _manifest(data, manifest_root)
    if manifest is None or data.suffix.lower() != ".csv":
        return MedicalPredictDataset(data, window, reading.slicing)
    samples = make_medical_folder_dataset(root, manifest=manifest, slicing=reading.slicing)
    return MedicalDataset(samples[samples.split.isin(["train", "val"])], window=window)


def _manifest(data: Path, root: Path | None) -> tuple[Path | None, Path]:
    """The manifest, None if a folder was given, and the folder that its paths are relative to."""
    return (data, root or data.parent) if data.is_file() else (None, data)
