import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import ImageBatch, InferenceBatch
from anomalib.post_processing import PostProcessor
from hypothesis import given
from hypothesis import strategies as st

from anomalib_medical.post_processing import MedicalPostProcessor, raw_threshold


def fit(post_processor, scores, labels=None, maps=None, batch_size=7):
    """Show the post-processor a validation set as the trainer would."""
    scores = torch.as_tensor(scores, dtype=torch.float32)
    for start in range(0, len(scores), batch_size):
        part = slice(start, start + batch_size)
        batch = ImageBatch(
            image=torch.zeros(len(scores[part]), 3, 8, 8),
            pred_score=scores[part],
            gt_label=None if labels is None else torch.as_tensor(labels)[part],
            anomaly_map=None if maps is None else maps[part],
        )
        post_processor.on_validation_batch_end(None, None, batch)
    post_processor.on_validation_epoch_end(None, None)
    return post_processor


def test_threshold_is_the_order_statistic_of_split_conformal_prediction():
    scores = torch.randperm(99).float()
    assert float(fit(MedicalPostProcessor(), scores).image_threshold) == 94.0  # the 95th smallest of 0..98
    assert float(fit(MedicalPostProcessor(target_specificity=0.5), scores).image_threshold) == 49.0


def test_specificity_on_new_normals_is_the_target_on_average():
    generator = np.random.default_rng(0)
    specificities = []
    for _ in range(200):
        post_processor = fit(MedicalPostProcessor(), generator.normal(size=40), batch_size=40)
        specificities.append((generator.normal(size=2000) <= float(post_processor.image_threshold)).mean())
    # Exactly 39 / 41 in expectation: the 39th smallest of 40.
    assert np.mean(specificities) == pytest.approx(39 / 41, abs=0.006)


def test_abnormal_validation_images_change_nothing():
    normals = torch.linspace(0, 1, 40)
    alone = fit(MedicalPostProcessor(), normals, torch.zeros(40, dtype=torch.int))
    mixed = fit(
        MedicalPostProcessor(),
        torch.cat([normals, torch.full((30,), 9.0)]),
        torch.cat([torch.zeros(40, dtype=torch.int), torch.ones(30, dtype=torch.int)]),
    )
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(value, mixed.state_dict()[key], equal_nan=True)


def test_too_few_normals_take_the_largest_and_say_so(caplog):
    with caplog.at_level(logging.WARNING):
        post_processor = fit(MedicalPostProcessor(), [0.1, 0.3, 0.2])
        post_processor.on_fit_end(SimpleNamespace(global_step=0), None)
    assert float(post_processor.image_threshold) == pytest.approx(0.3)
    assert "3 held-out normal images are too few for a specificity of 95% (19 are needed)" in caplog.text


def test_nineteen_normals_are_enough(caplog):
    with caplog.at_level(logging.WARNING):
        fit(MedicalPostProcessor(), torch.arange(19.0)).on_fit_end(SimpleNamespace(global_step=0), None)
    assert not caplog.text


def test_without_normals_there_is_no_threshold_and_scores_stay(caplog):
    with caplog.at_level(logging.WARNING):
        post_processor = fit(MedicalPostProcessor(), [1.0, 2.0], torch.ones(2, dtype=torch.int))
    assert "holds no normal image" in caplog.text
    assert post_processor.image_threshold.isnan()
    batch = ImageBatch(image=torch.zeros(2, 3, 8, 8), pred_score=torch.tensor([1.0, 2.0]))
    post_processor.post_process_batch(batch)
    assert batch.pred_score.tolist() == [1.0, 2.0]


def test_pixel_threshold_keeps_normal_images_without_a_mark():
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(100, 1, 8, 8, generator=generator)
    post_processor = fit(MedicalPostProcessor(), maps.mean((1, 2, 3)), maps=maps)
    marked = (maps > post_processor.pixel_threshold).flatten(1).any(dim=1)
    assert marked.sum() == 4  # rank 96 of 100: the 4 largest lie above


