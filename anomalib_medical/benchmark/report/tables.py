"""The tables and sentences of the report, the same for the page and for Markdown."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import compress

import numpy as np

from anomalib_medical.benchmark.records import Cost
from anomalib_medical.benchmark.report.cells import NOTHING, Cell, Table, value_cell
from anomalib_medical.benchmark.report.compare import WHOLES, Contrast, Standing, group_columns, groups, wholes
from anomalib_medical.benchmark.report.evaluate import CALIBRATION, DECISION, FAULTS, PIXEL, RANKING, Metric, Value
from anomalib_medical.benchmark.report.results import Model, Run, by_key, most_wrong, wrong_patients
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.data.samples import METADATA
from anomalib_medical.io import agree, counted
from anomalib_medical.metrics import Estimate

_SHORTCUTS = 3
_SUMMARY_NOTE = (
    "AUROC: mean over the seeds, 95% interval by resampling patients. Differences: DeLong's test on the same images "
    "(Obuchowski's form where patients have several); intervals unadjusted, p-values adjusted by Holm's method over "
    "the models of this dataset, * below 0.05. The best model was picked on this test set, which favours it."
)
_SHORTCUT_NOTE = (
    "Shortcuts show no disease; theirs is the larger of AUROC and 1 - AUROC. mean and std: of the image's pixels; "
    "nearest_train_thumbnail: distance to the most similar training image at 32x32 pixels."
)
_OVERVIEW_NOTE = (
    "Image AUROC with its 95% interval, mean over the seeds. Bold: the highest of a dataset. ≈: DeLong's test does not "
    "tell it from the highest (adjusted p of 0.05 or more), which is no proof that they are equal."
)
_OPERATING_NOTE = "Points on the ROC curve of the test set: they describe the curve and promise nothing of a threshold."
_CALIBRATION_NOTE = (
    "Lower is better. The normalised score is made so that 0.5 is the threshold, not to be a probability."
)
_WRONG_NOTE = (
    "A patient is called abnormal if one image is above the threshold. Shown is the image with the patient's highest "
    "score, of missed patients among the abnormal ones; where patients are unknown, every image for itself."
)
_WHOLE_NOTE = (
    "Abnormal is a patient, or a series, with at least one abnormal image, whatever the others are. Highest image: the "
    "score of series.csv and patients.csv, unless their model takes the mean of several; it grows with the number of "
    "images, as the mean of the top ones does. Intervals by resampling patients."
)
_BESIDE = {"patient_max.image_auroc": "patient AUROC", "series_max.image_auroc": "series AUROC"}
_BESIDE_NOTE = (
    "AUROC of patients, and of series: by the highest image of each; one abnormal image makes them abnormal. How many "
    "there are stands under By patient."
)
_ABSENT = Value(None, [])
_COST_NOTES = [
    "Means over the seeds, memory the largest.",
    "Latency: milliseconds for one image with pre- and post-processing, median (95th percentile), batch 1.",
]


def without(figures: Sequence[tuple[str, Mapping[str, Value]]]) -> list[str]:
    """Say which of the models' figures there are not, and why: tooltips reach few readers, and no file."""
    absent = []
    for label, own in figures:
        reasons = by_key((value.reason, title) for title, value in own.items() if value.estimate is None)
        for reason, titles in reasons.items():
            absent.append((("" if len(titles) == len(own) else f": {', '.join(titles)}", reason), label))
    return [
        f"Without figures: {'all models' if 1 < len(figures) == len(names) else ', '.join(names)}{which} ({reason})."
        for (which, reason), names in by_key(absent).items()
    ]


def _metric_table(title: str, standing: Standing, metrics: Sequence[Metric], notes: Iterable[str]) -> Table:
    """Models by metrics, less what nobody has, and why figures are missing."""
    figures = [
        (model.label, {each.title: standing.values[model.name][each.key] for each in metrics})
        for model in standing.dataset.models
    ]
    measured = {name for _, own in figures for name, value in own.items() if value.estimate}
    shown = [metric.title for metric in metrics if metric.title in measured]
    rows = [
        [Cell(label), *(value_cell(own[name]) for name in shown)]
        for label, own in figures
        if any(value.estimate for value in own.values())
    ]
    return Table(title, ["model", *shown], rows, [*(notes if rows else []), *without(figures)])


