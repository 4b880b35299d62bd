"""What a training of DDAD needs of arguments, trainer, data and an earlier checkpoint."""

from pathlib import Path
from typing import Any

import torch
from anomalib.data import AnomalibDataModule
from lightning.pytorch import Trainer

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components.checkpoints import CheckpointError, read_checkpoint

from .torch_model import DdadModel

_MODULE_B = "model.module_b."


class DdadError(MedicalError, ValueError):
    """DDAD cannot be trained as asked."""


def check_members(members: int, score: str) -> None:
    """Refuse too few networks for a score.

    Raises:
        ValueError: If there are.
    """
    if members < 1:
        msg = f"members: got {members}, expected at least 1."
        raise ValueError(msg)
    if members == 1 and score in {"intra", "refined"}:
        msg = f"members: got 1, expected at least 2: score {score} needs the spread between networks (the paper has 3)."
        raise ValueError(msg)


def check_trainer(trainer: Trainer) -> AnomalibDataModule:
    """Return the trainer's datamodule.

    Raises:
        DdadError: If there is none, or the trainer has several devices.
    """
    if trainer.world_size > 1:
        msg = (
            f"Ddad trains on one device, and the trainer has {trainer.world_size}: its networks are small, each "
            "draws its own batches. Set --trainer.devices 1."
        )
        raise DdadError(msg)
    datamodule: AnomalibDataModule | None = getattr(trainer, "datamodule", None)
    if datamodule is None:
        msg = (
            "Ddad draws the batches of each of its networks by itself and needs a datamodule for that, not a "
            "dataloader: engine.fit(model, datamodule=...)."
        )
        raise DdadError(msg)
    return datamodule


def check_epochs(trainer: Trainer, refinement_epochs: int) -> None:
    """Refuse a training that leaves no epoch for the networks.

    Raises:
        DdadError: If it does.
    """
    epochs = trainer.max_epochs or -1
    if epochs <= refinement_epochs:
        msg = (
            f"The last refinement_epochs={refinement_epochs} of --trainer.max_epochs={epochs} train the "
            "refinement, and the epochs before them the networks: max_epochs must be larger (350 in the paper)."
        )
        raise DdadError(msg)


def check_validation_interval(trainer: Trainer, refinement_steps: int) -> None:
    """Refuse now what Lightning would refuse when the refinement's shorter epochs begin.

    Raises:
        DdadError: If it would.
    """
    interval = trainer.val_check_interval
    if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > refinement_steps:
        msg = (
            f"--trainer.val_check_interval={interval} is more than the {refinement_steps} steps of an "
            "epoch of the refinement. Validate every so many epochs: --trainer.check_val_every_n_epoch."
        )
        raise DdadError(msg)


def read_module_b(path: Path, model: DdadModel) -> dict[str, torch.Tensor]:
    """Read module B's weights from a checkpoint of a Ddad.

    Args:
        path: The checkpoint.
        model: What they are for.

    Raises:
        DdadError: If it is none, or its networks are others.
    """
    try:
        content = read_checkpoint(path)
    except CheckpointError as error:
        msg = f"module_b: {error}"
        raise DdadError(msg) from error
    state: dict[str, torch.Tensor] = content["state_dict"]
    weights = {key.removeprefix(_MODULE_B): value for key, value in state.items() if key.startswith(_MODULE_B)}
    if not weights:
        msg = f"module_b: {path} is a checkpoint of another model than Ddad."
        raise DdadError(msg)
    theirs: dict[str, Any] = content.get("hyper_parameters", {})
    # Sizes that swap height and width have tensors of the same shapes.
    other_size = tuple(theirs.get("image_size", ())) != model.image_size
    own = model.module_b.state_dict()
    shapes, own_shapes = ({key: value.shape for key, value in part.items()} for part in (weights, own))
    if other_size or shapes != own_shapes:
        told = ", ".join(f"{key} {theirs.get(key)}" for key in ("network", "members", "image_size"))
        msg = f"module_b: the networks in {path} are others ({told}): build this model with the same arguments."
        raise DdadError(msg)
    return weights
