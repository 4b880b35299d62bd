"""Reads a run into what the report is about: datasets, models, trainings, and what is missing."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pandas import DataFrame

from anomalib_medical.benchmark.files import RunFolderError
from anomalib_medical.benchmark.records import DatasetInfo, Job, JobInfo, PixelResult, PlannedJob, RunInfo
from anomalib_medical.benchmark.run_folder import BLUR_COLUMNS, JobFolder, RunFolder
from anomalib_medical.edge.manifest import Calibration
from anomalib_medical.edge.scores import normalize
from anomalib_medical.io import agree, counted
from anomalib_medical.metrics.arrays import FloatArray, IntArray

NOT_MEASURED = "not measured"
_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


_MOST_WRONG = 10  # of each outcome, for readers


@dataclass(frozen=True)
class Problem:
    """Something that failed or could not be measured."""

    job: str  # or jobs, or the dataset
    what: str  # the kind, such as `out of memory`
    text: str  # one sentence


@dataclass(frozen=True)
class Training:
    """One finished job: a model trained on a dataset with one seed, and its scores of N test images."""

    info: JobInfo
    job: Job
    folder: JobFolder
    table: DataFrame  # rows of all images, those held out too
    test: DataFrame  # rows of the test images
    pixels: PixelResult | None  # of the test images, None without masks or maps

    @property
    def scores(self) -> FloatArray:
        """Raw scores ``(N,)``."""
        return self.test.raw_score.to_numpy(dtype=np.float64)

    @property
    def threshold(self) -> float:
        """Raw image threshold from held-out normals; `ValueError` if there is none."""
        if self.job.thresholds is None or self.job.thresholds.image is None:
            msg = "no threshold from held-out normals"
            raise ValueError(msg)
        return self.job.thresholds.image

    @property
    def normalised(self) -> FloatArray:
        """Normalised scores ``(N,)``, as the post-processor gives them; `ValueError` if the model has none."""
        limits = self.job.thresholds
        if limits is None or limits.image is None or limits.low is None or limits.high is None:
            msg = "no normalised scores"
            raise ValueError(msg)
        calibration = Calibration(limits.image, limits.low, limits.high)
        return normalize(self.scores.astype(np.float32), calibration, "softsign").astype(np.float64)

    @property
    def labels(self) -> IntArray:
        """Labels ``(N,)``, 1 for abnormal."""
        return self.test.label.to_numpy(dtype=np.intp)

    @property
    def patients(self) -> list[str] | None:
        """Hash of each image's patient; None unless all are known."""
        return list(self.test.patient_hash) if (self.test.patient_hash != "").all() else None

    @property
    def series(self) -> list[str]:
        """Hash of each image's series or volume; "" of an image of none."""
        return list(self.test.series_hash) if "series_hash" in self.test else [""] * len(self.test)

    @property
    def has_maps(self) -> bool:
        """Whether the model makes anomaly maps."""
        return set(BLUR_COLUMNS) <= set(self.test)

    def take(self, rows: IntArray) -> Training:
        """Keep some of the test images, in the given order."""
        pixels = self.pixels
        if pixels is not None:
            counts = replace(pixels.counts, **{name: values[rows] for name, values in vars(pixels.counts).items()})
            rest = {name: values[rows] for name, values in vars(pixels).items() if name != "counts"}
            pixels = PixelResult(counts, **rest)
        return replace(self, test=self.test.iloc[rows].reset_index(drop=True), pixels=pixels)


@dataclass(frozen=True)
class Model:
    """A model on a dataset; its trainings have the same test images in the same order."""

    name: str
    label: str
    trivial: bool
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
    """All that a run folder holds."""

    info: RunInfo
    plan: dict[str, Any]
    planned: list[PlannedJob]  # all jobs of the plan, in its order
    jobs: dict[str, Job]  # those that have ended, well or not
    missing: dict[str, str]  # job of the plan without results -> why, in a few words
    datasets: list[Dataset]  # in the order of the plan
    problems: list[Problem] = field(default_factory=list)

    @property
    def n_done(self) -> int:
        """Number of jobs with results."""
        return len(self.planned) - len(self.missing)

    @property
    def seconds(self) -> float:
        """Wall clock of the jobs with results, one after the other."""
        return sum(job.status.seconds for name, job in self.jobs.items() if name not in self.missing)

    def of(self, dataset: str) -> list[PlannedJob]:
        """The jobs of the plan on a dataset."""
        return [job for job in self.planned if job.dataset == dataset]


