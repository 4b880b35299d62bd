"""Everything the report shows, computed once for the page, the Markdown and metrics.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

from anomalib_medical.benchmark.files import mapping
from anomalib_medical.benchmark.records import AuditFinding
from anomalib_medical.benchmark.report import tables
from anomalib_medical.benchmark.report.cases import Case, best_bundle, bundle_commands, galleries, why_none
from anomalib_medical.benchmark.report.compare import Standing, by_patient
from anomalib_medical.benchmark.report.evaluate import METRICS, N_RESAMPLES, Value, evaluate
from anomalib_medical.benchmark.report.faults import Effect, effects
from anomalib_medical.benchmark.report.figures import Picture, colours, pictures_of, raincloud
from anomalib_medical.benchmark.report.results import Dataset, Problem, Run, grouped, missing_lines
from anomalib_medical.benchmark.report.tables import Table
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.io import agree, counted

_PROTOCOL = {
    "clean": "Protocol: clean. Thresholds come from held-out normal images of the training side; the last weights are "
    "scored once on the test set.",
    "published": "Protocol: published. As clean, and the test set was also scored during training, to show what "
    "choosing a checkpoint on it adds; no figure but that one uses it.",
}
_INTERVALS = (
    f"Intervals: 95%, {N_RESAMPLES} bootstrap resamples of patients (of images where patients are unknown) within "
    "strata of class, of the mean over the seeds. They say how a figure varies with the patients, not with the "
    "seed, whose values stand beside it."
)
_TEACHERS = {"hub": "weights from timm's hub", "random": "random weights: its figures are floors"}


@dataclass
class DatasetView:
    """What the report shows of a dataset."""

    name: str
    anchor: str
    facts: str
    checked: bool
    findings: list[AuditFinding]
    missing: list[str]
    legend: list[tuple[str, str]] = field(default_factory=list)  # label, colour
    summary: Table | None = None
    tables: list[Table] = field(default_factory=list)
    effects: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    rainclouds: list[Picture] = field(default_factory=list)
    galleries: list[tuple[str, list[Case]]] = field(default_factory=list)
    no_pictures: str = ""
    bundles: list[tuple[str, str]] = field(default_factory=list)  # label, command


@dataclass
class View:
    """What the report shows."""

    run: Run
    have_results: str
    took: str
    machine: str
    protocol: list[str]
    plan: str
    teachers: list[str]
    problems: list[Problem]
    datasets: list[DatasetView] = field(default_factory=list)
    brief: list[tuple[str, str]] = field(default_factory=list)  # dataset, what was found
    overview: Table | None = None
    records: list[dict[str, object]] = field(default_factory=list)  # rows of metrics.csv
    best_bundles: list[str] = field(default_factory=list)


def make_view(run: Run, folder: Path) -> View:
    """Compute the report's content, with a progress bar over models."""
    done, planned = run.n_done, counted(len(run.planned), "planned job")
    protocol = [_PROTOCOL.get(str(run.plan.get("protocol", "clean")), ""), _settings(run.plan), _INTERVALS]
    view = View(
        run,
        have_results=f"{done} of {planned} {agree(done, 'has', 'have')} results",
        took=duration(run.seconds),
        machine=_machine(run.info.machine),
        protocol=[line for line in protocol if line],
        plan=yaml.safe_dump(run.plan, sort_keys=False, allow_unicode=True),
        teachers=_teachers(run),
        problems=grouped(run.problems, run.planned),
    )
    colour, standings = colours(run.datasets), {}
    with tqdm(total=sum(len(each.models) for each in run.datasets), desc="Report", unit="model", disable=None) as bar:
        for number, dataset in enumerate(run.datasets, 1):
            own = _facts_of(run, dataset, f"data-{number}")
            view.datasets.append(own)
            if dataset.models:
                standing, found = _measure(dataset, bar)
                _fill(own, run, standing, found, colour)
                standings[dataset.name] = standing
                view.records += _records(standing, found)
    view.brief, view.overview = tables.brief_lines(run, standings), tables.overview_table(run, standings)
    view.best_bundles = [words for standing in standings.values() if (words := best_bundle(standing, folder))]
    return view


