"""Rows of metrics.csv."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from anomalib_medical.benchmark.report.evaluate import Value
from anomalib_medical.benchmark.report.faults import Effect
from anomalib_medical.benchmark.report.results import Dataset, Model


def metric_rows(
    dataset: Dataset,
    model: Model,
    values: Mapping[str, Value],
    patients: Mapping[str, Mapping[str, Value]] | None,
    faults: Sequence[Effect],
) -> Iterator[dict[str, object]]:
    """Yield a row for every figure of a model on a dataset, by image, by patient and of the faults."""
    found = dict(values)
    found |= {f"patient_{how}.{key}": value for how, own in (patients or {}).items() for key, value in own.items()}
    found |= {f"fault.{effect.fault}": effect.added for effect in faults}
    for metric, value in found.items():
        estimate = value.estimate
        numbers: tuple[object, ...] = ("", "", "", "", "")
        if estimate is not None:
            numbers = (estimate.value, estimate.low, estimate.high, estimate.n_images, estimate.n_patients)
        names = ("value", "low", "high", "n_images", "n_patients")
        yield {
            "dataset": dataset.name,
            "model": model.name,
            "metric": metric,
            **dict(zip(names, numbers, strict=True)),
            "n_seeds": len(model.trainings),
            "reason": value.reason,
        }
