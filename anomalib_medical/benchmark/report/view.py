"""Everything the report shows, computed once for the page, the Markdown and metrics.csv."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from tqdm import tqdm

from anomalib_medical.benchmark.records import GalleryEntry
from anomalib_medical.benchmark.report import tables
from anomalib_medical.benchmark.report.compare import Standing, by_patient
from anomalib_medical.benchmark.report.evaluate import METRICS, N_RESAMPLES, effects, evaluate
from anomalib_medical.benchmark.report.figures import colours, pictures_of, raincloud
from anomalib_medical.benchmark.report.results import Dataset, Run, Training, grouped, missing_lines, wrong_patients
from anomalib_medical.benchmark.weights import bundle_command
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
_TEACHERS = {
    "hub": "weights from timm's hub",
    "package": "weights of a package of the Python registry",
    "random": "random weights: its figures are floors",
}
_WIDTH = 768
# Mistakes first.
_OUTCOMES = ("false positive", "false negative", "true positive", "true negative", "")
_NUMBERS = ("value", "low", "high", "n_images", "n_patients")


def make_view(run: Run, folder: Path) -> dict[str, Any]:
    """Compute the report's content, with a progress bar over models."""
    standings: dict[str, Standing] = {}
    with tqdm(total=sum(len(each.models) for each in run.datasets), desc="Report", unit="model", disable=None) as bar:
        for dataset in run.datasets:
            values, faults = {}, {}
            for model in dataset.models:
                values[model.name] = {metric.key: evaluate(model, metric) for metric in METRICS} | by_patient(model)
                faults[model.name] = effects(model)
                bar.update()
            if values:
                standings[dataset.name] = Standing(dataset, values, faults)
    protocol = str(run.plan.get("protocol", "clean"))
    colour = colours(run.datasets)
    return {
        "run": run,
        **(_of_files(run) if protocol == "predictions" else _of_benchmark(run)),
        "machine": _machines(run),
        "protocol": [line for line in (_PROTOCOL.get(protocol, ""), _settings(run.plan), _INTERVALS) if line],
        "plan": yaml.safe_dump(run.plan, sort_keys=False, allow_unicode=True),
        "teachers": _teachers(run),
        "problems": grouped(run.problems, run.planned),
        "brief": tables.brief_lines(run, standings),
        "overview": tables.overview_table(run, standings),
        "datasets": [
            _facts(run, dataset, f"data-{number}") | _results(run, standings.get(dataset.name), colour)
            for number, dataset in enumerate(run.datasets, 1)
        ],
        "records": [row for standing in standings.values() for row in _records(standing)],
        "wrong": [row for standing in standings.values() for row in _wrong(standing)],
        "best_bundles": [words for standing in standings.values() if (words := best_bundle(standing, folder))],
    }


def _of_benchmark(run: Run) -> dict[str, str]:
    """The head of a benchmark's report."""
    code = run.info.commit or "of no checkout"
    took = f", which took {duration(run.seconds)}" if run.n_done else ""
    planned = counted(len(run.planned), "planned job")
    return {
        "title": f"Benchmark {run.info.name}",
        "origin": f"Started {run.info.started} on {_machines(run)}. Code {code}. Computed from the saved scores by "
        "anomalib-medical report --run FOLDER.",
        "have_results": f"{run.n_done} of {planned} {agree(run.n_done, 'has', 'have')} results{took}.",
    }


def _of_files(run: Run) -> dict[str, str]:
    """The head of a report on files of predictions."""
    files = [f"{name}: {', '.join(own)}" for name, own in run.plan["files"].items()]
    return {
        "title": "Predictions",
        "origin": "Computed by anomalib-medical report --predictions. Nothing is known here of how the models were "
        "trained and their thresholds chosen: that test images had no part in it is for you to know.",
        "have_results": f"{counted(len(run.planned), 'file')}. {'; '.join(files)}.",
    }


def _wrong(standing: Standing) -> Iterator[dict[str, object]]:
    """Rows of wrong.csv."""
    for model in standing.dataset.models:
        for each in wrong_patients(model.first):
            yield {"dataset": standing.dataset.name, "model": model.name, **each._asdict()}


