"""Reads a run folder into what the report is about: datasets, models, trainings, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from pandas import DataFrame

from anomalib_medical.benchmark.files import RunFolderError, mapping
from anomalib_medical.benchmark.records import Cost, DatasetInfo, Faults, JobInfo, PixelResult, RunInfo, Thresholds
from anomalib_medical.benchmark.report.missing import PlannedJob, Problem, planned_job
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.io import agree, counted
from anomalib_medical.metrics.arrays import FloatArray, IntArray

METADATA = "meta_"
NOT_MEASURED = "not measured"
NOT_BEGUN = "not begun"


@dataclass(frozen=True)
class Training:
    """One finished job: a model trained on a dataset with one seed, and its scores of the test images.

    Attributes:
        info: What the job is.
        folder: Its files.
        test: Rows of the N test images.
        thresholds: From held-out normals, None if there are none.
        pixels: Pixels of the test images, None without masks or maps.
        faults: Blurred scores, None without maps.
        epochs: Test scores of the epochs, None unless the protocol is ``published``.
        cost: What it cost, None if it was not written.
    """

    info: JobInfo
    folder: JobFolder
    test: DataFrame
    thresholds: Thresholds | None
    pixels: PixelResult | None
    faults: Faults | None
    epochs: DataFrame | None
    cost: Cost | None

    @property
    def scores(self) -> FloatArray:
        """Raw scores ``(N,)``."""
        return self.test.raw_score.to_numpy(dtype=np.float64)

    @property
    def normalised(self) -> FloatArray:
        """Normalised scores ``(N,)``, nan without normalisation."""
        return self.test.score.to_numpy(dtype=np.float64)

    @property
    def labels(self) -> IntArray:
        """Labels ``(N,)``, 1 for abnormal."""
        return self.test.label.to_numpy(dtype=np.intp)

    @property
    def patients(self) -> list[str] | None:
        """Hash of each image's patient; None unless all are known."""
        return list(self.test.patient_hash) if (self.test.patient_hash != "").all() else None

    def take(self, rows: IntArray) -> Training:
        """Keep some of the test images, in the given order."""
        pixels, faults = self.pixels, self.faults
        if pixels is not None:
            counts = replace(pixels.counts, **{name: values[rows] for name, values in vars(pixels.counts).items()})
            rest = {name: values[rows] for name, values in vars(pixels).items() if name != "counts"}
            pixels = PixelResult(counts, **rest)
        if faults is not None:
            faults = replace(
                faults,
                batch_blur_scores=[faults.batch_blur_scores[row] for row in rows],
                image_blur_scores=[faults.image_blur_scores[row] for row in rows],
            )
        return replace(self, test=self.test.iloc[rows].reset_index(drop=True), pixels=pixels, faults=faults)


@dataclass(frozen=True)
class Model:
    """A model on a dataset; its trainings have the same test images in the same order."""

    name: str
    label: str
    kind: str
    trainings: list[Training]

    @property
    def first(self) -> Training:
        """The training that pictures and curves of one training are of."""
        return self.trainings[0]


@dataclass(frozen=True)
class Dataset:
    """A dataset and the models with scores on it, in the order of the plan, trivial ones last."""

    name: str
    info: DatasetInfo | None
    models: list[Model]


@dataclass(frozen=True)
class Run:
    """All that a run folder holds.

    Attributes:
        info: Where and how it ran.
        plan: The resolved plan.
        datasets: In the order of the plan.
        problems: What went wrong.
        planned: All jobs of the plan, in its order.
    """

    info: RunInfo
    plan: dict[str, object]
    datasets: list[Dataset]
    problems: list[Problem] = field(default_factory=list)
    planned: list[PlannedJob] = field(default_factory=list)

    @property
    def n_done(self) -> int:
        """Number of jobs with results."""
        return sum(not job.missing for job in self.planned)

    @property
    def seconds(self) -> float:
        """Wall clock of the jobs with results, one after the other."""
        trainings = [each for dataset in self.datasets for model in dataset.models for each in model.trainings]
        return sum(status.seconds for each in trainings if (status := each.folder.status) is not None)


