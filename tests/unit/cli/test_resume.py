"""`train --resume` finds the last run and refuses what would not go on with it."""

import pytest
import torch

from anomalib_medical import MedicalFolder, Scrd
from anomalib_medical.cli.resume import find_last_run
from anomalib_medical.errors import MedicalError
from tests.helpers.commands import fail

ARGUMENTS = {"backbone": "resnet18", "image_size": 64, "pre_trained": False}


def content(epochs=3, **more):
    progress = {"fit_loop": {"epoch_progress": {"current": {"processed": epochs}}}}
    trained = {"state_dict": {}, "optimizer_states": [], "loops": progress, "global_step": 10 * epochs}
    arguments = {"hyper_parameters": dict(Scrd(**ARGUMENTS).hparams), "model_class": "Scrd"}
    return trained | arguments | {"pytorch-lightning_version": "2.6.0"} | more


def save(folder, name="model.ckpt", **kwargs):
    path = folder / "weights/lightning" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content(**kwargs), path)
    return path


@pytest.fixture
def data(tiny_folder):
    return MedicalFolder(tiny_folder)


def test_the_newest_version_s_latest_checkpoint_is_taken(tmp_path):
    for version, epochs in ((2, 9), (9, 8), (10, 2)):
        save(tmp_path / f"v{version}", epochs=epochs)
    latest = save(tmp_path / "v10", "last.ckpt", epochs=3)
    weights = {key: value for key, value in content(epochs=7).items() if key not in {"optimizer_states", "loops"}}
    torch.save(weights, latest.with_name("new_task.ckpt"))
    (tmp_path / "latest").symlink_to(tmp_path / "v2")
    found = find_last_run(tmp_path)
    assert (found.folder, found.checkpoint) == (tmp_path / "v10", latest)


def test_where_nothing_ran_or_nothing_was_kept_there_is_nothing_to_go_on_with(tmp_path):
    with pytest.raises(MedicalError, match=r"there is no run of this model on this data in .*none"):
        find_last_run(tmp_path / "none")
    save(tmp_path / "v0")
    (tmp_path / "v1").mkdir()
    with pytest.raises(MedicalError, match="v1, has no checkpoint to go on from: it stopped before the end of its"):
        find_last_run(tmp_path)


def test_the_same_command_goes_on(tmp_path, data):
    save(tmp_path / "v0", reading=data.reading)
    find_last_run(tmp_path).check(Scrd(**ARGUMENTS), data, {"max_epochs": 4, "max_steps": -1})
    find_last_run(tmp_path).check(Scrd(**ARGUMENTS), data, {"max_epochs": None, "max_steps": 31})


def test_another_training_is_refused_with_both_values(tmp_path, data, tiny_folder):
    last = find_last_run(save(tmp_path / "v0", reading=data.reading).parents[3])
    with pytest.raises(MedicalError, match=r"learning_rate: it had 0.001, this has 0.1\). Give --model.learning_rate"):
        last.check(Scrd(learning_rate=0.1, **ARGUMENTS), data, {})
    with pytest.raises(MedicalError, match=r"data.window: it had None, this has 'lung'\). Give --data.window null"):
        last.check(Scrd(**ARGUMENTS), MedicalFolder(tiny_folder, window="lung"), {})
    with pytest.raises(MedicalError, match=r"data.axis: it had 'axial', this has 'coronal'"):
        last.check(Scrd(**ARGUMENTS), MedicalFolder(tiny_folder, axis="coronal"), {})


@pytest.mark.parametrize("limit", [{"max_epochs": 3}, {"max_epochs": 2}, {"max_epochs": -1, "max_steps": 30}])
def test_a_training_that_ended_is_not_repeated(limit, tmp_path, data):
    save(tmp_path / "v0", reading=data.reading)
    with pytest.raises(MedicalError, match=r"had ended \(--trainer.max_\w+ \d+\). Train longer .*test --ckpt_path"):
        find_last_run(tmp_path).check(Scrd(**ARGUMENTS), data, limit)


def test_two_ways_to_go_on_are_one_too_many(capsys, tiny_folder):
    data = ["--data=MedicalFolder", f"--data.root={tiny_folder}"]
    assert "expected --resume or --ckpt_path, not both" in fail(
        capsys, "train", "--model=Scrd", *data, "--resume", "--ckpt_path=model.ckpt"
    )
