"""DDAD through anomalib's engine: two modules, their data, checkpoints, resuming, refinement, errors."""

import copy
import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.data import Folder, ImageBatch
from anomalib.models import Padim
from anomalib.pre_processing import PreProcessor
from lightning.pytorch import Callback
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from anomalib_medical import Ddad, MedicalFolder
from anomalib_medical.callbacks import PredictionsCSV
from anomalib_medical.errors import MedicalError
from anomalib_medical.models.ddad.networks import NETWORKS
from anomalib_medical.models.ddad.torch_model import to_grey
from tests.conftest import LAYOUT, make_folder
from tests.helpers.engines import assert_same, datamodule, engine, weights_of

SMALL = {"image_size": 16, "members": 2, "seed": 0}
WITH_POOL = LAYOUT | {"unlabeled": 9}


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    """A folder with an unlabeled pool. Do not write to it."""
    return make_folder(tmp_path_factory.mktemp("data") / "Größe_脑", layout=WITH_POOL)


def fit(root, folder, *, model=None, data=None, ckpt_path=None, callbacks=(), trainer=None, **arguments):
    """Train; returns the model and the engine."""
    model = model or Ddad(**SMALL | arguments)
    run = engine(folder, callbacks=list(callbacks), **trainer or {})
    run.fit(model, datamodule=data or datamodule(root), ckpt_path=ckpt_path)
    return model, run


@pytest.fixture(scope="module")
def trained(pooled, tmp_path_factory):
    model, run = fit(pooled, tmp_path_factory.mktemp("run"))
    return model, run.trainer.checkpoint_callback.best_model_path