@pytest.mark.parametrize("maps", [None, torch.full((30, 1, 8, 8), torch.nan)], ids=["no maps", "no finite value"])
def test_a_pixel_threshold_of_earlier_maps_is_dropped(maps):
    scores = torch.linspace(0, 1, 30)
    post_processor = fit(MedicalPostProcessor(), scores, maps=torch.rand(30, 1, 8, 8) + 2)
    assert post_processor.pixel_threshold > 2
    fit(post_processor, scores, maps=maps)
    fresh = fit(MedicalPostProcessor(), scores)
    for key, value in fresh.state_dict().items():
        torch.testing.assert_close(post_processor.state_dict()[key], value, equal_nan=True)
    # anomalib's, where there is none.
    assert post_processor.pixel_threshold == post_processor.image_threshold


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=20, unique=True))
def test_normalised_scores_keep_their_order_and_the_decision(scores):
    post_processor = fit(MedicalPostProcessor(), torch.linspace(0, 1, 40))
    ordered = torch.tensor(sorted(scores))
    # Neighbours closer than float32 can tell apart after the mapping are no failure of it.
    ordered = ordered[torch.cat([torch.tensor([True]), ordered.diff() > 1e-2])]
    result = post_processor(InferenceBatch(pred_score=ordered, anomaly_map=torch.zeros(len(ordered), 1, 4, 4)))
    assert (result.pred_score.diff() > 0).all()
    assert ((result.pred_score > 0) & (result.pred_score < 1)).all()
    assert torch.equal(result.pred_label, ordered > post_processor.image_threshold)


def test_batch_and_graph_agree():
    maps = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    post_processor = fit(MedicalPostProcessor(), maps.amax((1, 2, 3)), maps=maps)
    new = 1.5 * torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    batch = ImageBatch(image=torch.zeros(5, 3, 8, 8), pred_score=new.amax((1, 2, 3)), anomaly_map=new.clone())
    post_processor.post_process_batch(batch)
    graph = post_processor(InferenceBatch(pred_score=new.amax((1, 2, 3)), anomaly_map=new))
    torch.testing.assert_close(batch.pred_score, graph.pred_score)
    torch.testing.assert_close(batch.anomaly_map, graph.anomaly_map[:, 0])
    assert torch.equal(batch.pred_label, graph.pred_label)
    assert torch.equal(batch.pred_mask, graph.pred_mask[:, 0])


def test_constant_scores_stay_finite():
    post_processor = fit(MedicalPostProcessor(), torch.zeros(25))
    result = post_processor(InferenceBatch(pred_score=torch.tensor([0.0, 1.0]), anomaly_map=torch.zeros(2, 1, 4, 4)))
    assert result.pred_score.isfinite().all()
    assert result.pred_label.tolist() == [False, True]


def test_f1_waits_for_no_process_without_masks():
    strategy = SimpleNamespace(reduce_boolean_decision=lambda _, all: not all)  # noqa: A006 - Lightning's name
    trainer = SimpleNamespace(world_size=2, strategy=strategy)
    with pytest.raises(ValueError, match=r"a mask in every process.*--trainer\.devices 1"):
        MedicalPostProcessor(threshold="f1").on_validation_epoch_end(trainer, None)


def test_f1_is_anomalibs_own():
    scores, labels = torch.tensor([0.1, 0.2, 0.7, 0.9]), torch.tensor([0, 0, 1, 1])
    ours = fit(MedicalPostProcessor(threshold="f1"), scores, labels)
    theirs = fit(PostProcessor(), scores, labels)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(value, ours.state_dict()[key], equal_nan=True)
    new = InferenceBatch(pred_score=torch.tensor([0.0, 0.5, 2.0]), anomaly_map=torch.zeros(3, 1, 4, 4))
    torch.testing.assert_close(ours(new).pred_score, theirs(new).pred_score)


def test_its_state_is_anomalibs():
    assert MedicalPostProcessor().state_dict().keys() == PostProcessor().state_dict().keys()


