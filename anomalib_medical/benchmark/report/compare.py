"""Models of a dataset compared in AUROC, by patients and by groups of images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
from pandas import DataFrame

from anomalib_medical.benchmark.report.evaluate import DECISION, RANKING, Effect, Value, evaluate
from anomalib_medical.benchmark.report.results import Dataset, Model, Training, align
from anomalib_medical.data.samples import METADATA
from anomalib_medical.metrics import Comparison, aggregate_patients, compare_auroc, holm
from anomalib_medical.metrics.groups import Aggregation, class_members, group_members
from anomalib_medical.post_processing.groups import Group, GroupedScore, Unit, wholes_of

ALPHA = 0.05
TOP_K = 3
# A column with more values is no grouping but a number or a name.
MAX_GROUPS = 20


@dataclass(frozen=True)
class Contrast:
    """A model against a reference on the images both have."""

    result: Comparison | None  # DeLong's test, None where it could not be made
    n_images: int
    reason: str = ""  # why there is no result
    adjusted: float = math.nan  # p-value after Holm's correction over the models of the dataset

    @property
    def significant(self) -> bool:
        """Whether the models differ after the correction."""
        return self.adjusted < ALPHA


@dataclass(frozen=True)
class Standing:
    """The models of a dataset with results, and how they stand to each other."""

    dataset: Dataset
    values: Mapping[str, Mapping[str, Value]]  # model -> metric -> value
    faults: Mapping[str, Mapping[str, Effect]] = field(default_factory=dict)  # model -> fault

    def auroc(self, model: Model) -> Value:
        """Image AUROC of a model."""
        return self.values[model.name]["image_auroc"]

    @cached_property
    def order(self) -> list[Model]:
        """The highest AUROC first, models without one last."""
        estimates = {model.name: self.auroc(model).estimate for model in self.dataset.models}
        return sorted(self.dataset.models, key=lambda model: -each.value if (each := estimates[model.name]) else 1)

    @cached_property
    def references(self) -> dict[str, Model]:
        """Whom all are compared with: ``best`` and, unless that is one, the best ``PatchCore``; none without AUROCs."""
        ranked = [model for model in self.order if self.auroc(model).estimate]
        rival = [model for model in ranked if _is_patchcore(model)][:1]
        others = [model for model in rival if model is not ranked[0]]
        return dict(zip(("best", "PatchCore"), ranked[:1] + others, strict=False))

    @cached_property
    def contrasts(self) -> dict[str, dict[str, Contrast]]:
        """Title -> model -> its comparison."""
        return {title: contrasts(self.dataset.models, model) for title, model in self.references.items()}

    @property
    def best(self) -> Model | None:
        """The model with the highest AUROC; None if no model has one."""
        return self.references.get("best")

    @property
    def tied(self) -> list[Model]:
        """The models that DeLong's test does not tell from the best."""
        against = self.contrasts.get("best", {})
        return [model for model in self.order if model.name in against and against[model.name].adjusted >= ALPHA]


def contrasts(models: Sequence[Model], reference: Model) -> dict[str, Contrast]:
    """Compare every other model with a reference, corrected for their number."""
    found = {model.name: _contrast(model, reference) for model in models if model.name != reference.name}
    adjusted = holm([each.result.p_value if each.result else math.nan for each in found.values()])
    return {name: replace(each, adjusted=p) for (name, each), p in zip(found.items(), adjusted, strict=True)}


def _contrast(model: Model, reference: Model) -> Contrast:
    shared = align([*model.trainings, *reference.trainings])
    if shared is None:
        return Contrast(None, 0, "tested on different images")
    scores, count, labels = np.stack([each.scores for each in shared]), len(model.trainings), shared[0].labels
    try:
        result = compare_auroc(scores[:count], scores[count:], labels, shared[0].patients)
    except ValueError as error:
        return Contrast(None, labels.size, str(error).rstrip("."))
    return Contrast(result, labels.size, "too few patients of a class" if math.isnan(result.p_value) else "")


def _is_patchcore(model: Model) -> bool:
    return str(model.first.info.spec.get("class_path", "")).rpartition(".")[2].lower() == "patchcore"