def load_run(folder: RunFolder) -> Run:
    """Read a run folder; a job that cannot be read becomes a problem.

    Raises:
        RunFolderError: If the folder is none, or its plan cannot be read.
    """
    info, plan = folder.info, folder.plan
    problems: list[Problem] = []
    trainings: list[Training] = []
    planned: list[PlannedJob] = []
    for name in folder.planned_jobs:
        try:
            found = _load_job(folder.job(name))
        except RunFolderError as error:
            found = Problem(name, "unreadable", str(error))
        if isinstance(found, Problem):
            problems.append(found)
        else:
            trainings.append(found)
            problems += _not_measured(found)
        planned.append(planned_job(name, plan, found.what if isinstance(found, Problem) else ""))
    names = dict.fromkeys([*mapping(plan.get("datasets")), *(each.info.dataset for each in trainings)])
    datasets = []
    for name in names:
        models = _models([each for each in trainings if each.info.dataset == name], problems)
        datasets.append(Dataset(name, _dataset_info(folder, name, problems), models))
    problems.sort(key=lambda problem: problem.what == NOT_MEASURED)
    return Run(info, plan, datasets, problems, planned)


def align(trainings: Sequence[Training]) -> list[Training] | None:
    """Bring trainings to the test images that all have, in the order of the first; None if there are none.

    A model that takes some test images as support, say, has fewer than the others.
    """
    keys = [list(each.test.path_hash) for each in trainings]
    if all(key == keys[0] for key in keys):
        return list(trainings)
    if any(len(set(key)) < len(key) for key in keys):
        return None
    shared = set.intersection(*map(set, keys))
    order = [key for key in keys[0] if key in shared]
    if not order:
        return None
    places = [{name: row for row, name in enumerate(key)} for key in keys]
    return [
        each.take(np.array([place[name] for name in order], dtype=np.intp))
        for each, place in zip(trainings, places, strict=True)
    ]


def _load_job(job: JobFolder) -> Training | Problem:
    """Read a job, or say why there is nothing to read."""
    name = job.path.name
    if not (job.path / "job.json").exists():
        return Problem(name, NOT_BEGUN, "The job has not begun: run the benchmark again to continue.")
    info, status = job.info, job.status
    if status is None:
        return Problem(name, "not finished", "The job is running or was interrupted: run the benchmark again.")
    if status.status != "done":
        return Problem(name, status.status.replace("_", " "), status.message or "no message")
    table = job.scores()
    test = table[table.split == "test"].reset_index(drop=True)
    bad = int(test.raw_score.isna().sum() + np.isinf(test.raw_score).sum())
    if bad or test.empty:
        text = f"{bad} of {counted(len(test), 'test score')} {agree(bad, 'is', 'are')} NaN or infinite."
        return Problem(name, "scores are NaN", text) if bad else Problem(name, "no scores", "There are no test scores.")
    thresholds = job.thresholds if (job.path / "thresholds.json").exists() else None
    cost = job.cost if (job.path / "cost.json").exists() else None
    return Training(info, job, test, thresholds, job.pixels(), job.faults, job.epochs, cost)


def _not_measured(training: Training) -> list[Problem]:
    """Costs that could not be measured, less what no trivial score has."""
    if training.cost is None or training.info.kind == "trivial":
        return []
    reasons: dict[str, list[str]] = {}
    for quantity, why in training.cost.not_measured.items():
        reasons.setdefault(why, []).append(quantity)
    return [Problem(training.info.job, NOT_MEASURED, f"{', '.join(what)}: {why}") for why, what in reasons.items()]


def _models(trainings: list[Training], problems: list[Problem]) -> list[Model]:
    models = []
    for name in dict.fromkeys(each.info.model for each in trainings):
        own = [each for each in trainings if each.info.model == name]
        aligned = align(own)
        if aligned is None:
            text = "The seeds were tested on different images: only the first is reported."
            problems.append(Problem(own[1].info.job, "left out", text))
            aligned = own[:1]
        models.append(Model(name, own[0].info.label or name, own[0].info.kind, aligned))
    return sorted(models, key=lambda model: model.kind == "trivial")


def _dataset_info(folder: RunFolder, name: str, problems: list[Problem]) -> DatasetInfo | None:
    try:
        info = folder.dataset(name)
    except RunFolderError as error:
        problems.append(Problem(name, "unreadable", str(error)))
        return None
    if info is None:
        problems.append(Problem(name, "not checked", "The dataset's check has not finished: no audit, no shortcuts."))
    return info
