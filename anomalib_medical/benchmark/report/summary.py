"""What a reader wants first: who is best on what, whether by more than chance, and what a shortcut reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from anomalib_medical.benchmark.records import PlannedJob
from anomalib_medical.benchmark.report import tables
from anomalib_medical.benchmark.report.results import Run
from anomalib_medical.benchmark.report.standing import Standing
from anomalib_medical.benchmark.report.tables import Cell, Table
from anomalib_medical.io import agree, counted

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


def summary_table(standing: Standing, jobs: Sequence[PlannedJob]) -> Table:
    """AUROC and AP with DeLong's test against the best model and PatchCore, and the strongest shortcuts below."""
    found, info = standing.contrasts, standing.dataset.info
    several = any(len(model.trainings) > 1 for model in standing.order)
    rows = []
    for model in standing.order:
        cells = [Cell(model.label, strong=model is standing.best), tables.value_cell(standing.auroc(model))]
        cells += [tables.seeds_cell(standing.auroc(model))] if several else []
        cells += [tables.contrast_cell(found[title].get(model.name)) for title in found]
        rows.append([*cells, tables.value_cell(standing.values[model.name]["image_ap"])])
    figures = [
        (model.label, {"AUROC": standing.auroc(model), "AP": standing.values[model.name]["image_ap"]})
        for model in standing.order
    ]
    notes = [_SUMMARY_NOTE, *_fewer_seeds(standing, jobs), *tables.without(figures), *_not_compared(standing)]
    shortcuts = info.shortcuts[:_SHORTCUTS] if info else []
    for shortcut in shortcuts:
        known = shortcut.low is not None and shortcut.high is not None
        small = f"[{shortcut.low:.3f}, {shortcut.high:.3f}]" if known else "no interval"
        cells = [Cell(f"shortcut: {shortcut.name}"), Cell(f"{shortcut.auroc:.3f}", small)]
        rows.append([*cells, *[Cell(tables.NOTHING)] * (len(rows[0]) - 2)])
    notes += [_SHORTCUT_NOTE] if shortcuts else []
    seeds = ["each seed"] if several else []
    against = [
        f"against {title}" if title != "best" else f"against the best ({model.label})"
        for title, model in standing.references.items()
    ]
    return Table("Summary", ["model", "AUROC", *seeds, *against, "AP"], rows, notes)


def overview_table(run: Run, standings: Mapping[str, Standing]) -> Table | None:
    """AUROC of every planned model on every dataset; None if there is no result."""
    if not standings:
        return None
    models = [model for standing in standings.values() for model in standing.order if not model.trivial]
    most = max((len(model.trainings) for model in models), default=1)
    planned = len({job.seed for job in run.planned})
    labels: dict[str, dict[str, None]] = {}
    trivial = {m.name for standing in standings.values() for m in standing.order if m.trivial}
    for job in sorted(run.planned, key=lambda job: job.model in trivial):
        labels.setdefault(job.model, {})[job.label] = None
    rows = [
        [
            Cell(" / ".join(labels[name])),
            *(
                _overview_cell(run, standings.get(dataset.name), dataset.name, name, most, named=len(labels[name]) > 1)
                for dataset in run.datasets
            ),
        ]
        for name in labels
    ]
    shortcuts = [Cell("strongest shortcut")]
    for dataset in run.datasets:
        strongest = dataset.info.shortcuts[0] if dataset.info and dataset.info.shortcuts else None
        shortcuts.append(Cell(f"{strongest.auroc:.3f}", strongest.name) if strongest else Cell(tables.NOTHING))
    empty = [cell for row in rows for cell in row if cell.text == tables.NOTHING]
    without = [f"{tables.NOTHING} Jobs have results, but there is no AUROC: why, the dataset's summary says."]
    notes = [
        _OVERVIEW_NOTE,
        *(without if empty else []),
        *([f"So far of {most} of {planned} planned seeds."] if most < planned else []),
    ]
    return Table("Overview", ["model", *(dataset.name for dataset in run.datasets)], [*rows, shortcuts], notes)