def _facts(run: Run, dataset: Dataset, anchor: str) -> dict[str, Any]:
    """What is known of a dataset without any result."""
    info, facts = dataset.info, "The dataset's check has not finished."
    if info is None and "files" in run.plan:
        facts = _tested(dataset.models[0].first)
    if info is not None:
        patients = "patients unknown" if info.n_patients is None else counted(info.n_patients, "patient")
        tested = dataset.models[0].first.patients if dataset.models else None
        if tested is not None and info.n_patients is not None:
            patients += f", {len(set(tested))} of them in the test set"
        pool = f", {info.n_unlabeled} unlabeled" if info.n_unlabeled else ""
        facts = (
            f"{counted(info.n_train, 'normal training image')}{pool}, {counted(info.n_held_out, 'held-out normal')}, "
            f"test: {info.n_test_normal} normal and {counted(info.n_test_abnormal, 'abnormal image')}; {patients}"
            f"{'' if info.has_masks else '; not every abnormal one has a mask'}."
        )
    findings, missing = info.findings if info else None, missing_lines(run, dataset.name)
    return {"name": dataset.name, "anchor": anchor, "facts": facts, "findings": findings, "missing": missing}


def _tested(training: Training) -> str:
    abnormal, patients = int(training.labels.sum()), training.patients
    of = "patients unknown" if patients is None else f"{counted(len(set(patients)), 'patient')}"
    return f"{len(training.test) - abnormal} normal and {counted(abnormal, 'abnormal image')}; {of}."


def _results(run: Run, standing: Standing | None, colour: Mapping[str, str]) -> dict[str, Any]:
    """What the results on a dataset are shown as."""
    if standing is None:
        return {"summary": None, "effects": [], "pictures": []}
    dataset, cases = standing.dataset, galleries(standing.dataset)
    return {
        "legend": [(model.label, colour[model.name]) for model in dataset.models],
        "summary": tables.summary_table(standing, run),
        "tables": tables.tables_of(standing),
        "effects": tables.effect_tables(standing),
        "pictures": pictures_of(standing, colour),
        "rainclouds": [raincloud(model) for model in dataset.models],
        # Named from the run folder: a report says nothing of where that lies.
        "bundles": bundle_commands(standing, Path()),
        "galleries": cases,
        "no_pictures": "" if cases else why_none(dataset, run.plan.get("gallery")),
    }


def _records(standing: Standing) -> Iterator[dict[str, object]]:
    """Rows of metrics.csv: every figure of a model on a dataset, by image, by patient and of the faults."""
    for model in standing.dataset.models:
        added = {f"fault.{fault}": effect.added for fault, effect in standing.faults[model.name].items()}
        for metric, value in {**standing.values[model.name], **added}.items():
            yield {
                "dataset": standing.dataset.name,
                "model": model.name,
                "metric": metric,
                **(asdict(value.estimate) if value.estimate else dict.fromkeys(_NUMBERS, "")),
                "n_seeds": len(model.trainings),
                "reason": value.reason,
            }


def _settings(plan: Mapping[str, Any]) -> str:
    """What all models have in common, in words."""
    words = []
    if minutes := (plan.get("limits") or {}).get("train_minutes"):
        most = f"{minutes:g} {agree(minutes, 'minute', 'minutes')}"
        words.append(f"Training of at most {most} for each model; PatchCore and PaDiM make one pass.")
    if size := plan.get("image_size"):
        backbone = plan.get("backbone")
        words.append(f"Images of {size}x{size} pixels and backbone {backbone}, unless the plan says otherwise.")
    if seeds := plan.get("seeds"):
        words.append(f"Seeds: {', '.join(map(str, seeds))}; trivial scores but the random one have a single run.")
    return " ".join(words)


def _machines(run: Run) -> str:
    """Where it ran: on a cluster, all kinds of machines that its jobs had."""
    trainings = [each for dataset in run.datasets for model in dataset.models for each in model.trainings]
    found = dict.fromkeys(_machine(each.info.machine or run.info.machine) for each in trainings)
    return "; ".join(found) or _machine(run.info.machine)