def parameters_of(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_both_modules_learn_for_as_many_passes_over_their_own_data(pooled, tmp_path, monkeypatch):
    steps = {"module_a": 0, "module_b": 0}
    model = Ddad(**SMALL)
    before = {name: parameters_of(getattr(model.model, name)) for name in steps}
    for name in steps:
        module = getattr(model.model, name)

        def losses(batches, name=name, original=module.losses):
            steps[name] += 1
            assert batches.shape == (2, 4, 1, 16, 16)
            assert -1 <= batches.min() < -0.1  # the images are dark: in [0, 1] they would be from 0.2 to 0.5
            assert batches.max() <= 1
            return original(batches)

        monkeypatch.setattr(module, "losses", losses)
    data = datamodule(pooled)
    _, run = fit(pooled, tmp_path, model=model, data=data, trainer={"max_epochs": 3})
    known, unlabeled = len(data.train_data), len(data.unlabeled_data)
    assert steps == {"module_a": 3 * ((known + unlabeled) // 4), "module_b": 3 * (known // 4)}
    assert run.trainer.global_step == steps["module_a"] > steps["module_b"]
    assert all(not torch.equal(before[name], parameters_of(getattr(model.model, name))) for name in steps)


def record_batches(model, monkeypatch):
    """Keep the batches that each network learns from, by module and index."""
    seen = {}
    for name in ("module_a", "module_b"):
        for index, member in enumerate(getattr(model.model, name).members):

            def loss(images, key=(name, index), original=member.loss):
                seen.setdefault(key, []).append(images.clone())
                return original(images)

            monkeypatch.setattr(member, "loss", loss)
    return seen


def test_members_train_on_different_batches(pooled, tmp_path, monkeypatch):
    """Every network sees another image first, and no two orders are alike."""
    model = Ddad(**SMALL | {"members": 3})
    seen = record_batches(model, monkeypatch)
    fit(pooled, tmp_path, model=model)
    assert len(seen) == 6
    for name in ("module_a", "module_b"):
        first, second, third = (torch.stack(seen[name, index]) for index in range(3))
        for one, other in ((first, second), (first, third), (second, third)):
            assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


class LooksAtData(Callback):
    """Sees a datamodule that nobody has changed."""

    def on_train_batch_start(self, trainer, *_):
        assert "train_dataloader" not in vars(trainer.datamodule)
        assert isinstance(trainer.datamodule.train_dataloader(), DataLoader)


def test_every_image_is_read_once_and_the_datamodule_stays_as_it_is(pooled, tmp_path, monkeypatch):
    from anomalib_medical.data import dataset as base

    read = []
    original = base.read_image
    monkeypatch.setattr(base, "read_image", lambda path, *a, **k: read.append(str(path)) or original(path, *a, **k))
    data = datamodule(pooled)
    fit(pooled, tmp_path, data=data, callbacks=[LooksAtData()], trainer={"max_epochs": 4, "limit_val_batches": 0})
    assert len(read) == len(set(read)) == len(data.train_data) + len(data.unlabeled_data)


def test_random_augmentations_are_drawn_anew_in_every_epoch(pooled, tmp_path):
    seen = []
    model = Ddad(**SMALL)
    member = model.model.module_b.members[0]
    original = member.loss
    member.loss = lambda images: seen.append(images.sum().item()) or original(images)
    flip = v2.Compose([v2.RandomAffine(30)])
    data = datamodule(pooled, train_augmentations=flip)
    fit(pooled, tmp_path, model=model, data=data, trainer={"max_epochs": 3})
    per_epoch = np.reshape(seen, (3, -1)).sum(axis=1)
    assert len({round(value, 4) for value in per_epoch}) == 3


def test_same_seed_same_weights_other_seed_other_weights(pooled, tmp_path, trained):
    torch.manual_seed(123)  # must not matter
    again, _ = fit(pooled, tmp_path / "again")
    assert_same(weights_of(trained[0]), weights_of(again))
    other, _ = fit(pooled, tmp_path / "other", seed=1)
    assert not torch.equal(parameters_of(trained[0].model), parameters_of(other.model))


def test_module_b_does_not_depend_on_the_pool(tiny_folder, tmp_path, trained):
    alone, _ = fit(tiny_folder, tmp_path, score="intra")
    assert alone.model.module_a is None
    assert_same(trained[0].model.module_b.state_dict(), alone.model.module_b.state_dict())


class SaveEverywhere(Callback):
    """A checkpoint after every step and after every epoch."""

    def __init__(self, folder):
        super().__init__()
        self.folder, self.steps, self.ends = folder, {}, []

    def _save(self, trainer, name):
        path = self.folder / f"{name}{trainer.global_step}.ckpt"
        trainer.save_checkpoint(path)
        return path

    def on_train_batch_end(self, trainer, *_):
        self.steps[trainer.current_epoch, trainer.global_step] = self._save(trainer, "step")

    def on_train_epoch_end(self, trainer, _):
        self.ends.append(self._save(trainer, "end"))


@pytest.mark.parametrize("score", ["inter", "refined"])
@pytest.mark.parametrize("seed", [0, None])
def test_a_resumed_run_ends_with_the_same_weights(tmp_path, score, seed):
    """From the middle and from the end of epochs, of both phases."""
    # Batches of 3: the refinement has two steps an epoch too.
    data = {"train_batch_size": 3, "eval_batch_size": 4, "num_workers": 0, "val_split_ratio": 0.1}
    layout = WITH_POOL | {"train/good": 18}
    root = make_folder(tmp_path / "data", layout=layout, size=16)
    arguments = {"score": score, "refinement_epochs": 2, "seed": seed}
    trainer = {"max_epochs": 4}
    saving = SaveEverywhere(tmp_path)
    torch.manual_seed(0)
    whole, run = fit(
        root, tmp_path / "whole", data=MedicalFolder(root, **data), callbacks=[saving], trainer=trainer, **arguments
    )
    middles = {epoch: path for (epoch, _), path in reversed(saving.steps.items())}  # after the first step of each
    chosen = [middles[0], middles[1], middles[2], middles[3], *saving.ends[:-1]]
    assert len(saving.steps) > 2 * 4
    for index, path in enumerate(chosen):
        torch.manual_seed(index + 1)
        resumed, again = fit(
            root,
            tmp_path / f"resumed{index}",
            data=MedicalFolder(root, **data),
            ckpt_path=str(path),
            trainer=trainer,
            **arguments,
        )
        assert again.trainer.global_step == run.trainer.global_step, path.name
        assert_same(whole.model.state_dict(), resumed.model.state_dict())


def test_the_refinement_learns_last_and_alone(pooled, tmp_path):
    saving = SaveEverywhere(tmp_path)
    model, _ = fit(
        pooled, tmp_path, callbacks=[saving], score="refined", refinement_epochs=2, trainer={"max_epochs": 4}
    )
    states = [torch.load(path, weights_only=True)["state_dict"] for path in saving.ends]
    assert len(states) == 4

    def changed(earlier, later, prefix):
        return any(
            not torch.equal(value, later[key]) for key, value in earlier.items() if key.startswith(f"model.{prefix}")
        )

    for earlier, later, learns in zip(states, states[1:], (False, True, True), strict=False):
        assert changed(earlier, later, "refinement") == learns
        assert changed(earlier, later, "module_a") != learns
        assert changed(earlier, later, "module_b") != learns
    maps = model.eval().model.maps(torch.rand(2, 3, 16, 16))
    assert all(value is not None for value in maps)
    assert 0 <= maps.refined.min() <= maps.refined.max() <= 1


def test_refinement_without_a_pool_reads_the_intra_discrepancy(tiny_folder, tmp_path):
    model, _ = fit(tiny_folder, tmp_path, score="refined", refinement_input="intra", refinement_epochs=1)
    maps = model.eval().model.maps(torch.rand(2, 3, 16, 16))
    assert maps.inter is None
    assert maps.refined.shape == (2, 1, 16, 16)


def test_a_refinement_that_was_never_trained_is_told_and_refused(pooled, tmp_path, caplog):
    trainer = {"max_epochs": 3, "max_steps": 3}
    model, run = fit(pooled, tmp_path, score="refined", refinement_epochs=1, trainer=trainer)
    assert "before the refinement's turn" in caplog.text
    path = tmp_path / "early.ckpt"
    run.trainer.save_checkpoint(path)
    for use in (run.test, run.predict):
        with pytest.raises(MedicalError, match="refinement has not been trained"):
            use(Ddad(**SMALL | {"score": "refined"}), datamodule=datamodule(pooled), ckpt_path=str(path))
    with pytest.raises(MedicalError, match="refinement has not been trained"):
        model.to_onnx(tmp_path)


def test_the_refinements_batch_norm_learns_and_that_of_the_networks_rests(pooled, tmp_path):
    model, _ = fit(pooled, tmp_path, score="refined", refinement_epochs=2, trainer={"max_epochs": 3})
    normal = model.model.refinement.layers[1]
    assert normal.num_batches_tracked == 2
    assert normal.running_mean.abs().sum() > 0
    # One epoch of networks: two steps with the known normals.
    assert model.model.module_b.members[0].encoder[0][1].num_batches_tracked == 1


def test_an_object_is_trained_again_with_all_that_is_to_learn(pooled, tmp_path):
    """Modes that an earlier training or a user left do not stay."""
    model = Ddad(**SMALL)
    model.eval()
    fit(pooled, tmp_path / "first", model=model)
    fresh, _ = fit(pooled, tmp_path / "second")
    assert_same(fresh.model.state_dict(), model.model.state_dict())


def test_the_last_weights_are_validated_and_saved_whatever_the_interval(pooled, tmp_path):
    trainer = {"max_epochs": 3, "check_val_every_n_epoch": 2}
    model, run = fit(pooled, tmp_path, trainer=trainer)
    saved = torch.load(run.trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert saved["global_step"] == run.trainer.global_step
    assert model.post_processor.image_threshold.isfinite()
    assert run.trainer.check_val_every_n_epoch == 2


def test_a_datamodule_serves_other_models_after_a_training_that_failed(pooled, tmp_path):
    data = datamodule(pooled)
    with pytest.raises(MedicalError, match="diverged"):
        fit(pooled, tmp_path / "ddad", data=data, learning_rate=1e30, trainer={"max_epochs": 5})
    assert next(iter(data.train_dataloader())).image.shape[-3:] == (3, 16, 16)
    other = Padim(backbone="resnet18", pre_trained=False, layers=["layer1"], n_features=10)
    engine(tmp_path / "padim", max_epochs=1).fit(other, datamodule=data)


def test_joint_training_is_separate_training(pooled, tmp_path, monkeypatch):
    """Each network ends with the weights that it gets when it is trained alone on the same batches."""
    model = Ddad(**SMALL)
    alone = copy.deepcopy(model.model)
    seen = record_batches(model, monkeypatch)
    fit(pooled, tmp_path, model=model)
    for (name, index), batches in seen.items():
        network = getattr(alone, name).members[index].train()
        optimizer = torch.optim.Adam(network.parameters(), 5e-4, betas=(0.5, 0.999), fused=True)
        for batch in batches:
            optimizer.zero_grad()
            network.loss(batch).backward()
            optimizer.step()
        trained_jointly = getattr(model.model, name).members[index]
        for key, value in network.state_dict().items():
            torch.testing.assert_close(trained_jointly.state_dict()[key], value, rtol=0, atol=1e-7, msg=key)


def test_the_recipes_are_the_papers():
    optimizer = Ddad(**SMALL | {"score": "refined"}).configure_optimizers()
    networks, refinement = optimizer.param_groups
    assert (networks["lr"], networks["betas"], networks["weight_decay"]) == (5e-4, (0.5, 0.999), 0)
    assert (refinement["lr"], refinement["betas"], refinement["weight_decay"]) == (1e-4, (0.5, 0.999), 1e-4)


def test_clipping_gradients_keeps_the_networks_apart(pooled, tiny_folder, tmp_path):
    trainer = {"gradient_clip_val": 0.01}
    joint, _ = fit(pooled, tmp_path / "joint", trainer=trainer)
    alone, _ = fit(tiny_folder, tmp_path / "alone", score="intra", trainer=trainer)
    assert_same(joint.model.module_b.state_dict(), alone.model.module_b.state_dict())
    free, _ = fit(tiny_folder, tmp_path / "free", score="intra")
    assert not torch.equal(parameters_of(free.model), parameters_of(alone.model))


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_trains_also_with_clipping(pooled, tmp_path, precision):
    trainer = {"precision": precision, "gradient_clip_val": 1.0, "max_epochs": 3}
    model, _ = fit(pooled, tmp_path, score="refined", refinement_epochs=1, trainer=trainer)
    assert parameters_of(model.model).isfinite().all()


def test_weights_of_half_precision_are_refused(pooled, tmp_path):
    with pytest.raises(MedicalError, match=r"--trainer\.precision: got bf16-true, expected 32-true"):
        fit(pooled, tmp_path, trainer={"precision": "bf16-true"})


def test_an_interval_that_the_refinement_could_not_keep_is_refused_at_once(pooled, tmp_path):
    trainer = {"max_epochs": 3, "val_check_interval": 3}
    with pytest.raises(MedicalError, match="val_check_interval=3 is more than the 1 steps"):
        fit(pooled, tmp_path, score="refined", refinement_epochs=1, trainer=trainer)


def test_images_of_another_size_are_refused_before_training(pooled, tmp_path):
    pre_processor = PreProcessor(v2.Compose([v2.Resize((48, 48))]))
    with pytest.raises(MedicalError, match=r"with 48x48 pixels .* built for 16x16"):
        fit(pooled, tmp_path, pre_processor=pre_processor)


def test_images_are_resized_with_antialiasing_in_training(tmp_path):
    """A pattern of single pixels becomes grey, where it would be black or white without."""
    root = tmp_path / "fine"
    rng = np.random.default_rng(0)
    for folder, count in WITH_POOL.items():
        for index in range(count):
            path = root / folder / f"{folder.replace('/', '_')}_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 2, (160, 160), dtype=np.uint8) * 255).save(path)
    seen = []
    model = Ddad(**SMALL)
    original = model.model.module_b.losses
    model.model.module_b.losses = lambda batches: seen.append(batches) or original(batches)
    fit(root, tmp_path, model=model)
    assert torch.cat(seen).abs().max() < 0.5


def test_colours_are_weighed_as_pillow_does():
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(colours).convert("L"), dtype=np.float32) / 255
    found = to_grey(torch.from_numpy(colours).permute(2, 0, 1) / 255)[0]
    assert (found - torch.from_numpy(expected)).abs().max() < 1.01 / 255


@pytest.mark.parametrize("network", ["ae_u", "mem_ae"])
def test_the_other_networks_train_too(pooled, tmp_path, network):
    model, run = fit(pooled, tmp_path, network=network)
    results = run.test(model, datamodule=datamodule(pooled))
    assert 0 <= results[0]["image_AUROC"] <= 1
    assert model.post_processor.image_threshold.isfinite()


def test_a_checkpoint_gives_the_same_scores(pooled, tmp_path, trained):
    model, path = trained
    loaded = Ddad.load_from_checkpoint(path)
    assert_same(weights_of(model), weights_of(loaded))
    batch = torch.rand(3, 3, 40, 50)
    torch.testing.assert_close(model.eval()(batch).pred_score, loaded.eval()(batch).pred_score)
    results = engine(tmp_path).test(Ddad(**SMALL), datamodule=datamodule(pooled), ckpt_path=path)
    assert 0 <= results[0]["image_AUROC"] <= 1


def test_uncertainty_is_in_the_predictions_and_saved_as_pictures(pooled, tmp_path, trained):
    model, path = trained
    run = engine(tmp_path, callbacks=[PredictionsCSV()])
    run.test(Ddad(**SMALL), datamodule=datamodule(pooled), ckpt_path=path)
    rows = list(csv.DictReader(next(tmp_path.rglob("predictions.csv")).open(encoding="utf-8")))
    assert len(rows) == 8
    for row in rows:
        pixels = torch.from_numpy(np.asarray(Image.open(row["path"]).convert("RGB"))).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            maps = model.eval().model.maps(model.pre_processor(pixels))
        assert math.isclose(float(row["uncertainty"]), float(maps.intra.mean()), rel_tol=1e-4)
        assert math.isclose(float(row["raw_score"]), float(maps.inter.mean()), rel_tol=1e-4)
    assert len(list(tmp_path.rglob("uncertainty/**/*.png"))) == 8
    assert model.uncertainty_scale > 0


def test_anomalibs_own_datamodules_work_without_a_pool(tmp_path):
    root = make_folder(tmp_path / "data")
    data = Folder(
        "tiny", root=root, normal_dir="train/good", normal_test_dir="test/good", abnormal_dir="test/lesion",
        train_batch_size=4, eval_batch_size=4, num_workers=0,
    )  # fmt: skip
    model, run = fit(root, tmp_path, data=data, score="intra")
    predictions = run.predict(model, datamodule=data)
    for batch in predictions:
        assert isinstance(batch, ImageBatch)
        assert batch.uncertainty_map.shape[-2:] == (16, 16)
        torch.testing.assert_close(batch.uncertainty, batch.uncertainty_map.mean(dim=(1, 2, 3)))


def test_module_b_of_another_run_is_taken_over_and_left_alone(pooled, tiny_folder, tmp_path):
    alone, run = fit(tiny_folder, tmp_path / "b", score="intra")
    path = run.trainer.checkpoint_callback.best_model_path
    model, second = fit(pooled, tmp_path / "a", module_b=path)
    assert_same(alone.model.module_b.state_dict(), model.model.module_b.state_dict())
    fresh = Ddad(**SMALL)
    assert not torch.equal(parameters_of(fresh.model.module_a), parameters_of(model.model.module_a))
    # The file is not needed any more.
    saved = second.trainer.checkpoint_callback.best_model_path
    Path(path).unlink()
    assert_same(weights_of(model), weights_of(Ddad.load_from_checkpoint(saved)))


def test_module_b_of_another_kind_is_refused(tiny_folder, pooled, tmp_path):
    _, run = fit(tiny_folder, tmp_path / "b", score="intra", network="ae_u")
    path = run.trainer.checkpoint_callback.best_model_path
    with pytest.raises(MedicalError, match=r"networks in .* are others \(network ae_u, members 2"):
        fit(pooled, tmp_path / "a", module_b=path)
    with pytest.raises(MedicalError, match="There is no checkpoint"):
        fit(pooled, tmp_path / "a", module_b=str(tmp_path / "gone.ckpt"))
    content = torch.load(path, weights_only=True)
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {"model.encoder.weight": torch.zeros(1)}, "hyper_parameters": {}}, foreign)
    with pytest.raises(MedicalError, match="checkpoint of another model than Ddad"):
        fit(pooled, tmp_path / "a", module_b=str(foreign))
    content["hyper_parameters"]["image_size"] = (16, 32)
    torch.save(content, foreign)
    with pytest.raises(MedicalError, match=r"are others \(.*image_size \(16, 32\)"):
        fit(pooled, tmp_path / "a", module_b=str(foreign), network="ae_u")
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(MedicalError, match="could not be read as a checkpoint: its end is missing"):
        fit(pooled, tmp_path / "a", module_b=str(broken))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, r"score: inter .* no unlabeled ones.*--data.unlabeled_dir.*--model.score intra"),
        ({"score": "refined"}, r"score: refined .* --model.refinement_input intra"),
    ],
)
def test_without_a_pool_the_way_out_is_told(tiny_folder, tmp_path, arguments, told):
    with pytest.raises(MedicalError, match=told):
        fit(tiny_folder, tmp_path, trainer={"max_epochs": 200}, **arguments)


