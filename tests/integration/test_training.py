"""What every training of ours has in common: it stops where numbers end, repeats itself, and says what it cannot do."""

import inspect
import logging
import math

import pytest
import torch
from anomalib.data import Folder
from lightning.pytorch.callbacks import EarlyStopping
from torchvision.transforms.v2 import RandomHorizontalFlip

from anomalib_medical import D24fad, Ddad, MedicalFolder, Scrd
from anomalib_medical.errors import MedicalError
from tests.conftest import LAYOUT, make_folder
from tests.helpers.engines import assert_same, datamodule, engine, weights_of
from tests.helpers.few_shot_tree import make_tasks
from tests.integration.test_d24fad_engine import tasks_of

TEACHER = {"backbone": "resnet18", "image_size": 64, "pre_trained": False}
ARGUMENTS = {Scrd: TEACHER, D24fad: TEACHER, Ddad: {"image_size": 16, "members": 2, "score": "intra"}}
EVERY = pytest.mark.parametrize("kind", ARGUMENTS)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return make_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def data_of(tiny_folder, tasks):
    return lambda kind: tasks_of(tasks) if kind is D24fad else datamodule(tiny_folder)


def make(kind, **arguments):
    return kind(**ARGUMENTS[kind] | arguments)


def breaks_in_epoch_1(kind):
    """A model whose loss is NaN from the second epoch on."""

    class Broken(kind):
        def training_step(self, *args):
            loss = super().training_step(*args)
            return loss * math.nan if self.current_epoch else loss

    return make_broken(Broken, kind)


def make_broken(broken, kind):
    return broken(**ARGUMENTS[kind])


@EVERY
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_loss_that_is_nan_stops_the_training_and_keeps_the_checkpoint_before(kind, precision, data_of, tmp_path):
    if kind is not Scrd and precision != "32-true":
        pytest.skip("the precision makes no difference to the others")
    run = engine(tmp_path, max_epochs=4, precision=precision)
    with pytest.raises(MedicalError) as stop:
        run.fit(breaks_in_epoch_1(kind), datamodule=data_of(kind))
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    told = str(stop.value)
    assert "the loss is nan or infinite in step " in told
    assert "(epoch 1, learning rate " in told
    assert "--model.learning_rate " in told
    assert "--trainer.gradient_clip_val 1.0" in told
    assert ("--trainer.precision 32-true" in told) == (precision != "32-true")
    assert told.endswith(f"The last checkpoint with finite weights: {checkpoint}")
    state = torch.load(checkpoint, weights_only=True)
    assert state["epoch"] == 0
    assert all(value.isfinite().all() for key, value in state["state_dict"].items() if key.startswith("model."))


@EVERY
def test_a_learning_rate_far_too_high_leaves_no_checkpoint_to_trust(kind, data_of, tmp_path, caplog):
    with pytest.raises(MedicalError, match=r"diverged.*No checkpoint was written before"):
        engine(tmp_path).fit(make(kind, learning_rate=1e38), datamodule=data_of(kind))
    assert not list(tmp_path.rglob("*.ckpt"))
    assert "No validation ran" not in caplog.text


@pytest.mark.parametrize("weights", [math.nan, math.inf])
def test_broken_weights_are_never_saved_over_finite_ones(weights, tiny_folder, tmp_path):
    class Spoilt(Scrd):
        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            if self.current_epoch and self.trainer.is_last_batch:
                next(self.model.bottleneck.parameters()).data.fill_(weights)

    run = engine(tmp_path, max_epochs=4)
    with pytest.raises(MedicalError, match="weights are nan or infinite after step 4"):
        run.fit(Spoilt(**TEACHER), datamodule=datamodule(tiny_folder))
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for key, value in state.items() if key.startswith("model."))
    model = make(Scrd)
    next(model.model.bottleneck.parameters()).data.fill_(weights)
    with pytest.raises(MedicalError, match="weights are nan or infinite, and were not saved"):
        model.on_save_checkpoint({"state_dict": model.state_dict()})


def test_scores_that_are_no_numbers_stop_it_though_loss_and_weights_are_finite(tiny_folder, tmp_path, caplog):
    class Silent(Scrd):
        def validation_step(self, batch, *args):
            return super().validation_step(batch, *args).update(pred_score=torch.full((len(batch),), math.nan))

    with pytest.raises(MedicalError, match="no validation image has a finite score after step"):
        engine(tmp_path).fit(Silent(**TEACHER), datamodule=datamodule(tiny_folder))
    assert not list(tmp_path.rglob("*.ckpt"))
    assert "No validation ran" not in caplog.text


