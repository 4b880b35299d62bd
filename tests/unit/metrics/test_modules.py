"""The torchmetrics class against the functions."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import BinaryAUROC

from anomalib_medical.metrics import WithInterval, f1, image_auroc, sensitivity_at_specificity

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 2
SCORES = RNG.normal(size=60) + LABELS
PATIENTS = [f"p{i // 2}" for i in range(60)]


def filled(metric, rows=slice(None), dtype=torch.float64, patients=True, **arguments):
    module = WithInterval(metric, **arguments)
    for batch in np.array_split(np.arange(60)[rows], 4):
        ids = [PATIENTS[i] for i in batch] if patients else None
        module.update(torch.tensor(SCORES[batch], dtype=dtype), torch.tensor(LABELS[batch]), ids)
    return module


@pytest.mark.parametrize(
    ("metric", "arguments"),
    [(image_auroc, {}), (f1, {"threshold": 0.5}), (sensitivity_at_specificity, {"target_specificity": 0.9})],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_the_function(metric, arguments, dtype):
    found = filled(metric, dtype=dtype, n_resamples=100, **arguments).compute()
    expected = metric(torch.tensor(SCORES, dtype=dtype), LABELS, n_resamples=0, **arguments)
    assert float(found["value"]) == pytest.approx(expected.value)
    assert float(found["low"]) < expected.value < float(found["high"])


def test_intervals_are_of_patients_and_optional():
    clustered, naive = (filled(image_auroc, patients=patients).compute() for patients in (True, False))
    plain = image_auroc(SCORES, LABELS)
    assert float(naive["low"]) == pytest.approx(plain.low)
    # The order of the patients decides the draws, so that the interval is the same up to those.
    assert float(clustered["low"]) == pytest.approx(image_auroc(SCORES, LABELS, PATIENTS).low, abs=0.03)
    assert math.isnan(float(filled(image_auroc, n_resamples=0).compute()["low"]))


def test_value_is_that_of_torchmetrics():
    reference = BinaryAUROC()
    reference.update(torch.tensor(SCORES), torch.tensor(LABELS))
    # BinaryAUROC squeezes scores outside [0, 1] through a sigmoid in single precision.
    assert float(filled(image_auroc).compute()["value"]) == pytest.approx(float(reference.compute()), abs=1e-3)


def test_parts_from_other_processes_are_joined_and_reset_forgets():
    first, second = filled(image_auroc, slice(0, 20)), filled(image_auroc, slice(20, None))
    first.merge_state(second)
    assert first.compute() == filled(image_auroc).compute()
    first.reset()
    first.update(torch.tensor([0.1, 0.9]), torch.tensor([0, 1]))
    assert float(first.compute()["value"]) == 1


def test_bad_input_is_named():
    module = filled(image_auroc)
    with pytest.raises(ValueError, match="1 patient ids for 2 images"):
        module.update(torch.zeros(2), torch.zeros(2), ["a"])
    module = filled(image_auroc)
    module.update(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="patients of 60 of 62 images"):
        module.compute()


def test_what_is_undefined_is_nan_with_a_warning(caplog):
    metric = WithInterval(image_auroc, n_resamples=10)
    assert all(value.isnan() for value in metric.compute().values())
    metric.update(torch.tensor([0.1, 0.9]), torch.tensor([1, 1]))
    assert all(value.isnan() for value in metric.compute().values())
    metric.reset()
    metric.update(torch.tensor([0.1, float("nan")]), torch.tensor([0, 1]))
    assert all(value.isnan() for value in metric.compute().values())
    assert "image_auroc is nan: it was given no images" in caplog.text
    assert "there are 0 normal and 2 abnormal ones" in caplog.text
    assert "1 of 2 scores are nan or infinite" in caplog.text
