"""Models of a dataset compared in AUROC, by patients and by groups of images."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from anomalib_medical.benchmark.report.evaluate import DECISION, RANKING, Value, evaluate
from anomalib_medical.benchmark.report.results import Model, Training, align
from anomalib_medical.data.samples import METADATA
from anomalib_medical.metrics import Comparison, aggregate_patients, compare_auroc, holm
from anomalib_medical.metrics.arrays import BoolArray
from anomalib_medical.metrics.groups import class_members, group_members
from anomalib_medical.metrics.patient import Aggregation

ALPHA = 0.05
TOP_K = 3
AGGREGATIONS: tuple[Aggregation, ...] = ("mean", "max", "top_k")
# A column with more values is no grouping but a number or a name.
MAX_GROUPS = 20


@dataclass(frozen=True)
class Contrast:
    """A model against a reference on the images both have.

    Attributes:
        result: DeLong's test, None where it could not be made.
        adjusted: p-value after Holm's correction over the models of the dataset.
        n_images: Images both were tested on.
        reason: Why there is no result, else "".
    """

    result: Comparison | None
    adjusted: float
    n_images: int
    reason: str = ""

    @property
    def significant(self) -> bool:
        """Whether the models differ after the correction."""
        return self.adjusted < ALPHA


@dataclass(frozen=True)
class GroupRow:
    """A group of images and, for each model, AUROC and rates at its threshold."""

    group: str
    n_normal: int
    n_abnormal: int
    n_patients: int | None
    cells: list[dict[str, Value]]


def contrasts(models: list[Model], reference: Model) -> dict[str, Contrast]:
    """Compare every other model with a reference, corrected for their number."""
    found = {model.name: _contrast(model, reference) for model in models if model.name != reference.name}
    p_values = [each.result.p_value if each.result else float("nan") for each in found.values()]
    return {
        name: replace(contrast, adjusted=adjusted)
        for (name, contrast), adjusted in zip(found.items(), holm(p_values), strict=True)
    }


def by_patient(model: Model) -> dict[str, dict[str, Value]] | None:
    """Compute the ranking metrics on patient scores; None unless patients have several images."""
    patients = model.first.patients
    if patients is None or len(set(patients)) == len(patients):
        return None
    found: dict[str, dict[str, Value]] = {}
    for how in AGGREGATIONS:
        of_patients = replace(model, trainings=[_of_patients(each, how) for each in model.trainings])
        values = {metric.key: evaluate(of_patients, metric) for metric in RANKING}
        found[how] = {
            key: replace(value, reason=value.reason.replace("images", "patients")) for key, value in values.items()
        }
    return found


def group_columns(model: Model) -> tuple[list[str], list[str]]:
    """Return the metadata columns that group the images, and those that have too many values to do so."""
    columns = [str(column) for column in model.first.test if str(column).startswith(METADATA)]
    numbers = {column: model.first.test[column].nunique() for column in columns}
    return (
        [column for column in columns if 2 <= numbers[column] <= MAX_GROUPS],
        [column for column in columns if numbers[column] > MAX_GROUPS],
    )


def groups(models: list[Model], column: str) -> list[GroupRow]:
    """Evaluate the models within each group of a column; ``class_name`` means each abnormal class against normals."""
    rows: dict[str, GroupRow] = {}
    for place, model in enumerate(models):
        for name, members in _members(model, column).items():
            part = replace(model, trainings=[each.take(np.flatnonzero(members)) for each in model.trainings])
            labels = part.first.labels
            counts = int((labels == 0).sum()), int((labels == 1).sum())
            patients = None if part.first.patients is None else len(set(part.first.patients))
            row = rows.setdefault(name, GroupRow(name, *counts, patients, [{} for _ in models]))
            row.cells[place].update({metric.key: evaluate(part, metric) for metric in (RANKING[0], *DECISION[:2])})
    return [rows[name] for name in sorted(rows)]


def _members(model: Model, column: str) -> dict[str, BoolArray]:
    test = model.first.test
    if column not in test:
        return {}
    names = list(test[column].astype(str))
    return class_members(list(test.label), names) if column == "class_name" else group_members(names)


def _of_patients(training: Training, how: Aggregation) -> Training:
    """A training whose rows are patients."""
    patients = list(training.test.patient_hash)
    scores, labels = aggregate_patients(training.scores, training.labels, patients, how, TOP_K)
    table = training.test.drop_duplicates("patient_hash").sort_values("patient_hash").reset_index(drop=True)
    table = table.assign(raw_score=scores, label=labels, path_hash=table.patient_hash)
    return replace(training, test=table, pixels=None)


def _contrast(model: Model, reference: Model) -> Contrast:
    shared = align([*model.trainings, *reference.trainings])
    if shared is None:
        return Contrast(None, float("nan"), 0, "tested on different images")
    count = len(model.trainings)
    try:
        result = compare_auroc(
            np.stack([each.scores for each in shared[:count]]),
            np.stack([each.scores for each in shared[count:]]),
            shared[0].labels,
            shared[0].patients,
        )
    except ValueError as error:
        return Contrast(None, float("nan"), len(shared[0].labels), str(error).rstrip("."))
    return Contrast(result, float("nan"), len(shared[0].labels))