def tables_of(standing: Standing) -> list[Table]:
    """All tables of a dataset but the summary and what faults add."""
    models = standing.dataset.models
    sources = sorted({limits.source for m in models for each in m.trainings if (limits := each.job.thresholds)})
    held_out = all(limits.n_held_out for m in models for each in m.trainings if (limits := each.job.thresholds))
    how = "The threshold was set without test images" if held_out else "The threshold"
    source = [f"{how}: {'; '.join(sources)}."] if sources else []
    dice = ["Dice at the pixel threshold from held-out normals."]
    found = [
        _metric_table("Operating points", standing, RANKING[2:], [_OPERATING_NOTE]),
        _metric_table("At the threshold", standing, DECISION, source),
        _metric_table("Localisation", standing, PIXEL, dice),
        _wrong_table(standing),
        _patient_table(standing),
        _metric_table("Calibration of the normalised score", standing, CALIBRATION, [_CALIBRATION_NOTE]),
        _cost_table(models),
    ]
    trained = [model for model in models if not model.trivial] or models
    columns, skipped = group_columns(trained[0])
    tables = [table for table in found if table and (table.rows or table.notes)]
    tables += [table for column in ("class_name", *columns) if (table := _group_table(trained, column))]
    if skipped:
        names = ", ".join(column.removeprefix(METADATA) for column in skipped)
        tables[-1].notes.append(f"Not grouped, too many values: {names}.")
    return tables


def _patient_table(standing: Standing) -> Table | None:
    """Ranking metrics of patients and of series."""
    rows, reasons, units = [], set(), set()
    for model in standing.dataset.models:
        for key, whole in wholes(model).items():
            (unit, score, _), labels = WHOLES[key], whole.first.labels
            own = [standing.values[model.name][f"{key}.{metric.key}"] for metric in RANKING]
            units.add({"patients": "patient"}.get(unit, unit))
            reasons |= {value.reason for value in own if value.estimate is None}
            if any(value.estimate for value in own):
                counts = str(int((labels == 0).sum())), str(int((labels == 1).sum()))
                rows.append([*map(Cell, [model.label, unit, score, *counts]), *map(value_cell, own)])
    notes = [f"Not measured: {reason}." for reason in sorted(reasons)]
    if rows:
        notes.append(_WHOLE_NOTE)
    columns = ["model", "of", "score", "normal", "abnormal", *(metric.title for metric in RANKING)]
    return Table(f"By {' and '.join(sorted(units))}", columns, rows, notes) if notes else None


def _wrong_table(standing: Standing) -> Table | None:
    """Patients on the wrong side of the threshold, of each model's first training."""
    rows, more = [], 0
    for model in standing.dataset.models:
        shown, left = most_wrong(wrong_patients(model.first))
        more += left
        for each in shown:
            who = [each.patient or NOTHING, each.outcome, f"{each.wrong_images} of {each.images}", each.image]
            rows.append([*map(Cell, [model.label, *who, f"{each.raw_score:.4g}"])])
    columns = ["model", "patient", "outcome", "images wrong", "image", "score"]
    rest = [f"Of each model those that are wrong by most; {more} more are in wrong.csv."] if more else []
    return Table("Patients that are wrong", columns, rows, [_WRONG_NOTE, *rest], open=False) if rows else None


def _group_table(models: Sequence[Model], column: str) -> Table | None:
    """AUROC of each group, with sensitivity and specificity at the threshold; None for a single group."""
    rows = groups(models, column)
    if len(rows) < 2:
        return None

    def cell(values: Mapping[str, Value]) -> Cell:
        if not values:
            return Cell(NOTHING, title="not tested on this group")
        auroc = value_cell(values["image_auroc"])
        rates = [
            f"{short} {estimate.value:.2f}"
            for key, short in (("sensitivity", "sens."), ("specificity", "spec."))
            if (estimate := values[key].estimate) is not None
        ]
        return Cell(auroc.text, " ".join([auroc.small, *rates]).strip(), title=auroc.title)

    body = []
    for row in rows:
        counts = [str(row.n_normal), str(row.n_abnormal), NOTHING if row.n_patients is None else str(row.n_patients)]
        body.append([*map(Cell, [row.group or "(unknown)", *counts]), *map(cell, row.cells)])
    notes = ["AUROC, and sensitivity and specificity at the threshold. Of many small groups some differ by chance."]
    if any(not row.n_normal or not row.n_abnormal for row in rows):
        notes.append(f"{NOTHING} No AUROC: the group has images of one class only.")
    by_class = column == "class_name"
    title = "By class, each against all normal images" if by_class else f"By {column.removeprefix(METADATA)}"
    return Table(title, ["group", "normal", "abnormal", "patients", *(model.label for model in models)], body, notes)