@pytest.mark.parametrize("score", ["intra", "reconstruction"])
def test_scores_that_need_no_pool_leave_it_alone(pooled, tmp_path, score, caplog):
    data = datamodule(pooled)
    with caplog.at_level("INFO"):
        model, _ = fit(pooled, tmp_path, data=data, score=score)
    assert model.model.module_a is None
    assert f"{len(data.train_data)} known normal and 0 unlabeled" in caplog.text


def test_one_network_a_module_scores_without_uncertainty(pooled, tmp_path):
    model, run = fit(pooled, tmp_path, members=1)
    for batch in run.predict(model, datamodule=datamodule(pooled)):
        assert batch.uncertainty is None
        assert batch.pred_score.isfinite().all()


@pytest.mark.parametrize("epochs", [1, -1])
def test_refinement_needs_epochs_of_its_own(pooled, tmp_path, epochs):
    trainer = {"max_epochs": epochs, "max_steps": 5}
    with pytest.raises(MedicalError, match=rf"max_epochs={epochs} .* must be larger"):
        fit(pooled, tmp_path, score="refined", refinement_epochs=1, trainer=trainer)


def test_a_batch_of_one_is_refused(pooled, tmp_path):
    data = MedicalFolder(root=pooled, train_batch_size=1, num_workers=0)
    with pytest.raises(MedicalError, match="train_batch_size is 1"):
        fit(pooled, tmp_path, data=data)