def by_patient(model: Model) -> dict[str, Value]:
    """The ranking metrics of patients and of series, as ``patient_max.<metric>``, ``series_max.<metric>``, ..."""
    found = {}
    for key, whole in wholes(model).items():
        for metric in RANKING:
            value = evaluate(whole, metric)
            found[f"{key}.{metric.key}"] = replace(value, reason=value.reason.replace("images", WHOLES[key].unit))
    return found


def wholes(model: Model) -> dict[str, Model]:
    """The model with patients, and series, in place of images, by the names of `WHOLES`; of those in `wholes_of`."""
    there, first = _wholes(model.first), model.first
    # Their images are the same, in one order; the hashes of files of predictions are salted in each run's folder.
    names = {"patient_hash": first.patients or "", "series_hash": first.series}
    trainings = [replace(each, test=each.test.assign(**names)) for each in model.trainings]
    return {
        key: replace(model, trainings=[whole.make(each) for each in trainings])
        for key, whole in WHOLES.items()
        if whole.unit in there
    }


def _wholes(training: Training) -> dict[Unit, list[Group]]:
    patients = training.patients or [""] * len(training.test)
    images = zip(training.series, patients, training.scores.tolist(), map(bool, training.labels), strict=True)
    return wholes_of([GroupedScore(*image) for image in images])


def _of_groups(training: Training, unit: Unit) -> Training:
    """A training whose rows are patients, or series, as `series.csv` has them."""
    table = DataFrame(_wholes(training)[unit])
    table = table.rename(columns={"name": "path_hash", "patient": "patient_hash", "score": "raw_score"})
    return replace(training, test=table.assign(label=table.abnormal.astype(int)), pixels=None)


def _of_patients(training: Training, how: Aggregation) -> Training:
    """A training whose rows are patients with another score."""
    patients = list(training.test.patient_hash)
    scores, labels = aggregate_patients(training.scores, training.labels, patients, how, TOP_K)
    table = training.test.drop_duplicates("patient_hash").reset_index(drop=True)
    table = table.assign(raw_score=scores, label=labels, path_hash=table.patient_hash)
    return replace(training, test=table, pixels=None)


class Whole(NamedTuple):
    """What is looked at in place of images, and what its score is."""

    unit: Unit
    score: str
    make: Callable[[Training], Training]


WHOLES = {
    "patient_max": Whole("patients", "highest image", partial(_of_groups, unit="patients")),
    "patient_mean": Whole("patients", "mean of images", partial(_of_patients, how="mean")),
    "patient_top_k": Whole("patients", f"mean of top {TOP_K}", partial(_of_patients, how="top_k")),
    "series_max": Whole("series", "highest image", partial(_of_groups, unit="series")),
}


@dataclass(frozen=True)
class GroupRow:
    """A group of images and, for each model, AUROC and rates at its threshold."""

    group: str
    n_normal: int
    n_abnormal: int
    n_patients: int | None
    cells: list[dict[str, Value]]  # empty where the model was not tested on the group


def group_columns(model: Model) -> tuple[list[str], list[str]]:
    """Return the metadata columns that group the images, and those that have too many values to do so."""
    numbers = {
        name: model.first.test[name].nunique() for name in map(str, model.first.test) if name.startswith(METADATA)
    }
    return (
        [column for column, number in numbers.items() if 2 <= number <= MAX_GROUPS],
        [column for column, number in numbers.items() if number > MAX_GROUPS],
    )


def groups(models: Sequence[Model], column: str) -> list[GroupRow]:
    """Evaluate the models within each group of a column; ``class_name`` means each abnormal class against normals."""
    rows: dict[str, GroupRow] = {}
    for place, model in enumerate(models):
        test = model.first.test
        if column not in test:
            continue
        names = list(test[column].astype(str))
        members = class_members(test.label, names) if column == "class_name" else group_members(names)
        for name, own in members.items():
            part = replace(model, trainings=[each.take(np.flatnonzero(own)) for each in model.trainings])
            labels, patients = part.first.labels, part.first.patients
            counts = int((labels == 0).sum()), int((labels == 1).sum())
            n_patients = None if patients is None else len(set(patients))
            row = rows.setdefault(name, GroupRow(name, *counts, n_patients, [{} for _ in models]))
            row.cells[place].update({metric.key: evaluate(part, metric) for metric in (RANKING[0], *DECISION[:2])})
    return [rows[name] for name in sorted(rows)]
