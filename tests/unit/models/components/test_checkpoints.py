"""Files of a run: what is wrong with a checkpoint is said, a full disk leaves the one before, folders stay."""

import errno
import os
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.models import Padim, Patchcore
from anomalib.models.image.super_add import SuperADDPostProcessor
from anomalib.post_processing import MEBinPostProcessor, PostProcessor
from anomalib.utils.path import create_versioned_dir
from lightning.fabric.plugins import TorchCheckpointIO

from anomalib_medical import Scrd
from anomalib_medical.errors import MedicalError, user_message
from anomalib_medical.models.components.checkpoints import (
    MedicalCheckpointIO,
    RunFiles,
    check_restorable,
    classes_of,
    post_processor_of,
    read_checkpoint,
    settle_latest,
    write_checkpoint,
)
from anomalib_medical.post_processing import MedicalPostProcessor

PATCHCORE = ("backbone", "layers", "pre_trained", "coreset_sampling_ratio", "num_neighbors", "precision")
TRAINED = {
    "state_dict": {"a": torch.zeros(3)},
    "hyper_parameters": dict.fromkeys(PATCHCORE, 1),
    "pytorch-lightning_version": "2.6.0",
    "optimizer_states": [],
    "loops": {},
}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def truncated(path: Path) -> Path:
    whole = saved(path, TRAINED).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def archive(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a.txt", "text")
    return path


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def folder(path: Path) -> Path:
    (path / "weights").mkdir(parents=True)
    saved(path / "weights" / "model.ckpt", TRAINED)
    return path


FAULTS = {
    "missing": (lambda path: path, "There is no checkpoint .*x.ckpt"),
    "folder": (folder, r"x.ckpt is a folder, no checkpoint. Did you mean .*x.ckpt/weights/model.ckpt\?"),
    "empty": (lambda path: written(path, b""), "it is empty"),
    "garbage": (lambda path: written(path, bytes(range(256)) * 9), "a file of another kind"),
    "text": (lambda path: written(path, b"hello\n"), "a file of another kind"),
    "truncated": (truncated, "its end is missing"),
    "zip": (archive, "it is damaged, or a file of another kind"),
    "tensors": (lambda path: saved(path, {"w": torch.zeros(1)}), "no trained model"),
    "list": (lambda path: saved(path, [1]), "no trained model"),
    "module": (lambda path: saved(path, {"model": torch.nn.ReLU()}), r"objects \(torch.*ReLU\) that are not loaded"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("read", [read_checkpoint, MedicalCheckpointIO().load_checkpoint])
def test_what_is_wrong_with_a_file_is_said(tmp_path, fault, read):
    make, told = FAULTS[fault]
    path = make(tmp_path / "x.ckpt")
    if read is not read_checkpoint and fault in {"tensors", "list"}:
        return  # what is in a file that can be read is the model's to judge
    with pytest.raises(MedicalError, match=told) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def test_whoever_reads_the_checkpoint_before_is_not_disturbed(tmp_path):
    path = tmp_path / "model.ckpt"
    write_checkpoint(TRAINED, path)
    with path.open("rb") as before:
        write_checkpoint(TRAINED | {"epoch": 7}, path)
        assert "epoch" not in torch.load(before)
    assert read_checkpoint(path)["epoch"] == 7


def test_a_remote_store_is_left_to_lightning():
    store, path = MedicalCheckpointIO(), "memory://runs/model.ckpt"
    store.save_checkpoint(TRAINED, path)
    assert store.load_checkpoint(path).keys() == TRAINED.keys()


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_checkpoint_before_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "weights" / "model.ckpt"
    checkpoints = MedicalCheckpointIO()
    checkpoints.save_checkpoint(TRAINED, path)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MedicalError, match=r"model.ckpt was not written: No space left .*that was there before is"):
        checkpoints.save_checkpoint(TRAINED | {"epoch": 1}, path)
    assert read_checkpoint(path).keys() == TRAINED.keys()
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(MedicalError, match="There is none now"):
        write_checkpoint(TRAINED, tmp_path / "new.ckpt")
    assert not list(tmp_path.glob("*.ckpt"))


def test_a_full_disk_is_said_of_other_files_too():
    error = OSError(errno.ENOSPC, "No space left on device", "results/images/a.png")
    assert "No space left on device: results/images/a.png" in user_message(error)
    assert "--default_root_dir" in user_message(error)


def test_a_checkpoint_of_another_class_is_named():
    assert classes_of(TRAINED) == ["Patchcore"]
    assert classes_of(TRAINED | {"model_class": "Ddad"}) == ["Ddad"]
    check_restorable(TRAINED, Path("x"), Patchcore)
    for cls in (Padim, Scrd):
        with pytest.raises(MedicalError, match=f"x is .* another class: of Patchcore, not of {cls.__name__}"):
            check_restorable(TRAINED, Path("x"), cls)
    with pytest.raises(MedicalError, match="of Ddad, not of Scrd"):
        check_restorable(TRAINED | {"model_class": "Ddad"}, Path("x"), Scrd)
    check_restorable(TRAINED, Path("x"), type("Somebody", (Patchcore,), {}))


def test_training_goes_on_only_from_what_a_training_wrote():
    weights = {key: value for key, value in TRAINED.items() if key != "optimizer_states"}
    check_restorable(weights, Path("x"), Patchcore)
    check_restorable(TRAINED, Path("x"), Patchcore, resume=True)
    with pytest.raises(MedicalError, match="training cannot go on from it"):
        check_restorable(weights, Path("x"), Patchcore, resume=True)
    with pytest.raises(MedicalError, match="no training by Lightning has written it"):
        check_restorable({"state_dict": {}}, Path("x"), Patchcore)


def test_a_transform_that_anomalib_could_not_save_is_not_left_out_in_silence():
    enabled = {"pre_processor": True}
    content = TRAINED | {"anomalib_components_enabled": enabled, "anomalib_pre_processor_config": {"transform": None}}
    with pytest.raises(MedicalError, match="lacks the transform of the model's pre-processor"):
        check_restorable(content, Path("x"), Patchcore)
    check_restorable(content | {"anomalib_components_enabled": {"pre_processor": False}}, Path("x"), Patchcore)


@pytest.mark.parametrize(
    "cls",
    [PostProcessor, MedicalPostProcessor, MEBinPostProcessor, SuperADDPostProcessor],
    ids=lambda cls: cls.__name__,
)
@pytest.mark.parametrize("state", [True, False])
def test_the_post_processor_of_the_training_comes_back(cls, state):
    trained = cls(image_sensitivity=0.7)
    content = {"anomalib_post_processor_config": trained.checkpoint_config()}
    if state:  # as Lightning writes it
        content["callbacks"] = {cls.__name__: trained.state_dict()}
    restored = post_processor_of(content, Path("x"))
    assert type(restored) is cls


def test_of_an_old_checkpoint_too():
    config = MedicalPostProcessor(target_specificity=0.9).checkpoint_config()
    del config["held_out"]
    restored = post_processor_of({"anomalib_post_processor_config": config}, Path("x"))
    assert isinstance(restored, MedicalPostProcessor)
    restored.load_checkpoint_config(config)
    assert (restored.target_specificity, restored.held_out) == (0.9, None)


def test_a_post_processor_that_nobody_knows_is_refused():
    theirs = type("Theirs", (PostProcessor,), {})()
    content = {
        "anomalib_post_processor_config": theirs.checkpoint_config(),
        "callbacks": {"Theirs": theirs.state_dict()},
    }
    with pytest.raises(MedicalError, match=r"not known \(Theirs\)"):
        post_processor_of(content, Path("x"))
    with pytest.raises(MedicalError, match=r"not known \(secret\)"):
        post_processor_of({"anomalib_post_processor_config": {"secret": 1}}, Path("x"))


def test_without_a_post_processor_there_is_none():
    assert post_processor_of({"anomalib_components_enabled": {"post_processor": False}}, Path("x")) is False
    assert post_processor_of({}, Path("x")) is True


def test_a_real_folder_becomes_a_version_and_its_files_stay(tmp_path):
    latest = tmp_path / "latest"
    (latest / "images").mkdir(parents=True)
    (latest / "images" / "a.png").write_text("a")
    settle_latest(latest)
    assert latest.is_symlink()
    assert latest.resolve() == tmp_path / "v0"
    assert (latest / "images" / "a.png").read_text() == "a"
    # What anomalib's training does, and could not do with a folder.
    assert create_versioned_dir(tmp_path) == tmp_path / "v1"
    assert (tmp_path / "v0" / "images" / "a.png").read_text() == "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "v0", "v1"]


def test_numbers_go_on_where_versions_are(tmp_path):
    (tmp_path / "v3").mkdir()
    (tmp_path / "latest").mkdir()
    settle_latest(tmp_path / "latest")
    assert (tmp_path / "latest").resolve() == tmp_path / "v4"


def test_nothing_is_made_unless_it_is_to_be(tmp_path):
    settle_latest(tmp_path / "latest", make=False)
    settle_latest(tmp_path / "elsewhere")
    assert not list(tmp_path.iterdir())
    settle_latest(tmp_path / "latest")
    (tmp_path / "latest" / "a").write_text("a")
    settle_latest(tmp_path / "latest")
    assert (tmp_path / "v0" / "a").exists()


def trainer(checkpoint_io, folder):
    return SimpleNamespace(
        strategy=SimpleNamespace(checkpoint_io=checkpoint_io), is_global_zero=True, default_root_dir=folder
    )


def test_checkpoints_are_written_with_care_unless_the_user_has_a_way_of_their_own(tmp_path):
    theirs = trainer(AnomalibCheckpointIO([int]), tmp_path)
    RunFiles().setup(theirs, None, "fit")
    assert isinstance(theirs.strategy.checkpoint_io, MedicalCheckpointIO)
    assert theirs.strategy.checkpoint_io.extra_safe_globals == [int]
    own = trainer(TorchCheckpointIO(), tmp_path)
    RunFiles().setup(own, None, "fit")
    assert type(own.strategy.checkpoint_io) is TorchCheckpointIO


def test_our_models_bring_it_along():
    model = Scrd(backbone="resnet18", image_size=64, pre_trained=False)
    assert any(isinstance(callback, RunFiles) for callback in model.configure_callbacks())