def test_a_loader_instead_of_a_datamodule_is_refused(pooled, tmp_path):
    data = datamodule(pooled)
    data.setup()
    with pytest.raises(MedicalError, match="needs a datamodule"):
        engine(tmp_path).fit(Ddad(**SMALL), train_dataloaders=data.train_dataloader())


def test_a_diverged_training_stops(pooled, tmp_path):
    with pytest.raises(MedicalError, match=r"learning rate 1e\+30\)\. Try --model\.learning_rate 1e\+29, or"):
        fit(pooled, tmp_path, learning_rate=1e30, trainer={"max_epochs": 5})


@pytest.mark.parametrize("network", NETWORKS)
def test_constant_images_train_and_score(tmp_path, network):
    root = tmp_path / "constant"
    for folder, count in WITH_POOL.items():
        for index in range(count):
            path = root / folder / f"{folder.replace('/', '_')}_{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            # The pool's are another grey: files that are copies of labelled ones are refused.
            Image.fromarray(np.full((20, 20), 90 + 10 * list(WITH_POOL).index(folder), dtype=np.uint8)).save(path)
    model, run = fit(root, tmp_path, network=network, learning_rate=0.02, trainer={"max_epochs": 40})
    for batch in run.predict(model, datamodule=datamodule(root)):
        assert batch.pred_score.isfinite().all()
        assert batch.uncertainty_map.isfinite().all()


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"members": 3}, "members: checkpoint 2, this model 3"),
        ({"network": "mem_ae"}, "network: checkpoint 'ae', this model 'mem_ae'"),
        ({"image_size": 32}, "image_size: checkpoint"),
        ({"score": "intra"}, "score: checkpoint 'inter', this model 'intra'"),
    ],
)
def test_a_checkpoint_of_another_model_is_told_apart(pooled, tmp_path, trained, other, told):
    with pytest.raises(ValueError, match=told):
        engine(tmp_path).test(Ddad(**SMALL | other), datamodule=datamodule(pooled), ckpt_path=trained[1])


def test_maps_under_half_precision_are_those_of_float32(trained):
    model = copy.deepcopy(trained[0]).eval()
    model.post_processor = None
    model.all_maps = True
    batch = torch.rand(3, 3, 40, 50)
    with torch.no_grad():
        expected = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(batch)
    for name in ("reconstruction_map", "inter_map", "intra_map"):
        assert getattr(found, name).dtype == torch.float32
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=1e-5, atol=1e-7)