def _cost_table(models: Sequence[Model]) -> Table | None:
    """What the models cost: the mean over trainings, the largest memory."""
    costs = [(model.label, [each.job.cost for each in model.trainings if each.job.cost]) for model in models]
    rows = [[Cell(label), *(show(own) for show in _COSTS.values())] for label, own in costs if own]
    # No GPU, no column of it.
    filled = [any(cell.text != NOTHING for cell in column) for column in zip(*rows, strict=True)]
    shown = [list(compress(row, filled)) for row in rows]
    return Table("Cost", list(compress(["model", *_COSTS], filled)), shown, _COST_NOTES) if rows else None


def _mean(costs: Sequence[Cost], name: str, show: Callable[[float], str]) -> Cell:
    values = [value for cost in costs if (value := getattr(cost, name)) is not None]
    pick = np.max if name.startswith("peak") else np.mean
    return Cell(show(float(pick(values))) if values else NOTHING)


def _latency(costs: Sequence[Cost], engine: str) -> Cell:
    times = [cost.latency[engine] for cost in costs if engine in cost.latency]
    if not times:
        return Cell(NOTHING)
    median, p95 = float(np.mean([time.median for time in times])), float(np.mean([time.p95 for time in times]))
    title = f"{counted(times[0].repeats, 'repeat')} on {times[0].device}"
    return Cell(f"{median:.1f} ms", f"({p95:.1f})", title=title)


_COSTS: dict[str, Callable[[Sequence[Cost]], Cell]] = {
    "training": partial(_mean, name="train_seconds", show=duration),
    "steps": partial(_mean, name="steps", show="{:.0f}".format),
    "epochs": partial(_mean, name="epochs", show="{:.0f}".format),
    "peak memory": partial(_mean, name="peak_memory_mib", show="{:.0f} MiB".format),
    "GPU memory": partial(_mean, name="peak_gpu_mib", show="{:.0f} MiB".format),
    "torch": partial(_latency, engine="torch"),
    "OpenVINO": partial(_latency, engine="openvino"),
    "parameters": partial(_mean, name="parameters", show=lambda number: f"{number / 1e6:.2f} M"),
    "size": partial(_mean, name="model_bytes", show=lambda number: f"{number / 2**20:.1f} MiB"),
}


def effect_tables(standing: Standing) -> list[Table]:
    """What each fault adds to each model, and the figures without and with it."""
    models, found = standing.dataset.models, standing.faults
    faults = [fault for fault in FAULTS if any(own[fault].added.estimate for own in found.values())]
    if not faults:
        return []
    figures = [(m.label, {FAULTS[fault].title: found[m.name][fault].added for fault in faults}) for m in models]
    rows = [[Cell(label), *(value_cell(value, "+") for value in own.values())] for label, own in figures]
    details = [
        [*map(Cell, (model.label, *FAULTS[fault])), value_cell(effect.clean), value_cell(effect.published)]
        for model in models
        for fault, effect in found[model.name].items()
        if effect.added.estimate
    ]
    share = float(models[0].first.labels.mean())
    notes = [
        f"Calling every image of this test set abnormal has an F1 of {2 * share / (1 + share):.3f}.",
        "Bold: the 95% interval leaves out 0.",
        *without(figures),
    ]
    columns = ["model", *(": ".join(FAULTS[fault]) for fault in faults)]
    return [
        Table("Added by each fault", columns, rows, notes),
        Table("Figures without and with each fault", ["model", "fault", "figure", "without", "with"], details),
    ]


