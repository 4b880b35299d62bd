"""No number where there is none, in the table that anomalib prints."""

import logging
import math
from types import SimpleNamespace

import pytest
import torch
from anomalib.data import ImageBatch
from anomalib.metrics import AUPRO, AUROC, Evaluator, F1Max, F1Score, create_anomalib_metric
from torchmetrics.classification import BinaryAccuracy, BinaryRecall, BinarySpecificity

from anomalib_medical import Scrd
from anomalib_medical.metrics.evaluator import MedicalEvaluator

NAN, INF = math.nan, math.inf
IMAGE = ["image_AUROC", "image_F1Score", "image_F1Max"]
PIXEL = ["pixel_AUROC", "pixel_F1Score", "pixel_AUPRO"]


def default_metrics():
    return [
        AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
        F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
        F1Max(fields=["pred_score", "gt_label"], prefix="image_"),
        AUROC(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
        F1Score(fields=["pred_mask", "gt_mask"], prefix="pixel_", strict=False),
        AUPRO(fields=["anomaly_map", "gt_mask"], prefix="pixel_", strict=False),
    ]


def run(
    scores, labels, *, maps=None, masks=None, threshold=0.5, metrics=None, stage="test", evaluator=None, processes=1
):
    """Test two batches as a trainer would; returns what was logged."""
    scores, labels = torch.tensor(scores), torch.tensor(labels)
    evaluator = evaluator or MedicalEvaluator(
        **{f"{'val' if stage == 'validation' else stage}_metrics": metrics or default_metrics()}
    )
    logged = {}
    evaluator.log = lambda name, value, **_: logged.update({name: float(value)})
    trainer = SimpleNamespace(barebones=False, sanity_checking=False, world_size=processes)
    post_processor = SimpleNamespace(image_threshold=torch.tensor(threshold), pixel_threshold=torch.tensor(threshold))
    module = SimpleNamespace(post_processor=post_processor, device="cpu")
    hook = {name: getattr(evaluator, f"on_{stage}_{name}") for name in ("epoch_start", "batch_end", "epoch_end")}
    hook["epoch_start"](trainer, module)
    for part in (slice(0, 3), slice(3, None)):
        batch = ImageBatch(
            image=torch.zeros(len(scores[part]), 3, 8, 8),
            pred_score=scores[part],
            gt_label=labels[part],
            anomaly_map=None if maps is None else maps[part],
            gt_mask=None if masks is None else masks[part],
        )
        if not math.isnan(threshold):
            batch.pred_label = batch.pred_score > threshold
            batch.pred_mask = None if maps is None else batch.anomaly_map > threshold
        hook["batch_end"](trainer, module, None, batch, 0)
    hook["epoch_end"](trainer, module)
    return logged


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING)
    return caplog


GOOD = ([0.1, 0.7, 0.3, 0.8, 0.2, 0.9], [0, 0, 0, 1, 1, 1])


def pictures():
    masks = torch.zeros(6, 8, 8, dtype=torch.bool)
    masks[3:, :4, :4] = True
    maps = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.6 + masks * 0.3
    return {"maps": maps, "masks": masks}


def test_what_is_defined_is_anomalibs_number(told):
    logged = run(*GOOD, **pictures())
    assert logged["image_AUROC"] == pytest.approx(7 / 9)
    assert logged["image_F1Score"] == pytest.approx(2 / 3)
    assert list(logged) == [IMAGE[0], IMAGE[1], IMAGE[2], *PIXEL]
    assert all(math.isfinite(value) for value in logged.values())
    assert not told.text


