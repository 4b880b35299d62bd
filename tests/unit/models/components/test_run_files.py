"""Version folders stay as anomalib's next training needs them, and nothing in them is lost."""

from types import SimpleNamespace

from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.utils.path import create_versioned_dir
from lightning.fabric.plugins import TorchCheckpointIO

from anomalib_medical import Scrd
from anomalib_medical.models.components.checkpoints import MedicalCheckpointIO
from anomalib_medical.models.components.run_files import RunFiles, settle_latest


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