def brief_lines(run: Run, standings: Mapping[str, Standing]) -> list[tuple[str, str]]:
    """A dataset and what was found on it, in words."""
    lines = []
    for dataset in run.datasets:
        jobs = [job for job in run.planned if job.dataset == dataset.name]
        done = sum(job.job not in run.missing for job in jobs)
        fewer = f"{done} of {counted(len(jobs), 'job')} {agree(done, 'has', 'have')} results."
        words = ["No jobs are planned on it."] if not jobs else [] if done == len(jobs) else [fewer]
        standing = standings.get(dataset.name)
        if standing is not None:
            words = [*_order_words(standing), *_shortcut_words(standing), *words]
        lines.append((dataset.name, " ".join(words)))
    return lines


def _order_words(standing: Standing) -> list[str]:
    best = standing.best
    if best is None or (estimate := standing.auroc(best).estimate) is None:
        reasons = dict.fromkeys(standing.auroc(model).reason for model in standing.order)
        return [f"No model has an AUROC: {'; '.join(reasons)}."]
    kind = " (a trivial score)" if best.trivial else ""
    words = [
        f"{best.label}{kind} has the highest AUROC, {estimate.value:.3f} {tables.interval(estimate)}.",
    ]
    trained = next((model for model in standing.order if not model.trivial), best)
    if trained is not best and (own := standing.auroc(trained).estimate) is not None:
        words.append(f"The best trained model is {trained.label}, {own.value:.3f} {tables.interval(own)}.")
    others = [model for model in standing.order if model is not best]
    if standing.tied:
        words.append(
            f"DeLong's test does not tell {_list([model.label for model in standing.tied])} from {best.label}."
        )
    elif others and all((each := standing.contrast_with_best(model)) and each.significant for model in others):
        words.append(
            f"{'The other is' if len(others) == 1 else 'All others are'} lower than {best.label} by more than chance."
        )
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


def _overview_cell(run: Run, standing: Standing | None, dataset: str, name: str, most: int, *, named: bool) -> Cell:
    jobs = [job for job in run.planned if (job.dataset, job.model) == (dataset, name)]
    if not jobs:
        return Cell("not planned")
    model = next((model for model in standing.order if model.name == name), None) if standing else None
    if standing is None or model is None:
        return Cell(", ".join(dict.fromkeys(run.missing.get(job.job, "") for job in jobs)) or tables.NOTHING)
    cell = tables.value_cell(standing.auroc(model))
    text = f"{cell.text} ≈" if model in standing.tied else cell.text
    count = len(model.trainings)
    fewer = f" {count} of {counted(len(jobs), 'seed')}" if count < min(most, len(jobs)) else ""
    own = f" {model.label}" if named else ""
    return Cell(text, f"{cell.small}{fewer}{own}", model is standing.best and cell.text != tables.NOTHING, cell.title)


def _not_compared(standing: Standing) -> list[str]:
    """Say why models were not compared."""
    labels = {model.name: model.label for model in standing.order}
    groups: dict[str, dict[str, None]] = {}
    for found in standing.contrasts.values():
        for name, contrast in found.items():
            if reason := tables.why_not_compared(contrast):
                groups.setdefault(reason, {})[labels[name]] = None
    return [f"Not compared: {', '.join(names)} ({reason})." for reason, names in groups.items()]


def _fewer_seeds(standing: Standing, jobs: Sequence[PlannedJob]) -> list[str]:
    """Say which figures are of fewer seeds than planned."""
    planned = {model.name: sum(job.model == model.name for job in jobs) for model in standing.order}
    fewer = [
        f"{model.label} {len(model.trainings)} of {planned[model.name]}"
        for model in standing.order
        if len(model.trainings) < planned[model.name]
    ]
    return [f"Of fewer seeds than planned: {', '.join(fewer)}."] if fewer else []


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
