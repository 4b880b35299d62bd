"""What a run folder says of runs, datasets and jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anomalib_medical.metrics import PixelCounts

State = Literal["done", "failed", "timeout", "out_of_memory"]


@dataclass(frozen=True)
class RunInfo:
    """Where and how a benchmark ran.

    Attributes:
        name: The plan's name.
        command: The command line.
        commit: ``git describe`` of the code, "" if it is no checkout.
        versions: Package -> version.
        machine: Processor, cores, memory, accelerator, system.
        started: ISO 8601, UTC.
    """

    name: str
    command: str
    commit: str
    versions: dict[str, str]
    machine: dict[str, str]
    started: str


@dataclass(frozen=True)
class AuditFinding:
    """Something that the audit found.

    Attributes:
        check: What was looked at.
        severity: ``finding`` (above its limit) or ``note``.
        text: One sentence.
    """

    check: str
    severity: Literal["finding", "note"]
    text: str


@dataclass(frozen=True)
class ShortcutResult:
    """How well a number that shows no disease tells normal from abnormal test images.

    Attributes:
        name: The number, or the metadata column.
        auroc: The larger of AUROC and 1 - AUROC.
        low: Lower end of the 95% interval, None where the data allow none.
        high: Upper end.
        direction: ``higher``, ``lower`` or ``learnt``.
    """

    name: str
    auroc: float
    low: float | None
    high: float | None
    direction: str


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as the jobs see it.

    Attributes:
        dataset: Its name in the plan.
        n_train: Known normal training images, without those held out.
        n_held_out: Normal images held out for the threshold.
        n_unlabeled: Images of the unlabeled pool.
        n_test_normal: Normal test images.
        n_test_abnormal: Abnormal test images.
        n_patients: Patients of all parts, None where none are known.
        has_masks: Whether every abnormal test image has a mask.
        findings: What the audit found.
        shortcuts: Strongest first.
    """

    dataset: str
    n_train: int
    n_held_out: int
    n_unlabeled: int
    n_test_normal: int
    n_test_abnormal: int
    n_patients: int | None
    has_masks: bool
    findings: list[AuditFinding]
    shortcuts: list[ShortcutResult]


@dataclass(frozen=True)
class JobInfo:
    """What a job is.

    Attributes:
        job: Its folder's name.
        dataset: The dataset's name in the plan.
        model: The model's name in the plan.
        label: The model's name for readers.
        seed: Its seed.
        protocol: ``clean`` or ``published``.
        kind: ``trained`` or ``trivial``.
        device: ``cpu``, ``cuda:0``, ...
        teacher_sha256: Of the teacher's weights; "" with random or other ones, whatever ``teacher`` says.
        teacher: ``file``, ``hub``, ``random`` or ``none`` (the model has no teacher).
        spec: All settings: class_path, init_args, trainer, backbone, image_size, batch_size, minutes, ...
    """

    job: str
    dataset: str
    model: str
    label: str
    seed: int
    protocol: Literal["clean", "published"]
    kind: Literal["trained", "trivial"]
    device: str
    teacher_sha256: str
    teacher: Literal["file", "hub", "random", "none"]
    spec: dict[str, Any]


@dataclass(frozen=True)
class JobStatus:
    """How a job ended.

    Attributes:
        status: ``done`` or what went wrong.
        seconds: Wall-clock time of the whole job.
        message: One sentence, "" if done.
    """

    status: State
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class Thresholds:
    """Thresholds from held-out normal images of the training side.

    Attributes:
        image: Raw image score above which an image is called abnormal, None without one.
        pixel: Raw map value above which a pixel is marked, None without maps.
        target_specificity: Share of the held-out normals that was to stay below.
        n_held_out: Their number.
        source: Where they come from, in words.
    """

    image: float | None
    pixel: float | None
    target_specificity: float
    n_held_out: int
    source: str


@dataclass(frozen=True)
class PixelResult:
    """Pixels of the N test images, in the order of their rows in scores.csv.

    Attributes:
        counts: Pixels in score bins.
        true_positive: Abnormal pixels above the pixel threshold, ``(N,)``; all three are nan without a threshold.
        false_positive: Normal pixels above it, ``(N,)``.
        false_negative: Abnormal pixels not above it, ``(N,)``.
    """

    counts: PixelCounts
    true_positive: NDArray[np.float64]
    false_positive: NDArray[np.float64]
    false_negative: NDArray[np.float64]


@dataclass(frozen=True)
class Faults:
    """Scores as published code computes them, in the order of the test rows of scores.csv.

    Attributes:
        sigma: Of the Gaussian, in pixels of the map.
        batch: Images a batch, in class order.
        batch_blur_scores: Maximum of the maps after a Gaussian over ``(B, H, W)``, which mixes neighbours in the batch.
        image_blur_scores: The same after a Gaussian over ``(H, W)``: the difference is the fault.
    """

    sigma: float
    batch: int
    batch_blur_scores: list[float]
    image_blur_scores: list[float]


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image, batch 1, pre- and post-processing included.

    Attributes:
        median: Of all repeats.
        p95: 95th percentile.
        repeats: Number of timed repeats.
        device: Where it ran.
    """

    median: float
    p95: float
    repeats: int
    device: str


@dataclass(frozen=True)
class Cost:
    """What a model costs; None where it could not be measured, with the reason in ``not_measured``.

    Attributes:
        train_seconds: Wall clock of the training, validation left out.
        steps: Optimizer steps.
        epochs: Epochs begun.
        peak_memory_mib: Largest resident memory of the job's process after scoring, and its loading processes.
        peak_gpu_mib: Largest GPU memory allocated.
        latency: ``torch``, ``openvino`` -> latency.
        parameters: Parameters that scoring needs.
        model_bytes: Size of parameters and buffers.
        not_measured: Quantity -> why not.
    """

    train_seconds: float | None = None
    steps: int | None = None
    epochs: int | None = None
    peak_memory_mib: float | None = None
    peak_gpu_mib: float | None = None
    latency: dict[str, Latency] = field(default_factory=dict)
    parameters: int | None = None
    model_bytes: int | None = None
    not_measured: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Weights:
    """The last weights of a training.

    Attributes:
        file: The checkpoint, from the job's folder; an absolute path where the plan names a folder for them.
        model: Its class, as ``bundle`` takes it.
        size: Bytes.
        reading: Options of ``bundle`` that say how files were read.
    """

    file: str
    model: str
    size: int
    reading: list[str]


@dataclass(frozen=True)
class GalleryEntry:
    """A picture of image, heatmap and, where there is one, mask, side by side.

    Attributes:
        path_hash: As in scores.csv.
        file: Name of the PNG in ``gallery/``.
        kind: ``highest`` or ``lowest`` of its class. Files of 0.1.0 have four other words, none of which looked at
            the threshold: those with ``positive`` at their end were the highest.
        label: 1 for abnormal.
        raw_score: The image's score.
    """

    path_hash: str
    file: str
    kind: str
    label: int
    raw_score: float
