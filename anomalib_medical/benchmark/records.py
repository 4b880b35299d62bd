"""What a run folder says of runs, datasets and jobs. Plain values: `files.build` makes them of JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from anomalib_medical.metrics import PixelCounts

State = Literal["done", "failed", "timeout", "out_of_memory", "disk_full"]


@dataclass(frozen=True)
class PlannedJob:
    """A job of the plan, begun or not."""

    job: str  # its folder's name
    dataset: str  # name in the plan
    model: str  # name in the plan
    label: str  # the model's name for readers, on this dataset
    seed: int
    kind: Literal["trained", "trivial"]


@dataclass(frozen=True)
class RunInfo:
    """Where and how a benchmark ran."""

    name: str
    command: str
    commit: str  # `git describe` of the code, "" if it is no checkout
    versions: dict[str, str]  # package -> version
    machine: dict[str, str]  # processor, cores, memory, accelerator, system; of a cluster the jobs know it
    started: str  # ISO 8601, UTC


@dataclass(frozen=True)
class AuditFinding:
    """Something that the audit found."""

    check: str
    severity: Literal["finding", "note"]  # `finding` is above its limit
    text: str


@dataclass(frozen=True)
class ShortcutResult:
    """How well a number that shows no disease tells normal from abnormal test images."""

    name: str
    auroc: float  # the larger of AUROC and 1 - AUROC
    low: float | None  # of its 95% interval
    high: float | None
    direction: str  # `higher`, `lower` or `learnt`


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset as the jobs see it."""

    dataset: str
    n_train: int  # known normal training images, without those held out
    n_held_out: int  # normal images for the threshold
    n_unlabeled: int
    n_test_normal: int
    n_test_abnormal: int
    n_patients: int | None  # of all parts, None where none are known
    has_masks: bool  # every abnormal test image has one
    findings: list[AuditFinding]
    shortcuts: list[ShortcutResult]  # strongest first


@dataclass(frozen=True)
class JobInfo(PlannedJob):
    """A job as it ran."""

    device: str
    spec: dict[str, Any]  # all settings that its result depends on
    teacher: Literal["file", "hub", "package", "random", "none"] = "none"  # where the teacher's weights came from
    teacher_sha256: str = ""  # of the file
    machine: dict[str, str] = field(default_factory=dict)  # as in `RunInfo`; of jobs on a cluster


@dataclass(frozen=True)
class JobStatus:
    """How a job ended."""

    status: State
    seconds: float  # of the whole job
    message: str = ""  # one sentence, "" if done


@dataclass(frozen=True)
class Thresholds:
    """Thresholds from held-out normal images of the training side, in raw scores and map values."""

    image: float | None
    pixel: float | None
    target_specificity: float  # share of the held-out normals that was to stay below
    n_held_out: int
    source: str  # where they come from, in words
    low: float | None = None  # the range of their scores, which the normalised score is measured in;
    high: float | None = None  # None where there is no normalised score


@dataclass(frozen=True)
class PixelResult:
    """Pixels of the N test images, in the order of their rows in scores.csv."""

    counts: PixelCounts
    true_positive: NDArray[np.float64]  # abnormal pixels above the threshold, (N,); all three nan without a threshold
    false_positive: NDArray[np.float64]
    false_negative: NDArray[np.float64]


@dataclass(frozen=True)
class Latency:
    """Milliseconds for one image, batch 1, pre- and post-processing included."""

    median: float
    p95: float
    repeats: int
    device: str


@dataclass(frozen=True)
class Cost:
    """What a model costs; None where it could not be measured, with the reason in ``not_measured``."""

    train_seconds: float | None = None  # validation left out
    steps: int | None = None
    epochs: int | None = None  # begun
    peak_memory_mib: float | None = None  # resident, of the job's process after scoring and its loading processes
    peak_gpu_mib: float | None = None
    latency: dict[str, Latency] = field(default_factory=dict)  # `torch`, `openvino`
    parameters: int | None = None  # that scoring needs
    model_bytes: int | None = None  # parameters and buffers
    not_measured: dict[str, str] = field(default_factory=dict)  # quantity -> why


@dataclass(frozen=True)
class Weights:
    """The last weights of a training."""

    file: str  # from the job's folder; an absolute path where the plan names a folder for them
    model: str  # its class, as `bundle` takes it
    size: int  # bytes
    reading: list[str]  # options of `bundle` that say how files were read


@dataclass(frozen=True)
class GalleryEntry:
    """A picture of image, heatmap and, where there is one, mask, side by side."""

    path_hash: str  # as in scores.csv
    file: str  # name of the PNG in `gallery/`
    kind: Literal["highest", "lowest"]  # of its class
    label: int  # 1 for abnormal
    raw_score: float


@dataclass(frozen=True)
class Job:
    """All that a job says when it has ended, well or not; what it did not get to is None or empty."""

    status: JobStatus
    info: JobInfo | None = None
    thresholds: Thresholds | None = None
    cost: Cost | None = None
    weights: Weights | None = None  # None if they were not kept
    gallery: list[GalleryEntry] = field(default_factory=list)
    epochs: list[dict[str, float]] = field(default_factory=list)  # epoch, seconds, image_auroc; `protocol: published`
    data: DatasetInfo | None = None  # of the check of a dataset
    # Of a published copy, which holds no pixels: metric -> value, and the ends of the interval of the model's mean.
    pixel_figures: dict[str, list[float | None]] = field(default_factory=dict)