def test_a_process_without_what_others_have_leaves_no_number(told):
    logged = run(*GOOD, **pictures(), processes=2)
    assert all(math.isnan(value) for value in logged.values())
    assert "1 of 2 processes have an image with a mask: test on one device" in told.text


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([NAN] * 6, "6 of 6 image scores are nan or infinite"),
        ([0.1, NAN, 0.3, 0.8, 0.2, 0.9], "1 of 6 image scores are nan or infinite"),
        ([0.1, INF, 0.3, 0.8, -INF, 0.9], "2 of 6 image scores are nan or infinite"),
    ],
)
def test_scores_that_are_no_numbers_have_no_order(told, scores, labels, reason):
    logged = run(scores, labels, **pictures())
    assert all(math.isnan(logged[name]) for name in IMAGE)
    assert all(math.isfinite(logged[name]) for name in PIXEL)
    assert told.messages == [f"No value (nan) for {', '.join(IMAGE)}: {reason}."]


@pytest.mark.parametrize(("label", "counts"), [(0, "6 normal and 0 abnormal"), (1, "0 normal and 6 abnormal")])
def test_one_class_has_no_order(told, label, counts):
    logged = run(GOOD[0], [label] * 6)
    assert list(logged) == IMAGE  # without masks nothing is shown of pixels, as in anomalib
    assert all(math.isnan(value) for value in logged.values())
    assert f"normal and abnormal images are needed, and there are {counts} ones" in told.text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"masks": torch.zeros(6, 8, 8, dtype=torch.bool)}, "there are 384 normal and 0 abnormal ones"),
        ({"masks": torch.ones(6, 8, 8, dtype=torch.bool)}, "there are 0 normal and 384 abnormal ones"),
        ({"maps": torch.full((6, 8, 8), NAN)}, "384 of 384 pixel scores are nan or infinite"),
        ({"maps": torch.eye(8).repeat(6, 1, 1).where(torch.ones(6, 8, 8).triu() > 0, NAN)}, "168 of 384 pixel scores"),
    ],
)
def test_pixels_have_the_same_rule(told, change, reason):
    logged = run(*GOOD, **pictures() | change)
    assert all(math.isnan(logged[name]) for name in PIXEL)
    assert all(math.isfinite(logged[name]) for name in IMAGE)
    assert reason in told.text


def test_without_a_threshold_there_is_no_f1(told):
    logged = run(*GOOD, **pictures(), threshold=NAN)
    assert {name for name, value in logged.items() if math.isnan(value)} == {"image_F1Score", "pixel_F1Score"}
    assert told.messages == ["No value (nan) for image_F1Score, pixel_F1Score: there is no threshold."]


def test_metrics_of_one_class_stay_where_it_is_there(told):
    classes = (BinaryAccuracy, BinarySpecificity, BinaryRecall)
    metrics = [create_anomalib_metric(each)(fields=["pred_label", "gt_label"]) for each in classes]
    logged = run(GOOD[0], [0] * 6, metrics=metrics)
    assert logged["BinaryAccuracy"] == logged["BinarySpecificity"] == pytest.approx(0.5)
    assert math.isnan(logged["BinaryRecall"])
    assert "BinaryRecall" in told.text
    assert "BinarySpecificity" not in told.text


def test_validation_has_the_same_rule_and_says_it_once(told):
    evaluator = MedicalEvaluator(val_metrics=default_metrics()[:1])
    for _ in range(2):
        assert math.isnan(run(GOOD[0], [0] * 6, stage="validation", evaluator=evaluator)["image_AUROC"])
    assert len(told.messages) == 1
    # Nothing of an epoch is left in the next.
    assert run(*GOOD, stage="validation", evaluator=evaluator)["image_AUROC"] == pytest.approx(7 / 9)


def test_any_evaluator_of_anomalibs_becomes_one_and_others_stay():
    given = Evaluator(test_metrics=default_metrics())
    ours = MedicalEvaluator.of(given)
    assert isinstance(ours, MedicalEvaluator)
    assert list(ours.test_metrics) == list(given.test_metrics)
    special = type("Special", (Evaluator,), {})()
    assert MedicalEvaluator.of(special) is special
    assert MedicalEvaluator.of(None) is None
    model = Scrd(backbone="resnet18", image_size=64, pre_trained=False, evaluator=given)
    model.configure_callbacks()
    assert isinstance(model.evaluator, MedicalEvaluator)
    assert not [key for key in model.state_dict() if "seen" in key]
