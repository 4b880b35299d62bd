"""Everything the report shows, computed once for the page, the Markdown and metrics.csv."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from PIL import Image
from tqdm import tqdm

from anomalib_medical.benchmark.records import AuditFinding, GalleryEntry
from anomalib_medical.benchmark.report import tables
from anomalib_medical.benchmark.report.compare import Contrast, by_patient, contrasts, group_columns, groups
from anomalib_medical.benchmark.report.evaluate import CALIBRATION, DECISION, METRICS, PIXEL, RANKING, Value, evaluate
from anomalib_medical.benchmark.report.faults import Effect, effects
from anomalib_medical.benchmark.report.figures import (
    Picture,
    colours,
    curve_pictures,
    latency_pictures,
    raincloud,
    reliability_picture,
)
from anomalib_medical.benchmark.report.results import METADATA, Dataset, Model, Run
from anomalib_medical.benchmark.report.tables import Cell, Table

_GALLERY_WIDTH = 420
_SHORTCUTS = 3
_SUMMARY_NOTE = (
    "AUROC: mean over the seeds, 95% interval by resampling patients. Differences: DeLong's test on the same images "
    "(Obuchowski's form where patients have several); intervals unadjusted, p-values adjusted by Holm's method over "
    "the models of this dataset, * below 0.05. The best model was picked on this test set, which favours it."
)
_KINDS = {
    "false_positive": "false positive",
    "false_negative": "false negative",
    "true_positive": "true positive",
    "true_negative": "true negative",
}


@dataclass(frozen=True)
class GalleryPicture:
    """A picture of a case as the text of a data address."""

    kind: str
    score: str
    data: str


@dataclass(frozen=True)
class Gallery:
    """The cases of a model, the mistakes first."""

    title: str
    pictures: list[GalleryPicture]


@dataclass
class DatasetView:
    """What the report shows of a dataset."""

    name: str
    anchor: str
    facts: str
    findings: list[AuditFinding]
    checked: bool
    legend: list[tuple[str, str]] = field(default_factory=list)
    summary: Table | None = None
    tables: list[Table] = field(default_factory=list)
    effects: list[Table] = field(default_factory=list)
    curves: list[Picture] = field(default_factory=list)
    rainclouds: list[Picture] = field(default_factory=list)
    galleries: list[Gallery] = field(default_factory=list)


@dataclass
class View:
    """What the report shows."""

    run: Run
    overview: Table | None
    datasets: list[DatasetView]
    teachers: list[str]
    records: list[dict[str, object]]


def make_view(run: Run) -> View:
    """Compute the report's content, with a progress bar over models."""
    colour = colours(run.datasets)
    records: list[dict[str, object]] = []
    views, aurocs = [], {}
    total = sum(len(dataset.models) for dataset in run.datasets)
    with tqdm(total=total, desc="Report", unit="model", disable=None) as progress:
        for number, dataset in enumerate(run.datasets, 1):
            view, found = _dataset_view(dataset, f"data-{number}", colour, records, progress)
            views.append(view)
            aurocs[dataset.name] = found
    return View(run, _overview(run, aurocs), views, _teachers(run), records)


def _dataset_view(
    dataset: Dataset,
    anchor: str,
    colour: Mapping[str, str],
    records: list[dict[str, object]],
    progress: tqdm[None],
) -> tuple[DatasetView, dict[str, Value]]:
    info = dataset.info
    view = DatasetView(dataset.name, anchor, _facts(dataset), info.findings if info else [], info is not None)
    if not dataset.models:
        return view, {}
    values: dict[str, dict[str, Value]] = {}
    patients, faults = {}, {}
    for place, model in enumerate(dataset.models):
        values[model.name] = {metric.key: evaluate(model, metric) for metric in METRICS}
        patients[model.name] = by_patient(model)
        faults[model.name] = effects(model)
        _record(records, dataset, model, values[model.name], patients[model.name], faults[model.name])
        view.rainclouds.append(raincloud(model, f"{anchor}-m{place}"))
        progress.update()
    aurocs = {name: found["image_auroc"] for name, found in values.items()}
    view.legend = [(model.label, colour[model.name]) for model in dataset.models]
    view.summary = _summary(dataset, values)
    view.tables = _tables(dataset, values, patients)
    view.effects = tables.effect_tables(dataset.models, faults)
    view.curves = [*curve_pictures(dataset, colour, anchor), *latency_pictures(dataset, aurocs, colour, anchor)]
    if (picture := reliability_picture(dataset, colour, anchor)) is not None:
        view.curves.append(picture)
    view.galleries = [gallery for model in dataset.models if (gallery := _gallery(model, dataset)) is not None]
    return view, aurocs


def _tables(
    dataset: Dataset,
    values: Mapping[str, Mapping[str, Value]],
    patients: Mapping[str, Mapping[str, Mapping[str, Value]] | None],
) -> list[Table]:
    models = dataset.models
    sources = sorted({each.thresholds.source for model in models for each in model.trainings if each.thresholds})
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
    trained = [model for model in models if model.kind != "trivial"] or models
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


