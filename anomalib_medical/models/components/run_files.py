"""The files of a run: checkpoints that are whole, and version folders that the next run finds in order."""

from pathlib import Path

from anomalib.engine.plugins.checkpoint_io import AnomalibCheckpointIO
from anomalib.utils.path import create_versioned_dir
from lightning.pytorch import Callback, LightningModule, Trainer

from anomalib_medical.models.components.checkpoints import MedicalCheckpointIO


class RunFiles(Callback):
    """Write checkpoints by `MedicalCheckpointIO`, and test or predict in a version folder where nothing ran before."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before anything is read or written, but for a copy of the configuration."""
        del pl_module, stage
        theirs = trainer.strategy.checkpoint_io
        if type(theirs) is AnomalibCheckpointIO:
            trainer.strategy.checkpoint_io = MedicalCheckpointIO(theirs.extra_safe_globals)
        if trainer.is_global_zero:
            settle_latest(Path(trainer.default_root_dir))


def settle_latest(folder: Path, *, make: bool = True) -> None:
    """Make a folder named ``latest`` the link to a version folder that anomalib's training expects there.

    Where nothing was trained, anomalib's test and prediction make it a real folder, and the next training fails. What
    is in it is kept, in the version folder.

    Args:
        folder: Any folder; one of another name is left alone.
        make: Whether to make the link where there is nothing.
    """
    if folder.name != "latest" or folder.is_symlink() or not (make or folder.is_dir()):
        return
    held = folder.rename(folder.with_name(".latest")) if folder.is_dir() else None
    version = create_versioned_dir(folder.parent)
    if held is not None:
        version.rmdir()
        held.rename(version)