def summary_table(standing: Standing, run: Run) -> Table:
    """AUROC and AP with DeLong's test against the best model and PatchCore, and the strongest shortcuts below."""
    dataset, order, values = standing.dataset, standing.order, standing.values
    measured = {key for own in values.values() for key, value in own.items() if value.estimate}
    shown = [key for key in _BESIDE if key in measured]
    several = any(len(model.trainings) > 1 for model in order)
    rows, figures = [], []
    for model in order:
        auroc, precision = standing.auroc(model), values[model.name]["image_ap"]
        figures.append((model.label, {"AUROC": auroc, "AP": precision}))
        seeds = [Cell(" ".join(f"{each:.3f}" for each in auroc.trainings) or NOTHING)] if several else []
        beside = [value_cell(values[model.name].get(key, _ABSENT)) for key in shown]
        against = [_contrast_cell(found.get(model.name)) for found in standing.contrasts.values()]
        label = Cell(model.label, strong=model is standing.best)
        rows.append([label, value_cell(auroc), *seeds, *beside, *against, value_cell(precision)])
    notes = [_SUMMARY_NOTE, *([_BESIDE_NOTE] if shown else []), *_fewer_seeds(standing, run)]
    notes += [*without(figures), *_not_compared(standing)]
    shortcuts = dataset.info.shortcuts[:_SHORTCUTS] if dataset.info else []
    for each in shortcuts:
        low, high = (math.nan if end is None else end for end in (each.low, each.high))
        reached = value_cell(Value(Estimate(each.auroc, low, high, 0, 0), []))
        rows.append([Cell(f"shortcut: {each.name}"), reached, *[Cell(NOTHING)] * (len(rows[0]) - 2)])
    notes += [_SHORTCUT_NOTE] if shortcuts else []
    titles = [f"the best ({m.label})" if title == "best" else m.label for title, m in standing.references.items()]
    columns = ["model", "AUROC", *(["each seed"] if several else []), *(_BESIDE[key] for key in shown)]
    columns += [*(f"against {each}" for each in titles), "AP"]
    return Table("Summary", columns, rows, notes)


def _contrast_cell(contrast: Contrast | None) -> Cell:
    """The difference in AUROC with its interval and adjusted p-value; marked if significant."""
    if contrast is None:
        return Cell("reference")
    result = contrast.result
    if result is None or contrast.reason:
        return Cell(NOTHING, title=contrast.reason)
    p_value = "p < 0.001" if contrast.adjusted < 0.001 else f"p = {contrast.adjusted:.3f}"
    title = f"DeLong, {counted(contrast.n_images, 'image')}; unadjusted p = {result.p_value:.3g}"
    text = f"{result.difference:+.3f}{'*' if contrast.significant else ''}"
    return Cell(text, f"[{result.low:+.3f}, {result.high:+.3f}], {p_value}", contrast.significant, title)


def _not_compared(standing: Standing) -> list[str]:
    """Say why models were not compared."""
    labels = {model.name: model.label for model in standing.order}
    found = [pair for contrasts in standing.contrasts.values() for pair in contrasts.items()]
    reasons = by_key((each.reason, labels[name]) for name, each in found if each.reason)
    return [f"Not compared: {', '.join(dict.fromkeys(names))} ({reason})." for reason, names in reasons.items()]


def _fewer_seeds(standing: Standing, run: Run) -> list[str]:
    """Say which figures are of fewer seeds than planned."""
    planned = Counter(job.model for job in run.of(standing.dataset.name))
    counts = [(model.label, len(model.trainings), planned[model.name]) for model in standing.order]
    fewer = [f"{label} {count} of {most}" for label, count, most in counts if count < most]
    return [f"Of fewer seeds than planned: {', '.join(fewer)}."] if fewer else []