@EVERY
def test_accumulated_gradients_are_those_of_the_batches(kind, data_of, tmp_path):
    class Recording(kind):
        def training_step(self, *args):
            loss = super().training_step(*args)
            losses.append(loss.item())
            parts.append(torch.autograd.grad(loss, trained(self), retain_graph=True, materialize_grads=True))
            return loss

        def on_before_optimizer_step(self, optimizer):
            super().on_before_optimizer_step(optimizer)
            stepped.append([parameter.grad for parameter in trained(self)])

    def trained(model):
        return [parameter for group in model.optimizers().param_groups for parameter in group["params"]]

    runs = []
    for batches in (1, 2):
        losses, parts, stepped = [], [], []
        model = Recording(**ARGUMENTS[kind], learning_rate=1e-12)  # so that both batches meet the same weights
        data = data_of(kind)
        data.train_batch_size = 3
        trainer = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 0}
        engine(tmp_path, **trainer, accumulate_grad_batches=batches).fit(model, datamodule=data)
        assert len(stepped) == 2 // batches
        runs.append(losses)
    assert runs[1] == pytest.approx(runs[0], rel=1e-4)
    for accumulated, first, second in zip(stepped[0], *parts, strict=True):
        torch.testing.assert_close(accumulated, (first + second) / 2, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("one_task", [False, True])
def test_who_is_compared_with_whom_comes_with_the_batch(one_task, tiny_folder, tasks, tmp_path):
    """By way of a method of Lightning's own: without it a GPU would have to be asked in every step."""
    found = []

    class Looking(D24fad):
        def training_step(self, batch, *args):
            found.append(batch.pairs.counts)
            return super().training_step(batch, *args)

    data = datamodule(tiny_folder) if one_task else tasks_of(tasks)
    engine(tmp_path, max_steps=1, limit_val_batches=0).fit(Looking(**TEACHER), datamodule=data)
    assert found == [(3,) * 4 if one_task else (2,) * 8]


@EVERY
def test_early_stopping_sees_the_loss(kind, data_of, tmp_path):
    stopping = EarlyStopping(monitor="train_loss", patience=1, min_delta=1e9)
    run = engine(tmp_path, max_epochs=5, callbacks=[stopping], limit_val_batches=0)
    run.fit(make(kind), datamodule=data_of(kind))
    assert run.trainer.current_epoch == 2
    assert stopping.stopped_epoch == 1


def test_the_loss_of_ddad_is_the_sum_of_its_modules(tmp_path):
    root = make_folder(tmp_path / "data", layout=LAYOUT | {"unlabeled": 9})
    run = engine(tmp_path / "run", max_epochs=1, limit_train_batches=1)
    run.fit(make(Ddad, score="inter"), datamodule=datamodule(root))
    logged = run.trainer.callback_metrics
    assert logged["train_loss"] == logged["train_loss_a"] + logged["train_loss_b"]


@EVERY
@pytest.mark.parametrize("precision", ["64", "bf16-true", "16-true"])
def test_precisions_of_other_weights_are_refused_by_name(kind, precision, data_of, tmp_path):
    with pytest.raises(MedicalError, match=rf"got {precision}.*, expected 32-true, 16-mixed or bf16-mixed"):
        engine(tmp_path, precision=precision).fit(make(kind), datamodule=data_of(kind))
    with pytest.raises(MedicalError):
        engine(tmp_path, precision=precision).test(make(kind), datamodule=data_of(kind))


@EVERY
def test_the_seed_is_0_unless_asked_otherwise(kind):
    assert inspect.signature(kind).parameters["seed"].default == 0
    assert_same(weights_of(make(kind)), weights_of(make(kind)))


@pytest.mark.parametrize("workers", [0, 1])
def test_equal_trainings_give_equal_weights_also_with_random_augmentations(workers, tiny_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    found = []
    for run in range(2):
        torch.manual_seed(run)  # what happened before makes no difference
        data = MedicalFolder(
            tiny_folder, train_batch_size=2, num_workers=workers, train_augmentations=RandomHorizontalFlip()
        )
        model = make(Scrd)
        engine(tmp_path / str(run)).fit(model, datamodule=data)
        found.append(weights_of(model))
    assert_same(*found)
    assert "Trained with seed 0; another seed gives other scores." in caplog.text


def test_a_random_seed_is_still_possible(tiny_folder, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    first, second = make(Scrd, seed=None), make(Scrd, seed=None)
    assert not torch.equal(next(first.model.decoder.parameters()), next(second.model.decoder.parameters()))
    engine(tmp_path, max_epochs=1).fit(first, datamodule=datamodule(tiny_folder))
    assert "Trained without a seed" in caplog.text


def folder(root, **kwargs):
    return Folder(
        "mine",
        root=root,
        normal_dir="train/good",
        abnormal_dir="test/lesion",
        normal_test_dir="test/good",
        num_workers=0,
        **kwargs,
    )


@pytest.mark.parametrize("mode", ["same_as_test", "from_train"])
def test_a_datamodule_that_validates_on_its_test_set_is_named(mode, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    # anomalib's own takes no letters but ASCII.
    data = folder(
        make_folder(tmp_path / "data"),
        val_split_mode=mode,
        **({} if mode == "same_as_test" else {"val_split_ratio": 0.3}),
    )
    engine(tmp_path, max_epochs=1).fit(make(Scrd), datamodule=data)
    leaks = mode == "same_as_test"
    warning = "Folder validates on its test set (files in both: 8)"
    assert (warning in caplog.text) == leaks
    assert ("--data.val_split_mode from_train (now" in caplog.text) == leaks
    assert ("test normal images are too few" in caplog.text) == leaks
    assert ("held-out normal images are too few" in caplog.text) != leaks


def test_anomalibs_own_way_to_resume_is_spoken_of(tiny_folder, tmp_path, caplog):
    run = engine(tmp_path, max_epochs=1)
    run.fit(make(Scrd), datamodule=datamodule(tiny_folder))
    checkpoint = run.trainer.checkpoint_callback.best_model_path
    engine(tmp_path).train(make(Scrd), datamodule=datamodule(tiny_folder), ckpt_path=checkpoint)
    assert f"This tests {checkpoint}, from which training went on, not the new weights" in caplog.text
