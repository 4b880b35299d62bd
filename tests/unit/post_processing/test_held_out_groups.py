"""Thresholds of series and patients, and what a checkpoint and a device are told of them."""

import logging
from types import SimpleNamespace

import pytest
import torch

from anomalib_medical.edge.manifest import Calibration, PostProcessing
from anomalib_medical.post_processing import MedicalPostProcessor, device_facts
from anomalib_medical.post_processing.held_out_groups import HeldOutGroups

TRAINER = SimpleNamespace(sanity_checking=False, global_step=7, datamodule=None)


def batch(scores, series=None, patients=None, labels=None, names=None):
    scores = torch.as_tensor(scores, dtype=torch.float32)
    return SimpleNamespace(
        pred_score=scores,
        gt_label=None if labels is None else torch.tensor(labels),
        anomaly_map=None,
        series_id=series,
        patient_id=patients,
        image_path=names,
    )


def validate(post_processor, *batches):
    for each in batches:
        post_processor.on_validation_batch_end(TRAINER, None, each)
    post_processor.on_validation_epoch_end(TRAINER, None)
    return post_processor


def series_of(count, slices=2, first=0):
    """Series of slices with scores of their number and a bit more, one patient for each two."""
    scores = [number + part / 10 for number in range(first, first + count) for part in range(slices)]
    names = [f"s{number}" for number in range(first, first + count) for _ in range(slices)]
    patients = [f"p{number // 2}" for number in range(first, first + count) for _ in range(slices)]
    return batch(scores, names, patients)


def test_the_threshold_of_series_is_the_order_statistic_of_their_highest_scores():
    made = validate(MedicalPostProcessor(), series_of(10), series_of(20, first=10))
    # 30 series: ceil(31 * 0.95) = 30, the largest; 15 patients: the largest too.
    assert made.groups["series"] == {
        "threshold": pytest.approx(29.1),
        "minimum": pytest.approx(0.1),
        "maximum": pytest.approx(29.1),
        "held_out": 30,
    }
    assert made.groups["patient"]["held_out"] == 15
    assert made.groups["patient"]["minimum"] == pytest.approx(1.1)
    half = validate(MedicalPostProcessor(target_specificity=0.5), series_of(9))
    assert half.groups["series"]["threshold"] == pytest.approx(4.1)


def test_the_mean_of_the_highest_scores_is_taken_if_it_is_asked_for():
    made = validate(MedicalPostProcessor(series_top=2), series_of(5, slices=3))
    assert made.groups["series"]["maximum"] == pytest.approx(4.15)


def test_a_series_with_an_abnormal_slice_is_no_normal_one_and_its_patient_neither():
    groups = HeldOutGroups()
    scores = torch.tensor([1.0, 2.0, 3.0, 9.0])
    groups.update(
        batch(scores, ["a", "a", "b", "b"], ["p", "p", "p", "p"]), scores, torch.tensor([True, True, True, False])
    )
    assert groups.calibrate(0.95, 1) == {"series": {"threshold": 2.0, "minimum": 2.0, "maximum": 2.0, "held_out": 1}}


def test_pictures_of_no_series_set_no_threshold():
    made = validate(MedicalPostProcessor(), batch([1.0, 2.0], ["", ""], ["a", "b"]), batch([3.0]))
    assert made.groups == {}
    facts = device_facts(made)
    assert facts.image.threshold == 3
    assert facts.series == facts.patient == Calibration()
    assert facts.held_out_series is None


def test_a_repeated_image_counts_once_and_scores_that_are_no_numbers_not_at_all():
    made = validate(
        MedicalPostProcessor(series_top=2),
        batch([1.0, 3.0, float("nan")], ["a"] * 3, ["p"] * 3, names=["1", "2", "3"]),
        batch([3.0], ["a"], ["p"], names=["2"]),
    )
    assert made.groups["series"]["threshold"] == 2


def test_a_checkpoint_and_a_device_are_told():
    made = validate(MedicalPostProcessor(series_top=3, image_sensitivity=0.6), series_of(20))
    restored = MedicalPostProcessor()
    restored.load_checkpoint_config(made.checkpoint_config())
    restored.load_state_dict(made.state_dict())
    facts = device_facts(restored)
    assert facts.series_top == 3
    assert (facts.held_out_series, facts.held_out_patients) == (20, 10)
    assert facts.series.limit == facts.image.limit == pytest.approx(0.4)
    assert facts.series.threshold == made.groups["series"]["threshold"]
    assert facts == device_facts(made)


def test_a_checkpoint_of_before_has_no_threshold_of_series():
    config = MedicalPostProcessor().checkpoint_config()
    del config["groups"], config["series_top"]
    restored = validate(MedicalPostProcessor(), series_of(3))
    restored.load_checkpoint_config(config)
    assert restored.groups == {}
    assert restored.series_top == 1
    old = {"normalization": "none", "image": {}, "pixel": {}}
    assert PostProcessing.of(old).series == Calibration()


def test_other_scores_take_the_threshold_of_series_away():
    made = validate(MedicalPostProcessor(), series_of(3))
    made.calibrate(torch.tensor([1.0, 2.0]))
    assert made.groups == {}
    made = validate(MedicalPostProcessor(), series_of(3))
    made.invalidate()
    assert made.groups == {}


def test_too_few_series_are_told_as_too_few_images_are(caplog):
    caplog.set_level(logging.INFO)
    made = validate(MedicalPostProcessor(), series_of(4))
    made.on_fit_end(TRAINER, None)
    assert (
        "Threshold of a series 3.1, from 4 held-out normal ones (too few for 95%, of which 19 are needed)."
        in caplog.text
    )
    assert "Threshold of a patient" in caplog.text


def test_a_number_of_slices_below_one_is_refused():
    with pytest.raises(ValueError, match="series_top: got 0, expected a number of slices of 1 or more"):
        MedicalPostProcessor(series_top=0)


def test_the_slices_of_all_processes_are_put_together(monkeypatch):
    """A series may have been dealt to several, and an image to two."""
    scores, normal = torch.tensor([1.0, 4.0]), torch.tensor([True, True])
    groups = HeldOutGroups()
    groups.update(batch(scores, ["a", "b"], ["p", "p"], names=["1", "2"]), scores, normal)
    other = HeldOutGroups()
    other.update(batch(scores, ["b", "b"], ["p", "p"], names=["2", "3"]), scores, normal)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)

    def gather(target, own):
        target[:] = [own, other._slices]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    found = groups.calibrate(0.95, 1)
    assert found["series"] == {"threshold": 4.0, "minimum": 1.0, "maximum": 4.0, "held_out": 2}
    assert found["patient"]["held_out"] == 1
