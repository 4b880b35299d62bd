"""What a bundle is worth on a test set: AUROC with its interval, and what its precision costs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from tqdm import tqdm

from anomalib_medical.data import MedicalFolder, MedicalFolderDataset, MedicalPredictDataset
from anomalib_medical.edge.manifest import PostProcessing, Reading
from anomalib_medical.edge.predictor import GraphScorer
from anomalib_medical.edge.scores import raw_threshold
from anomalib_medical.io import Slicing, Window
from anomalib_medical.metrics import Estimate, image_auroc


@dataclass(frozen=True)
class Measured:
    """Raw scores of a graph, and of its FP32 original, on labelled images.

    Attributes:
        normal: Number of normal test images.
        abnormal: Number of abnormal ones.
        auroc: Of the bundle.
        auroc_fp32: Of the FP32 graph.
        largest_difference: Of raw scores, between both.
        mean_difference: Of raw scores, between both.
        specificity: Share of normal images below the threshold; None without a threshold.
        sensitivity: Share of abnormal images above it.
    """

    normal: int
    abnormal: int
    auroc: Estimate
    auroc_fp32: Estimate
    largest_difference: float
    mean_difference: float
    specificity: float | None
    sensitivity: float | None


def measure(
    graph: Path,
    fp32: openvino.Model,
    data: MedicalFolder,
    post_processing: PostProcessing,
) -> Measured:
    """Score the test images with both graphs.

    Args:
        graph: The bundle's ``.xml``.
        fp32: The graph before its weights were compressed.
        data: Test images; its training images are not looked at.
        post_processing: Holds the threshold.

    Raises:
        ValueError: If the test images are not of both kinds.
    """
    test = data.test_data
    labels = test.samples.label_index.to_numpy().astype(int)
    patients = [str(patient) for patient in test.samples.patient_id]
    scorers = GraphScorer(graph), GraphScorer(fp32)
    scores = np.array(
        [
            [scorer.score(np.asarray(test[index].image))[0] for scorer in scorers]
            for index in tqdm(range(len(test)), desc="Scoring the test images")
        ]
    )
    return summarize(
        scores[:, 0],
        scores[:, 1],
        labels,
        patients,
        raw_threshold(post_processing.image, post_processing.normalization),
    )


def summarize(
    scores: NDArray[np.float64],
    scores_fp32: NDArray[np.float64],
    labels: NDArray[np.int_],
    patients: list[str],
    threshold: float | None,
) -> Measured:
    """Compare raw scores ``(N,)`` of two graphs, given labels ``(N,)``, 1 for abnormal."""
    difference = np.abs(scores - scores_fp32)
    abnormal = scores > (np.nan if threshold is None else threshold)
    return Measured(
        normal=int((labels == 0).sum()),
        abnormal=int((labels == 1).sum()),
        auroc=image_auroc(scores, labels, patients),
        auroc_fp32=image_auroc(scores_fp32, labels, patients),
        largest_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        specificity=None if threshold is None else float((~abnormal[labels == 0]).mean()),
        sensitivity=None if threshold is None else float(abnormal[labels == 1].mean()),
    )


def open_test_data(
    data: Path,
    reading: Reading,
    manifest_root: Path | None = None,
    **options: Any,  # noqa: ANN401 # MedicalFolder's own
) -> MedicalFolder:
    """Find the test images of a folder in the layout of ``MedicalFolder``, or of its manifest, read as the bundle does.

    Args:
        data: The folder, or the manifest.
        reading: How the bundle reads.
        manifest_root: Folder that a manifest's paths are relative to, its own if None.
        options: Further arguments of ``MedicalFolder``: who the patients are, and what counts in masks.
    """
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
) -> MedicalPredictDataset | MedicalFolderDataset:
    """Find normal images: all of a folder, or those of a manifest that are in its splits train and val."""
    window, slicing = Window.of(reading.window), Slicing(reading.axis, reading.slice_range)
    manifest, root = _manifest(data, manifest_root)
    if manifest is None or data.suffix.lower() != ".csv":
        return MedicalPredictDataset(data, window, slicing)
    listed = MedicalFolderDataset(root, manifest=manifest, slicing=slicing, window=window)
    return listed.subsample(list(listed.samples.index[listed.samples.split.isin(["train", "val"])]))


def _manifest(data: Path, root: Path | None) -> tuple[Path | None, Path]:
    """Return the manifest, None if a folder was given, and the folder of the images."""
    return (data, root or data.parent) if data.is_file() else (None, data)
