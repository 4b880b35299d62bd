"""Everything the report shows, computed once for the page, the Markdown and metrics.csv."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from anomalib_medical.benchmark.records import AuditFinding
from anomalib_medical.benchmark.report import tables
from anomalib_medical.benchmark.report.bundles import best_bundle, bundle_commands
from anomalib_medical.benchmark.report.cases import Gallery, galleries, why_none
from anomalib_medical.benchmark.report.compare import by_patient, group_columns, groups
from anomalib_medical.benchmark.report.comparison_figures import forest_picture, latency_pictures
from anomalib_medical.benchmark.report.evaluate import CALIBRATION, DECISION, METRICS, PIXEL, RANKING, Value, evaluate
from anomalib_medical.benchmark.report.faults import effects
from anomalib_medical.benchmark.report.figures import Picture, colours, curve_pictures, raincloud, reliability_picture
from anomalib_medical.benchmark.report.metrics_file import metric_rows
from anomalib_medical.benchmark.report.results import Dataset, Problem, Run, grouped, missing_lines
from anomalib_medical.benchmark.report.standing import Standing, make_standing
from anomalib_medical.benchmark.report.summary import brief_lines, overview_table, summary_table
from anomalib_medical.benchmark.report.tables import Table
from anomalib_medical.data.samples import METADATA
from anomalib_medical.io import counted


@dataclass
class DatasetView:
    """What the report shows of a dataset."""

    name: str
    anchor: str
    facts: str
    findings: list[AuditFinding]
    checked: bool
    missing: list[str]
    legend: list[tuple[str, str]] = field(default_factory=list)
    summary: Table | None = None
    tables: list[Table] = field(default_factory=list)
    effects: list[Table] = field(default_factory=list)
    curves: list[Picture] = field(default_factory=list)
    rainclouds: list[Picture] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)
    no_pictures: str = ""
    bundles: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class View:
    """What the report shows."""

    run: Run
    brief: list[tuple[str, str]]
    overview: Table | None
    datasets: list[DatasetView]
    problems: list[Problem]
    teachers: list[str]
    records: list[dict[str, object]]
    best_bundles: list[str]


def make_view(run: Run, folder: Path) -> View:
    """Compute the report's content, with a progress bar over models."""
    colour = colours(run.datasets)
    records: list[dict[str, object]] = []
    views = []
    standings: dict[str, Standing] = {}
    total = sum(len(dataset.models) for dataset in run.datasets)
    with tqdm(total=total, desc="Report", unit="model", disable=None) as progress:
        for number, dataset in enumerate(run.datasets, 1):
            view, standing = _dataset_view(run, dataset, f"data-{number}", colour, records, progress)
            views.append(view)
            if standing is not None:
                standings[dataset.name] = standing
    return View(
        run,
        brief_lines(run, standings),
        overview_table(run, standings),
        views,
        grouped(run.problems, run.planned),
        _teachers(run),
        records,
        [words for standing in standings.values() if (words := best_bundle(standing, folder))],
    )


def _dataset_view(
    run: Run,
    dataset: Dataset,
    anchor: str,
    colour: Mapping[str, str],
    records: list[dict[str, object]],
    progress: tqdm[None],
) -> tuple[DatasetView, Standing | None]:
    info = dataset.info
    jobs = [job for job in run.planned if job.dataset == dataset.name]
    view = DatasetView(
        dataset.name,
        anchor,
        _facts(dataset),
        info.findings if info else [],
        info is not None,
        missing_lines(run, dataset.name),
    )
    if not dataset.models:
        return view, None
    values: dict[str, dict[str, Value]] = {}
    patients, faults = {}, {}
    for place, model in enumerate(dataset.models):
        values[model.name] = {metric.key: evaluate(model, metric) for metric in METRICS}
        patients[model.name] = by_patient(model)
        faults[model.name] = effects(model)
        records += metric_rows(dataset, model, values[model.name], patients[model.name], faults[model.name])
        view.rainclouds.append(raincloud(model, f"{anchor}-m{place}"))
        progress.update()
    standing = make_standing(dataset, values)
    view.legend = [(model.label, colour[model.name]) for model in dataset.models]
    view.summary = summary_table(standing, jobs)
    view.tables = _tables(dataset, values, patients)
    view.effects = tables.effect_tables(dataset.models, faults)
    drawn = [
        forest_picture(standing, colour, anchor),
        *curve_pictures(dataset, colour, anchor),
        *latency_pictures(standing, colour, anchor),
        reliability_picture(dataset, colour, anchor),
    ]
    view.curves = [picture for picture in drawn if picture is not None]
    # Named from the run folder: a report says nothing of where that lies.
    view.bundles = bundle_commands(standing, Path())
    view.galleries = galleries(dataset)
    view.no_pictures = "" if view.galleries else why_none(dataset, run.plan.get("gallery"))
    return view, standing


