"""What a run planned and does not have: the jobs of the plan, and why some have no results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from anomalib_medical.benchmark.files import mapping


@dataclass(frozen=True)
class Problem:
    """Something that failed or could not be measured.

    Attributes:
        job: The job, or jobs, or the dataset.
        what: The kind, such as ``out of memory``.
        text: One sentence.
    """

    job: str
    what: str
    text: str


@dataclass(frozen=True)
class PlannedJob:
    """A job of the plan.

    Attributes:
        name: Of its folder.
        dataset: The dataset's name in the plan.
        model: The model's name in the plan.
        label: The model's name for readers, on this dataset.
        seed: As text.
        missing: Why it has no results, "" if it has.
    """

    name: str
    dataset: str
    model: str
    label: str
    seed: str
    missing: str


def planned_job(name: str, plan: Mapping[str, Any], missing: str) -> PlannedJob:
    """Describe a job that may not have begun by its name, ``<dataset>__<model>__seed<seed>``."""
    rest, _, seed = name.rpartition("__seed")
    datasets = mapping(plan.get("datasets"))
    # Names may hold "__" themselves.
    dataset = max((each for each in datasets if rest.startswith(f"{each}__")), key=len, default=rest.partition("__")[0])
    model = rest[len(dataset) + 2 :]
    own = mapping(mapping(mapping(datasets.get(dataset)).get("models")).get(model))
    label = own.get("label") or mapping(mapping(plan.get("models")).get(model)).get("label") or model
    return PlannedJob(name, dataset, model, str(label), seed, missing)


def missing_lines(jobs: Sequence[PlannedJob]) -> list[str]:
    """What is missing of some jobs, a line a reason: ``not begun: SCRD (seed 1), DDAD (seeds 0, 1)``."""
    lines = []
    for reason in dict.fromkeys(job.missing for job in jobs if job.missing):
        models = []
        for model in dict.fromkeys(job.model for job in jobs if job.missing == reason):
            own = [job for job in jobs if job.model == model and job.missing == reason]
            seeds = ", ".join(job.seed for job in own)
            models.append(f"{own[0].label} (seed{'s' if len(own) > 1 else ''} {seeds})")
        lines.append(f"{reason}: {', '.join(models)}")
    return lines


def grouped(problems: Iterable[Problem], jobs: Sequence[PlannedJob]) -> list[Problem]:
    """Say once what several jobs have in common, and name them a dataset and seed at a time."""
    planned = {job.name: job for job in jobs}
    groups: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        groups.setdefault((problem.what, problem.text), []).append(problem.job)
    found = []
    for (what, text), names in groups.items():
        if len(names) == 1 or not all(name in planned for name in names):
            found += [Problem(name, what, text) for name in names]
            continue
        own = [planned[name] for name in names]
        for dataset, seed in dict.fromkeys((job.dataset, job.seed) for job in own):
            here = [job.label for job in own if (job.dataset, job.seed) == (dataset, seed)]
            every = sum((job.dataset, job.seed) == (dataset, seed) for job in jobs)
            models = f"all {every} models" if len(here) == every > 1 else ", ".join(here)
            found.append(Problem(f"{dataset}, seed {seed}: {models}", what, text))
    return found