def _summary(dataset: Dataset, values: Mapping[str, Mapping[str, Value]]) -> Table:
    """AUROC and AP with DeLong's test against the best model and PatchCore, and the strongest shortcuts below."""
    models = sorted(dataset.models, key=lambda model: -_auroc(values[model.name]))
    best = models[0]
    patchcore = next((model for model in models if _is_patchcore(model)), None)
    references = {"best": best} | ({"PatchCore": patchcore} if patchcore is not None else {})
    found = {name: contrasts(models, reference) for name, reference in references.items()}
    rows = []
    for model in models:
        auroc = tables.value_cell(values[model.name]["image_auroc"])
        cells = [Cell(model.label, strong=model is best), auroc, tables.seeds_cell(values[model.name]["image_auroc"])]
        cells += [tables.contrast_cell(_of(found[name], model)) for name in references]
        rows.append([*cells, tables.value_cell(values[model.name]["image_ap"])])
    notes = [_SUMMARY_NOTE]
    for shortcut in dataset.info.shortcuts[:_SHORTCUTS] if dataset.info else []:
        known = shortcut.low is not None and shortcut.high is not None
        small = f"[{shortcut.low:.3f}, {shortcut.high:.3f}]" if known else "no interval"
        blank = [Cell(tables.NOTHING)] * (len(references) + 2)
        rows.append([Cell(f"shortcut: {shortcut.name}"), Cell(f"{shortcut.auroc:.3f}", small), *blank])
    if dataset.info and dataset.info.shortcuts:
        notes.append("Shortcuts show no disease; theirs is the larger of AUROC and 1 - AUROC.")
    columns = ["model", "AUROC", "each seed", *(f"against {name}" for name in references), "AP"]
    return Table("Summary", columns, rows, notes)


def _overview(run: Run, aurocs: Mapping[str, Mapping[str, Value]]) -> Table | None:
    labels = {model.name: model.label for dataset in run.datasets for model in dataset.models}
    if not labels:
        return None
    best = {name: max(map(_value, found.values()), default=math.nan) for name, found in aurocs.items()}
    rows = []
    for name, label in labels.items():
        cells = [Cell(label)]
        for dataset in run.datasets:
            value = aurocs[dataset.name].get(name)
            if value is None or value.estimate is None:
                cells.append(Cell(tables.NOTHING, title=value.reason if value else "no finished job"))
                continue
            cell = tables.value_cell(value)
            cells.append(Cell(cell.text, cell.small, value.estimate.value == best[dataset.name], cell.title))
        rows.append(cells)
    shortcuts = [Cell("strongest shortcut")]
    for dataset in run.datasets:
        strongest = dataset.info.shortcuts[0] if dataset.info and dataset.info.shortcuts else None
        shortcuts.append(Cell(f"{strongest.auroc:.3f}", strongest.name) if strongest else Cell(tables.NOTHING))
    notes = ["Image AUROC. Bold: the highest of a dataset, which need not differ from the next (see its section)."]
    return Table("Overview", ["model", *(dataset.name for dataset in run.datasets)], [*rows, shortcuts], notes)


def _facts(dataset: Dataset) -> str:
    info = dataset.info
    if info is None:
        return "The dataset's check has not finished."
    patients = "patients unknown" if info.n_patients is None else f"{info.n_patients} patients"
    pool = f", {info.n_unlabeled} unlabeled" if info.n_unlabeled else ""
    return (
        f"{info.n_train} normal training images{pool}, {info.n_held_out} held-out normals, test: {info.n_test_normal} "
        f"normal and {info.n_test_abnormal} abnormal images; {patients}{'' if info.has_masks else '; no masks'}."
    )


def _record(
    records: list[dict[str, object]],
    dataset: Dataset,
    model: Model,
    values: Mapping[str, Value],
    patients: Mapping[str, Mapping[str, Value]] | None,
    faults: list[Effect],
) -> None:
    found = dict(values)
    found |= {f"patient_{how}.{key}": value for how, own in (patients or {}).items() for key, value in own.items()}
    found |= {f"fault.{effect.fault}": effect.added for effect in faults}
    for metric, value in found.items():
        estimate = value.estimate
        numbers: tuple[object, ...] = ("", "", "", "", "")
        if estimate is not None:
            numbers = (estimate.value, estimate.low, estimate.high, estimate.n_images, estimate.n_patients)
        names = ("value", "low", "high", "n_images", "n_patients")
        records.append(
            {
                "dataset": dataset.name,
                "model": model.name,
                "metric": metric,
                **dict(zip(names, numbers, strict=True)),
                "n_seeds": len(model.trainings),
                "reason": value.reason,
            }
        )


def _gallery(model: Model, dataset: Dataset) -> Gallery | None:
    training = model.first
    entries = training.folder.gallery
    order = list(_KINDS)
    pictures = [
        picture
        for entry in sorted(entries, key=lambda entry: order.index(entry.kind))
        if (picture := _case(model, entry)) is not None
    ]
    return Gallery(f"{model.label} on {dataset.name}, seed {training.info.seed}", pictures) if pictures else None


def _case(model: Model, entry: GalleryEntry) -> GalleryPicture | None:
    file = model.first.folder.path / "gallery" / entry.file
    if not file.is_file():
        return None
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_GALLERY_WIDTH, _GALLERY_WIDTH))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    data = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    return GalleryPicture(_KINDS[entry.kind], f"{entry.raw_score:.4g}", data)


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


def _of(found: Mapping[str, Contrast], model: Model) -> Contrast | None:
    return found.get(model.name)


def _auroc(values: Mapping[str, Value]) -> float:
    return _value(values["image_auroc"])


def _value(value: Value) -> float:
    return value.estimate.value if value.estimate else -1.0


def _is_patchcore(model: Model) -> bool:
    return str(model.first.info.spec.get("class_path", "")).rpartition(".")[2].lower() == "patchcore"