def _machine(parts: Mapping[str, str]) -> str:
    """The machine in a line."""
    named = {"cores": "{} core" if parts.get("cores") == "1" else "{} cores", "accelerator": "accelerator: {}"}
    return ", ".join(named.get(key, "{}").format(value) for key, value in parts.items())


def _teachers(run: Run) -> list[str]:
    """Which teacher each model had."""
    found: dict[str, None] = {}
    for model in (model for dataset in run.datasets for model in dataset.models):
        for info in (each.info for each in model.trainings if each.info.teacher != "none"):
            what = _TEACHERS.get(info.teacher, f"local file, sha256 {info.teacher_sha256}")
            found[f"{model.label}: {what}"] = None
    return list(found)


@dataclass(frozen=True)
class Case:
    """A picture of a case."""

    outcome: str  # `true positive`, ...; "" without a threshold
    place: str  # such as `highest-scoring normal`
    score: str  # its raw score
    data: str  # the picture as an address that holds it


def galleries(dataset: Dataset) -> list[tuple[str, list[Case]]]:
    """Title and cases of each model's first seed, the mistakes first."""
    found = []
    for model in dataset.models:
        folder = model.first.folder.path / "gallery"
        cases = [
            _case(model.first, entry, file)
            for entry in model.first.job.gallery
            if (file := folder / entry.file).is_file()
        ]
        if cases:
            cases.sort(key=lambda case: _OUTCOMES.index(case.outcome))
            found.append((f"{model.label} on {dataset.name}, seed {model.first.info.seed}", cases))
    return found


def why_none(dataset: Dataset, wanted: object) -> str:
    """Why there are no pictures; ``wanted`` is the plan's ``gallery``."""
    if wanted == 0:
        return "No pictures of cases: the plan asked for none (gallery: 0)."
    if not any(model.first.has_maps for model in dataset.models):
        return "No pictures of cases: no model here makes anomaly maps."
    return "No pictures of cases: this copy of the run folder holds none, as they show patients."


def _case(training: Training, entry: GalleryEntry, file: Path) -> Case:
    """A picture, and what the threshold makes of the image; a score equal to it is normal, as everywhere."""
    with Image.open(file) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_WIDTH, _WIDTH))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    data = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
    place = f"{entry.kind}-scoring {'abnormal' if entry.label else 'normal'}"
    try:
        called = entry.raw_score > training.threshold
        outcome = f"{'true' if called == bool(entry.label) else 'false'} {'positive' if called else 'negative'}"
    except ValueError:
        outcome = ""
    return Case(outcome, place, f"{entry.raw_score:.4g}", data)


def bundle_commands(standing: Standing, run: Path) -> list[tuple[str, str]]:
    """Label and command of every trained model's first seed whose weights are there, highest AUROC first.

    ``run`` is the run folder as the commands are to name it.
    """
    return [
        (f"{model.label}, seed {model.first.info.seed}", command)
        for model in standing.order
        if (command := bundle_command(model.first.folder, run, model.first.job)) is not None
    ]


def best_bundle(standing: Standing, run: Path) -> str:
    """Which trained model was best, by what, and how to bundle it; "" where no weights are kept."""
    best = next((model for model in standing.order if not model.trivial), None)
    estimate = standing.auroc(best).estimate if best else None
    if best is None or estimate is None or not bundle_commands(standing, run):
        return ""
    several = len(best.trainings) > 1
    words = (
        f"{standing.dataset.name}: of the trained models {best.label} has the highest AUROC on the test set, "
        f"{estimate.value:.3f} ({'mean over its seeds, ' if several else ''}chosen on the images it is measured on, "
        "which favours it)."
    )
    command = bundle_command(best.first.folder, run, best.first.job)
    if command is None:
        return f"{words} Its weights are not kept."
    return f"{words} To bundle its {'first ' if several else ''}seed {best.first.info.seed}:\n  {command}"
