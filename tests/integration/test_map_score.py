"""From map to score by the engine: reductions and standardised maps in thresholds, checkpoints, exports, bundles."""

import logging

import numpy as np
import pytest
import torch

from anomalib_medical import D24fad, Ddad, FewShotTasks, Scrd
from anomalib_medical.cli import main as cli
from anomalib_medical.data.images import read_image
from anomalib_medical.edge.manifest import Manifest
from anomalib_medical.edge.scores import order_statistic
from anomalib_medical.edge.support import make_predictor
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.map_score import choose_reduction
from tests.conftest import make_folder
from tests.helpers.bundles import save_few_shot
from tests.helpers.engines import assert_same, datamodule, engine
from tests.helpers.exports import ODD, assert_equal_results, by_engine, by_export, export_all, images
from tests.helpers.few_shot_tree import make_tasks

RESNET = {"backbone": "resnet18", "image_size": 64, "pre_trained": False, "seed": 0}
MODELS = {
    "Scrd": lambda **kwargs: Scrd(**RESNET, **kwargs),
    "Ddad": lambda **kwargs: Ddad(image_size=32, members=2, score="intra", seed=0, **kwargs),
    "D24fad": lambda **kwargs: D24fad(**RESNET, **kwargs),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_folder(
        tmp_path_factory.mktemp("data") / "many", layout={"train/good": 48, "test/good": 4, "test/lesion": 4}
    )


def data_of(root):
    return datamodule(root, val_split_ratio=0.5)


def fit(name, root, folder, **kwargs):
    """Train, or give a few-shot model random weights and a support, and the normal images to calibrate with."""
    model = MODELS[name](**kwargs)
    if name == "D24fad":
        save_few_shot(folder, 0, model)
        model.eval().set_support(list(images((64, 64), count=3)))
        paths = sorted((root / "train" / "good").iterdir())[:24]
        model.recalibrate(read_image(path) for path in paths)
        checkpoint = {"state_dict": model.state_dict(), "pytorch-lightning_version": "2.5.0"}
        checkpoint["hyper_parameters"] = dict(model.hparams)
        model.on_save_checkpoint(checkpoint)
        torch.save(checkpoint, folder / "model.ckpt")
        return model, folder / "model.ckpt"
    run = engine(folder, max_epochs=4)
    run.fit(model, datamodule=data_of(root))
    return model.eval(), run.trainer.checkpoint_callback.best_model_path


@pytest.fixture(scope="module", params=["Scrd", "Ddad", "D24fad"])
def standardised(request, root, tmp_path_factory):
    """A model of each class with `top_k` and `pixel`."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, *fit(request.param, root, folder, score_reduction="top_k", map_normalization="pixel")


def test_thresholds_are_of_standardised_maps_and_the_reduction(standardised, root):
    name, model, _ = standardised
    score = model.map_score
    assert score.is_fitted
    if name == "D24fad":
        held_out = [read_image(path) for path in sorted((root / "train" / "good").iterdir())[:24]]
    else:
        data = data_of(root)
        data.setup()
        held_out = [data.val_data[index].image for index in range(len(data.val_data))]
    model.map_score.reset()
    with torch.no_grad():
        maps = torch.cat([model.model(model.prepare(image[None])).anomaly_map for image in held_out])
    values, largest = [], []
    for index in range(len(maps)):
        others = torch.cat([maps[:index], maps[index + 1 :]])
        fresh = type(score)("top_k", "pixel")
        fresh.fit([others])
        scored = fresh(maps[index : index + 1])
        values.append(float(scored.pred_score))
        largest.append(float(scored.anomaly_map.amax()))
    score.fit([maps])
    score.normals = None
    assert model.post_processor.held_out == len(maps) == 24
    # The floor of the deviations is that of all images, here of all but one.
    assert float(model.post_processor._image_threshold) == pytest.approx(order_statistic(values, 0.95), rel=0.02)
    assert float(model.post_processor._pixel_threshold) == pytest.approx(order_statistic(largest, 0.95), rel=0.02)


def test_exports_of_standardised_maps_equal_the_engine(standardised, tmp_path):
    _, model, _ = standardised
    assert model.map_score.is_fitted
    expected = by_engine(model, images(ODD))
    exported = export_all(model, tmp_path)
    for kind in exported:
        assert_equal_results(expected, by_export(exported, kind, images(ODD)))


# Each way once: the models share the code that does it, which the fast tests try with all of them.
WAYS = zip(MODELS, [("mean", "pixel"), ("max", "none"), ("top_k", "none")], strict=True)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reduction", "normalization"), [(name, *way) for name, way in WAYS])
def test_every_way_from_map_to_score_is_exported_as_it_is(name, reduction, normalization, root, tmp_path):
    model, _ = fit(name, root, tmp_path, score_reduction=reduction, map_normalization=normalization)
    expected = by_engine(model, images(ODD))
    for kind, path in export_all(model, tmp_path).items():
        assert_equal_results(expected, by_export({kind: path}, kind, images(ODD)))


def test_a_checkpoint_scores_as_the_model_and_fits_no_other_way(standardised, root, tmp_path):
    name, model, path = standardised
    loaded = type(model).load_from_checkpoint(path).eval()
    with torch.no_grad():
        # Another test has fitted the model to the same images anew, in other batches.
        torch.testing.assert_close(loaded(images(ODD)).pred_score, model(images(ODD)).pred_score, rtol=0, atol=1e-5)
    own = {"score_reduction": "top_k", "map_normalization": "pixel"}
    for other in ({"score_reduction": "max"}, {"map_normalization": "none"}, {"top_share": 0.5}):
        with pytest.raises(ValueError, match=f"{next(iter(other))}: checkpoint .* Build the model"):
            engine(tmp_path).test(MODELS[name](**own | other), datamodule=data_of(root), ckpt_path=path)


def test_a_checkpoint_that_knows_no_reduction_has_the_default_one(root, tmp_path):
    """One of Ddad, before it had others than the mean."""
    _, path = fit("Ddad", root, tmp_path)
    content = torch.load(path, weights_only=True)
    for name in ("score_reduction", "map_normalization", "top_share"):
        del content["hyper_parameters"][name]
    torch.save(content, tmp_path / "old.ckpt")
    engine(tmp_path).test(MODELS["Ddad"](), datamodule=data_of(root), ckpt_path=tmp_path / "old.ckpt")
    with pytest.raises(ValueError, match="score_reduction: checkpoint 'mean', this model 'max'"):
        engine(tmp_path).test(
            MODELS["Ddad"](score_reduction="max"), datamodule=data_of(root), ckpt_path=tmp_path / "old.ckpt"
        )


def forced(reduction):
    """Choose as `choose_reduction`, but for the result."""
    return lambda scores, default: choose_reduction(scores, default)._replace(reduction=reduction)


def test_auto_chooses_in_training_and_the_checkpoint_keeps_it(root, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "anomalib_medical")
    monkeypatch.setattr("anomalib_medical.models.components.map_score.choose_reduction", forced("top_k"))
    model, path = fit("Scrd", root, tmp_path, score_reduction="auto")
    assert model.map_score.reduction == "top_k"
    assert sum("score_reduction: auto took top_k (AUROC between 24 held-out" in each for each in caplog.messages) == 1
    loaded = Scrd.load_from_checkpoint(path).eval()
    assert loaded.map_score.reduction == "top_k"
    with torch.no_grad():
        scored = loaded.model(loaded.prepare(images(ODD)))
    torch.testing.assert_close(scored.pred_score, loaded.map_score.reduce(scored.anomaly_map))
    # One of before: without a choice the default holds.
    content = torch.load(path, weights_only=True)
    del content["chosen_reduction"]
    torch.save(content, tmp_path / "old.ckpt")
    assert Scrd.load_from_checkpoint(tmp_path / "old.ckpt").map_score.reduction == "mean"


def test_auto_leaves_the_training_as_it_is(root, tmp_path):
    plain, chosen = (
        fit("Scrd", root, tmp_path / reduction, score_reduction=reduction)[0].model.state_dict()
        for reduction in ("mean", "auto")
    )
    assert_same(plain, chosen)


def test_auto_never_sees_an_abnormal_image_of_the_validation(tmp_path, monkeypatch):
    seen = []
    maps_of = Scrd.anomaly_maps

    def anomaly_maps(self, batch, items):
        seen.extend(bool(item.gt_label) for item in items)
        return maps_of(self, batch, items)

    monkeypatch.setattr(Scrd, "anomaly_maps", anomaly_maps)
    root = make_folder(tmp_path / "data", layout={"train/good": 4, "test/good": 50, "test/lesion": 20})
    model = MODELS["Scrd"](score_reduction="auto")
    engine(tmp_path, max_epochs=1).fit(model, datamodule=datamodule(root, val_split_mode="from_test"))
    assert (len(seen), any(seen)) == (4 * 25, False)


@pytest.mark.parametrize("option", [{"score_reduction": "auto"}, {"map_normalization": "pixel"}])
@pytest.mark.parametrize("name", ["Scrd", "Ddad"])
def test_five_held_out_normals_are_refused_before_training(name, option, tiny_folder, tmp_path):
    model = MODELS[name](**option)
    ((argument, value),) = option.items()
    way_out = {"auto": "score_reduction mean, max, top_k", "pixel": "map_normalization none"}
    with pytest.raises(MedicalError, match=f"{argument}: {value} .* got 4, expected at least 20.*{way_out[value]}"):
        engine(tmp_path).fit(model, datamodule=datamodule(tiny_folder, val_split_ratio=0.5))
    assert model.trainer.global_step == 0


def test_a_few_shot_model_chooses_by_episodes_of_the_tasks_that_train(tmp_path):
    root = make_tasks(tmp_path / "tasks")
    for task in ("brain", "lung"):
        make_folder(root / task, layout={"train/good": 40})
    data = FewShotTasks(
        "skin", root, shots=2, train_batch_size=16, eval_batch_size=8, num_workers=0, val_split_ratio=0.3
    )
    model = D24fad(**RESNET, score_reduction="auto", map_normalization="pixel")
    engine(tmp_path / "run", max_epochs=1).fit(model, datamodule=data)
    assert model.map_score.choice.normals >= 20
    assert not model.map_score.is_fitted, "no normal image of the target was seen but its support"
    assert model.post_processor.awaits_calibration


def test_a_support_alone_does_not_standardise(tmp_path):
    model = MODELS["D24fad"](map_normalization="pixel")
    save_few_shot(tmp_path, 0, model)
    model.eval().set_support(list(images((64, 64), count=3)))
    with pytest.raises(
        ValueError, match="map_normalization: pixel needs held-out normal images of the task; the support"
    ):
        model.recalibrate()
    with pytest.raises(MedicalError, match="got 3, expected at least 20"):
        model.recalibrate(list(images((64, 64), count=3)))
    assert model.post_processor.awaits_calibration


def test_another_support_forgets_the_former_ones_maps(root, tmp_path):
    model, _ = fit("D24fad", root, tmp_path, map_normalization="pixel")
    assert model.map_score.is_fitted
    model.set_support(list(torch.rand(3, 3, 64, 64)))
    assert not model.map_score.is_fitted
    assert model.post_processor.awaits_calibration


@pytest.mark.slow
def test_a_bundle_of_standardised_maps_scores_as_the_engine_does(root, tmp_path):
    model, path = fit("Scrd", root, tmp_path / "run", score_reduction="top_k", map_normalization="pixel")
    cli.main(["bundle", "--ckpt_path", str(path), "--output", str(tmp_path / "bundle")])
    predictor, _ = make_predictor(tmp_path / "bundle", Manifest.read(tmp_path / "bundle"), many=True)
    for file in sorted((root / "test").rglob("*.png")):
        image = read_image(file)
        expected = by_engine(model, image[None])
        got = predictor(image.numpy())
        np.testing.assert_allclose(got.score, float(expected.pred_score), atol=1e-4)
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "| score | top_k of the map, standardised by held-out normal images |" in card