def _tables(
    dataset: Dataset,
    values: Mapping[str, Mapping[str, Value]],
    patients: Mapping[str, Mapping[str, Mapping[str, Value]] | None],
) -> list[Table]:
    models = dataset.models
    sources = sorted(
        {each.job.thresholds.source for model in models for each in model.trainings if each.job.thresholds}
    )
    decision = [f"The threshold was set without test images: {'; '.join(sources)}."] if sources else []
    calibration = [
        "Lower is better. The normalised score is made so that 0.5 is the threshold, not to be a probability."
    ]
    operating = ["Points on the ROC curve of the test set: they describe the curve and promise nothing of a threshold."]
    found = [
        tables.metric_table("Operating points", models, RANKING[2:], values, operating),
        tables.metric_table("At the threshold", models, DECISION, values, decision),
        tables.metric_table(
            "Localisation", models, PIXEL, values, ["Dice at the pixel threshold from held-out normals."]
        ),
        tables.patient_table(models, patients),
        tables.metric_table("Calibration of the normalised score", models, CALIBRATION, values, calibration),
        tables.cost_table(dataset),
    ]
    result = [table for table in found if table is not None]
    trained = [model for model in models if not model.trivial] or models
    columns, skipped = group_columns(trained[0])
    for column in ("class_name", *columns):
        rows = groups(trained, column)
        if len(rows) > 1:
            name = "class" if column == "class_name" else column.removeprefix(METADATA)
            against = ", each against all normal images" if column == "class_name" else ""
            result.append(tables.group_table(f"By {name}{against}", trained, rows))
    if skipped and result:
        names = ", ".join(column.removeprefix(METADATA) for column in skipped)
        result[-1].notes.append(f"Not grouped, too many values: {names}.")
    return result


def _facts(dataset: Dataset) -> str:
    info = dataset.info
    if info is None:
        return "The dataset's check has not finished."
    patients = "patients unknown" if info.n_patients is None else counted(info.n_patients, "patient")
    tested = dataset.models[0].first.patients if dataset.models else None
    if tested is not None and info.n_patients is not None:
        patients += f", {len(set(tested))} of them in the test set"
    pool = f", {info.n_unlabeled} unlabeled" if info.n_unlabeled else ""
    return (
        f"{counted(info.n_train, 'normal training image')}{pool}, {counted(info.n_held_out, 'held-out normal')}, test: "
        f"{info.n_test_normal} normal and {counted(info.n_test_abnormal, 'abnormal image')}; {patients}"
        f"{'' if info.has_masks else '; not every abnormal one has a mask'}."
    )


def _teachers(run: Run) -> list[str]:
    """Which teacher each model had."""
    found: dict[str, None] = {}
    words = {"hub": "weights from timm's hub", "random": "random weights: its figures are floors"}
    for dataset in run.datasets:
        for model in dataset.models:
            for each in model.trainings:
                if each.info.teacher != "none":
                    sha256 = each.info.teacher_sha256
                    what = words.get(each.info.teacher, f"local file, sha256 {sha256}")
                    found[f"{model.label}: {what}"] = None
    return list(found)