def _measure(dataset: Dataset, bar: tqdm[Any]) -> tuple[Standing, dict[str, list[Effect]]]:
    values: dict[str, dict[str, Value]] = {}
    faults = {}
    for model in dataset.models:
        values[model.name] = {metric.key: evaluate(model, metric) for metric in METRICS} | by_patient(model)
        faults[model.name] = effects(model)
        bar.update()
    return Standing(dataset, values), faults


def _facts_of(run: Run, dataset: Dataset, anchor: str) -> DatasetView:
    """What is known of a dataset before anything is measured."""
    info, missing = dataset.info, missing_lines(run, dataset.name)
    if info is None:
        return DatasetView(dataset.name, anchor, "The dataset's check has not finished.", False, [], missing)
    patients = "patients unknown" if info.n_patients is None else counted(info.n_patients, "patient")
    tested = dataset.models[0].first.patients if dataset.models else None
    if tested is not None and info.n_patients is not None:
        patients += f", {len(set(tested))} of them in the test set"
    pool = f", {info.n_unlabeled} unlabeled" if info.n_unlabeled else ""
    facts = (
        f"{counted(info.n_train, 'normal training image')}{pool}, {counted(info.n_held_out, 'held-out normal')}, test: "
        f"{info.n_test_normal} normal and {counted(info.n_test_abnormal, 'abnormal image')}; {patients}"
        f"{'' if info.has_masks else '; not every abnormal one has a mask'}."
    )
    return DatasetView(dataset.name, anchor, facts, True, info.findings, missing)


def _fill(
    view: DatasetView, run: Run, standing: Standing, faults: Mapping[str, list[Effect]], colour: Mapping[str, str]
) -> None:
    dataset = standing.dataset
    view.legend = [(model.label, colour[model.name]) for model in dataset.models]
    view.summary = tables.summary_table(standing, run)
    view.tables = tables.tables_of(dataset, standing.values)
    view.effects = tables.effect_tables(dataset.models, faults)
    view.pictures = pictures_of(standing, colour)
    view.rainclouds = [raincloud(model) for model in dataset.models]
    # Named from the run folder: a report says nothing of where that lies.
    view.bundles = bundle_commands(standing, Path())
    view.galleries = galleries(dataset)
    view.no_pictures = "" if view.galleries else why_none(dataset, run.plan.get("gallery"))


def _records(standing: Standing, faults: Mapping[str, list[Effect]]) -> Iterator[dict[str, object]]:
    """Rows of metrics.csv: every figure of a model on a dataset, by image, by patient and of the faults."""
    for model in standing.dataset.models:
        found = {f"fault.{effect.fault}": effect.added for effect in faults[model.name]}
        for metric, value in {**standing.values[model.name], **found}.items():
            yield {
                "dataset": standing.dataset.name,
                "model": model.name,
                "metric": metric,
                **(asdict(value.estimate) if value.estimate else dict.fromkeys(_NUMBERS, "")),
                "n_seeds": len(model.trainings),
                "reason": value.reason,
            }


_NUMBERS = ("value", "low", "high", "n_images", "n_patients")


def _settings(plan: Mapping[str, Any]) -> str:
    """What all models have in common, in words."""
    words = []
    if minutes := mapping(plan.get("limits")).get("train_minutes"):
        most = f"{minutes:g} {agree(minutes, 'minute', 'minutes')}"
        words.append(f"Training of at most {most} for each model; PatchCore and PaDiM make one pass.")
    if size := plan.get("image_size"):
        backbone = plan.get("backbone")
        words.append(f"Images of {size}x{size} pixels and backbone {backbone}, unless the plan says otherwise.")
    if seeds := plan.get("seeds"):
        words.append(f"Seeds: {', '.join(map(str, seeds))}; trivial scores but the random one have a single run.")
    return " ".join(words)


def _machine(parts: Mapping[str, str]) -> str:
    """The machine in a line."""
    named = {"cores": "{} core" if parts.get("cores") == "1" else "{} cores", "accelerator": "accelerator: {}"}
    return ", ".join(named.get(key, "{}").format(value) for key, value in parts.items())


def _teachers(run: Run) -> list[str]:
    """Which teacher each model had."""
    found: dict[str, None] = {}
    for model in (model for dataset in run.datasets for model in dataset.models):
        for info in (each.info for each in model.trainings):
            if info.teacher != "none":
                what = _TEACHERS.get(info.teacher, f"local file, sha256 {info.teacher_sha256}")
                found[f"{model.label}: {what}"] = None
    return list(found)