def overview_table(run: Run, standings: Mapping[str, Standing]) -> Table | None:
    """AUROC of every planned model on every dataset; None if there is no result."""
    if not standings:
        return None
    models = [model for standing in standings.values() for model in standing.order if not model.trivial]
    most = max((len(model.trainings) for model in models), default=1)
    planned = len({job.seed for job in run.planned})
    labels = by_key((job.model, job.label) for job in sorted(run.planned, key=lambda job: job.kind == "trivial"))
    rows = [
        [
            Cell(" / ".join(dict.fromkeys(own))),
            *(_overview_cell(run, standings, each.name, name, most, named=len(set(own)) > 1) for each in run.datasets),
        ]
        for name, own in labels.items()
    ]
    notes = [_OVERVIEW_NOTE]
    if any(cell.text == NOTHING for row in rows for cell in row):
        notes.append(f"{NOTHING} Jobs have results, but there is no AUROC: why, the dataset's summary says.")
    if most < planned:
        notes.append(f"So far of {most} of {planned} planned seeds.")
    strongest = [dataset.info.shortcuts[:1] if dataset.info else [] for dataset in run.datasets]
    shortcuts = [Cell(f"{each[0].auroc:.3f}", each[0].name) if each else Cell(NOTHING) for each in strongest]
    rows.append([Cell("strongest shortcut"), *shortcuts])
    return Table("Overview", ["model", *(dataset.name for dataset in run.datasets)], rows, notes)


def _overview_cell(
    run: Run, standings: Mapping[str, Standing], dataset: str, name: str, most: int, *, named: bool
) -> Cell:
    jobs = [job for job in run.of(dataset) if job.model == name]
    if not jobs:
        return Cell("not planned")
    standing = standings.get(dataset)
    model = next((model for model in standing.order if model.name == name), None) if standing else None
    if standing is None or model is None:
        return Cell(", ".join(dict.fromkeys(run.missing.get(job.job, NOTHING) for job in jobs)))
    cell = value_cell(standing.auroc(model))
    text = f"{cell.text} ≈" if model in standing.tied else cell.text
    count = len(model.trainings)
    fewer = f" {count} of {counted(len(jobs), 'seed')}" if count < min(most, len(jobs)) else ""
    own = f" {model.label}" if named else ""
    return Cell(text, f"{cell.small}{fewer}{own}", model is standing.best, cell.title)


def brief_lines(run: Run, standings: Mapping[str, Standing]) -> list[tuple[str, str]]:
    """A dataset and what was found on it, in words."""
    lines = []
    for dataset in run.datasets:
        jobs, standing = run.of(dataset.name), standings.get(dataset.name)
        done = sum(job.job not in run.missing for job in jobs)
        words = [*_order_words(standing), *_shortcut_words(standing)] if standing else []
        if not jobs:
            words.append("No jobs are planned on it.")
        elif done < len(jobs):
            words.append(f"{done} of {counted(len(jobs), 'job')} {agree(done, 'has', 'have')} results.")
        lines.append((dataset.name, " ".join(words)))
    return lines


def _order_words(standing: Standing) -> list[str]:
    best = standing.best
    if best is None:
        reasons = dict.fromkeys(standing.auroc(model).reason for model in standing.order)
        return [f"No model has an AUROC: {'; '.join(reasons)}."]
    kind = " (a trivial score)" if best.trivial else ""
    words = [f"{best.label}{kind} has the highest AUROC, {standing.auroc(best).estimate}."]
    trained = next((model for model in standing.order if not model.trivial), best)
    if trained is not best and (own := standing.auroc(trained).estimate) is not None:
        words.append(f"The best trained model is {trained.label}, {own}.")
    tied = [model.label for model in standing.tied]
    others = standing.contrasts["best"].values()
    if tied:
        names = " and ".join([*([", ".join(tied[:-1])] if tied[1:] else []), tied[-1]])
        words.append(f"DeLong's test does not tell {names} from {best.label}.")
    elif others and all(each.significant for each in others):
        subject = "The other is" if len(others) == 1 else "All others are"
        words.append(f"{subject} lower than {best.label} by more than chance.")
    return words


def _shortcut_words(standing: Standing) -> list[str]:
    info, best = standing.dataset.info, standing.best
    if info is None or not info.shortcuts or best is None or (estimate := standing.auroc(best).estimate) is None:
        return []
    strongest = info.shortcuts[0]
    if estimate.value <= strongest.auroc:
        return [f"A shortcut that shows no disease reaches as much: {strongest.name}, {strongest.auroc:.3f}."]
    near = ", within that interval" if estimate.low <= strongest.auroc else ""
    return [f"The strongest shortcut, {strongest.name}, reaches {strongest.auroc:.3f}{near}."]