def load_run(folder: RunFolder) -> Run:
    """Read a run; a job that cannot be read becomes a problem, a plan that cannot be read is an error."""
    plan = folder.plan()
    info, planned = folder.read()
    problems: list[Problem] = []
    trainings: list[Training] = []
    jobs: dict[str, Job] = {}
    missing: dict[str, str] = {}
    for each in planned:
        try:
            found = _load_job(each, folder.job(each.job), jobs)
        except RunFolderError as error:
            found = Problem(each.job, "unreadable", str(error))
        if isinstance(found, Problem):
            problems.append(found)
            missing[each.job] = found.what
        else:
            trainings.append(found)
    problems += [problem for each in trainings for problem in _not_measured(each)]
    datasets = []
    for name in dict.fromkeys([*(plan.get("datasets") or ()), *(job.dataset for job in planned)]):
        models = models_of([each for each in trainings if each.info.dataset == name], problems)
        datasets.append(Dataset(name, _dataset_info(folder, name, problems), models))
    problems.sort(key=lambda problem: problem.what == NOT_MEASURED)
    return Run(info, plan, planned, jobs, missing, datasets, problems)


class WrongPatient(NamedTuple):
    """A patient on the wrong side of the threshold by their highest score; of unknown patients, an image."""

    patient: str  # "" if unknown
    outcome: str  # `missed` or `false alarm`
    label: int
    images: int
    wrong_images: int
    image: str  # with that score; of missed patients among the abnormal ones
    raw_score: float


def wrong_patients(training: Training) -> list[WrongPatient]:
    """List the patients that are wrong, missed ones first, by how much they are wrong; none without a threshold."""
    limits = training.job.thresholds
    if limits is None or limits.image is None:
        return []
    test = training.test.assign(score=training.scores, called=training.scores > limits.image)
    test["wrong"] = test.called != (test.label == 1)
    known = training.patients is not None
    found = []
    for patient, own in test.groupby("patient_hash" if known else test.index, sort=False):
        label = int(own.label.max())
        if label == int(own.called.any()):
            continue
        candidates = own[own.label == label]
        place = int(candidates.score.to_numpy().argmax())
        shown = str(candidates.path_hash.iloc[place]), float(candidates.score.iloc[place])
        outcome = "missed" if label else "false alarm"
        found.append(
            WrongPatient(str(patient) if known else "", outcome, label, len(own), int(own.wrong.sum()), *shown)
        )
    return sorted(found, key=lambda each: (-each.label, each.raw_score if each.label else -each.raw_score))


def most_wrong(wrong: Sequence[WrongPatient]) -> tuple[list[WrongPatient], int]:
    """Of `wrong_patients` a few of each outcome, wrong by most; and how many others there are."""
    by_outcome = by_key((each.outcome, each) for each in wrong)
    shown = [each for ordered in by_outcome.values() for each in ordered[:_MOST_WRONG]]
    return shown, len(wrong) - len(shown)


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
    places = [{name: row for row, name in enumerate(key)} for key in keys]
    aligned = [
        each.take(np.array([place[name] for name in order], dtype=np.intp))
        for each, place in zip(trainings, places, strict=True)
    ]
    return aligned if order else None