def test_configuration_survives_a_checkpoint():
    restored = MedicalPostProcessor()
    restored.load_checkpoint_config(MedicalPostProcessor(threshold="f1", target_specificity=0.8).checkpoint_config())
    assert (restored.threshold, restored.target_specificity) == ("f1", 0.8)


@pytest.mark.parametrize("value", [0, 1, 95, -0.1])
def test_target_outside_0_and_1_is_refused(value):
    with pytest.raises(ValueError, match=r"target_specificity: got .*expected a share between 0 and 1"):
        MedicalPostProcessor(target_specificity=value)


@pytest.mark.parametrize("sensitivity", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("threshold", ["specificity", "f1"])
def test_the_raw_pixel_threshold_is_where_the_mask_changes(threshold, sensitivity):
    post_processor = MedicalPostProcessor(threshold=threshold, pixel_sensitivity=sensitivity)
    maps = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    if threshold == "f1":
        values = torch.tensor([0.5, 0.1, 0.9])
        for buffer, value in zip(("_pixel_threshold", "pixel_min", "pixel_max"), values, strict=True):
            post_processor.get_buffer(buffer).copy_(value)
    else:
        fit(post_processor, maps.amax((1, 2, 3)), maps=maps)
    around = raw_threshold(post_processor, "pixel") + torch.tensor([-0.01, 0.01]).view(1, 1, 1, 2)
    result = post_processor(InferenceBatch(pred_score=torch.zeros(1), anomaly_map=around))
    assert result.pred_mask.flatten().tolist() == [False, True]


@pytest.mark.parametrize("sensitivity", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("threshold", ["specificity", "f1"])
def test_the_raw_threshold_is_where_the_label_changes(threshold, sensitivity):
    post_processor = MedicalPostProcessor(threshold=threshold, image_sensitivity=sensitivity)
    fit(post_processor, torch.linspace(0, 1, 40), (torch.arange(40) >= 30).int())
    raw = raw_threshold(post_processor)
    scores = raw + torch.tensor([-0.01, 0.01])
    result = post_processor(InferenceBatch(pred_score=scores, anomaly_map=torch.zeros(2, 1, 4, 4)))
    assert result.pred_label.tolist() == [False, True]


def test_without_normalisation_the_threshold_is_the_raw_one():
    post_processor = fit(MedicalPostProcessor(enable_normalization=False), torch.linspace(10, 20, 40))
    scores = post_processor.image_threshold + torch.tensor([-0.1, 0.1])
    result = post_processor(InferenceBatch(pred_score=scores, anomaly_map=torch.zeros(2, 1, 4, 4)))
    assert result.pred_label.tolist() == [False, True]
    torch.testing.assert_close(result.pred_score, scores)
    assert raw_threshold(post_processor) == float(post_processor.image_threshold)


def test_the_sanity_check_sets_no_threshold():
    trainer = SimpleNamespace(sanity_checking=True, global_step=0)
    post_processor = MedicalPostProcessor()
    batch = ImageBatch(image=torch.zeros(2, 3, 8, 8), pred_score=torch.tensor([1.0, 2.0]))
    post_processor.on_validation_batch_end(trainer, None, batch)
    post_processor.on_validation_epoch_end(trainer, None)
    assert post_processor.image_threshold.isnan()


def test_weights_that_moved_on_after_the_last_validation_are_spoken_of(caplog):
    post_processor = fit(MedicalPostProcessor(), torch.arange(40.0))
    post_processor._validated_step = 100
    with caplog.at_level(logging.WARNING):
        post_processor.on_fit_end(SimpleNamespace(global_step=100), None)
        assert not caplog.text
        post_processor.on_fit_end(SimpleNamespace(global_step=130), None)
    assert "The threshold is of step 100, the weights are of step 130" in caplog.text


def test_nan_scores_are_left_out(caplog):
    scores = torch.arange(42.0)
    scores[::7] = torch.nan
    post_processor = fit(MedicalPostProcessor(target_specificity=0.5), scores)
    assert post_processor.image_threshold.isfinite()
    with caplog.at_level(logging.WARNING):
        assert fit(MedicalPostProcessor(), torch.full((5,), torch.nan)).image_threshold.isnan()
    assert "no normal image with a finite score" in caplog.text


def test_calibrating_is_what_validation_does():
    scores, maps = torch.linspace(1, 2, 40), torch.rand(40, 1, 4, 4)
    validated = fit(MedicalPostProcessor(), scores, maps=maps)
    calibrated = MedicalPostProcessor()
    calibrated.calibrate(scores, maps.amin(dim=(1, 2, 3)), maps.amax(dim=(1, 2, 3)))
    for name, value in validated.named_buffers():
        torch.testing.assert_close(calibrated.get_buffer(name), value, msg=name)
    with pytest.raises(ValueError, match="Got 2 scores to calibrate with, none of them a number"):
        calibrated.calibrate(torch.full((2,), torch.nan))


def test_invalidated_it_gives_raw_scores_and_no_labels_also_after_a_checkpoint(caplog):
    post_processor = fit(MedicalPostProcessor(), torch.arange(40.0), maps=torch.rand(40, 1, 4, 4))
    post_processor.invalidate()
    restored = MedicalPostProcessor()
    restored.load_checkpoint_config(post_processor.checkpoint_config())
    restored.load_state_dict(post_processor.state_dict())
    scores, maps = torch.tensor([3.0, 50.0]), torch.rand(2, 1, 4, 4)
    for each in (post_processor, restored):
        result = each(InferenceBatch(pred_score=scores, anomaly_map=maps))
        assert result.pred_label is result.pred_mask is None
        torch.testing.assert_close(result.pred_score, scores)
        torch.testing.assert_close(result.anomaly_map, maps)
        batch = ImageBatch(image=torch.zeros(2, 3, 4, 4), pred_score=scores.clone(), anomaly_map=maps.clone())
        each.post_process_batch(batch)
        assert batch.pred_label is batch.pred_mask is None
        torch.testing.assert_close(batch.pred_score, scores)
        assert each.image_threshold.isnan()
    post_processor.on_fit_end(SimpleNamespace(global_step=1), None)
    assert not caplog.text
    fit(restored, torch.arange(40.0))
    assert restored(InferenceBatch(pred_score=scores, anomaly_map=maps)).pred_label.tolist() == [False, True]


def test_a_part_without_scores_is_told(caplog):
    scores = torch.arange(40.0)
    scores[:2] = torch.tensor([torch.nan, torch.inf])
    post_processor = fit(MedicalPostProcessor(), scores)
    assert "2 of 40 held-out normal images have no finite score" in caplog.text
    assert all(value.isfinite() for value in (post_processor.image_min, post_processor.image_max))


def test_a_threshold_of_earlier_weights_does_not_stay(caplog):
    post_processor = fit(fit(MedicalPostProcessor(), torch.arange(40.0)), torch.full((40,), torch.nan))
    assert post_processor.image_threshold.isnan()
    trainer = SimpleNamespace(global_step=1, sanity_checking=False)
    post_processor.on_validation_epoch_end(trainer, None)
    post_processor.on_fit_end(trainer, None)
    assert "no normal image with a finite score" in caplog.text
    assert "No validation ran" not in caplog.text


def test_that_no_validation_ran_is_said_only_then(caplog):
    trainer = SimpleNamespace(global_step=1, sanity_checking=False)
    ran = fit(MedicalPostProcessor(), [1.0, 2.0], torch.ones(2, dtype=torch.int))
    ran.on_validation_epoch_end(trainer, None)
    ran.on_fit_end(trainer, None)
    assert "No validation ran" not in caplog.text
    MedicalPostProcessor().on_fit_end(trainer, None)
    assert "No validation ran" in caplog.text


def test_without_a_threshold_nothing_is_called_abnormal():
    batch = ImageBatch(image=torch.zeros(2, 3, 8, 8), pred_score=torch.tensor([0.1, 2.0]))
    MedicalPostProcessor().post_process_batch(batch)
    assert batch.pred_label is None
    assert batch.pred_score.tolist() == pytest.approx([0.1, 2.0])