def by_key(pairs: Iterable[tuple[_K, _V]]) -> dict[_K, list[_V]]:
    """Key -> its values, both in the order they come in."""
    found: dict[_K, list[_V]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def missing_lines(run: Run, dataset: str) -> list[str]:
    """What is missing on a dataset, a line a reason: ``not begun: SCRD (seed 1), DDAD (seeds 0, 1)``."""
    missing = by_key((why, job) for job in run.of(dataset) if (why := run.missing.get(job.job)))
    lines = []
    for why, jobs in missing.items():
        models = by_key((job.model, job) for job in jobs).values()
        seeds = [f"seed{'s' if len(own) > 1 else ''} {', '.join(str(job.seed) for job in own)}" for own in models]
        names = [f"{own[0].label} ({which})" for own, which in zip(models, seeds, strict=True)]
        lines.append(f"{why}: {', '.join(names)}")
    return lines


def grouped(problems: Iterable[Problem], jobs: Sequence[PlannedJob]) -> list[Problem]:
    """Say once what several jobs have in common, and name them a dataset and seed at a time."""
    planned = {job.job: job for job in jobs}
    every = by_key(((job.dataset, job.seed), job) for job in jobs)
    found = []
    for (what, text), names in by_key(((each.what, each.text), each.job) for each in problems).items():
        if len(names) == 1 or not planned.keys() >= set(names):
            found += [Problem(name, what, text) for name in names]
            continue
        own = by_key(((planned[name].dataset, planned[name].seed), planned[name].label) for name in names)
        for (dataset, seed), labels in own.items():
            most = len(every[dataset, seed])
            models = f"all {most} models" if len(labels) == most > 1 else ", ".join(labels)
            found.append(Problem(f"{dataset}, seed {seed}: {models}", what, text))
    return found


def _load_job(planned: PlannedJob, folder: JobFolder, jobs: dict[str, Job]) -> Training | Problem:
    """Read a job, or say why there is nothing to read."""
    name, job = planned.job, folder.read()
    if job is None and not folder.path.exists():
        text = "The job waits for its turn, or the run was stopped: run the benchmark again to continue."
        return Problem(name, "not begun", text)
    if job is None:
        return Problem(name, "not finished", "The job is running or was interrupted: run the benchmark again.")
    jobs[name] = job
    if job.status.status != "done" or job.info is None:
        return Problem(name, job.status.status.replace("_", " "), job.status.message or "no message")
    table = folder.scores()
    test = table[table.split == "test"].reset_index(drop=True)
    bad = int((~np.isfinite(test.raw_score)).sum())
    if bad:
        text = f"{bad} of {counted(len(test), 'test score')} {agree(bad, 'is', 'are')} NaN or infinite."
        return Problem(name, "scores are NaN", text)
    if test.empty:
        return Problem(name, "no scores", "There are no test scores.")
    return Training(job.info, job, folder, table, test, folder.pixels())


def _not_measured(training: Training) -> list[Problem]:
    """Costs that could not be measured, less what no trivial score has."""
    if training.job.cost is None or training.info.kind == "trivial":
        return []
    reasons = by_key((why, quantity) for quantity, why in training.job.cost.not_measured.items())
    return [Problem(training.info.job, NOT_MEASURED, f"{', '.join(what)}: {why}") for why, what in reasons.items()]


def models_of(trainings: list[Training], problems: list[Problem]) -> list[Model]:
    """Put the trainings of a dataset together by their models, trivial ones last."""
    models = []
    for name, own in by_key((each.info.model, each) for each in trainings).items():
        aligned = align(own)
        if aligned is None:
            text = "The seeds were tested on different images: only the first is reported."
            problems.append(Problem(own[1].info.job, "left out", text))
            aligned = own[:1]
        models.append(Model(name, own[0].info.label or name, own[0].info.kind == "trivial", aligned))
    return sorted(models, key=lambda model: model.trivial)


def _dataset_info(folder: RunFolder, name: str, problems: list[Problem]) -> DatasetInfo | None:
    try:
        info = folder.dataset(name)
    except RunFolderError as error:
        problems.append(Problem(name, "unreadable", str(error)))
        return None
    if info is None:
        problems.append(Problem(name, "not checked", "The dataset's check has not finished: no audit, no shortcuts."))
    return info
