"""What DDAD needs of arguments (ValueError), of trainer, data and an earlier checkpoint (MedicalError)."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from anomalib_medical.errors import MedicalError
from anomalib_medical.models.components import check_choice, read_checkpoint

from .networks import NETWORKS
from .torch_model import SCORES, DdadModel, needs_module_a

_MODULE_B = "model.module_b."


def check_arguments(
    network: str, members: int, score: str, refinement_input: str, refinement_epochs: int, module_b: str | None
) -> None:
    """Refuse choices that there are not, too few networks for a score, and a training in which nothing learns."""
    check_choice("network", network, NETWORKS)
    check_choice("score", score, SCORES)
    check_choice("refinement_input", refinement_input, ("inter_intra", "intra"))
    fewest = 2 if score in {"intra", "refined"} else 1
    if members < fewest:
        why = f": score {score} needs the spread between networks (the paper has 3)" if fewest == 2 else ""
        msg = f"members: got {members}, expected at least {fewest}{why}."
        raise ValueError(msg)
    if refinement_epochs < 1:
        msg = f"refinement_epochs: got {refinement_epochs}, expected at least 1."
        raise ValueError(msg)
    if module_b is not None and not needs_module_a(score, refinement_input):
        msg = (
            f"module_b: got a checkpoint, and score: {score!r} trains nothing but module B. Use score inter or "
            "refined (with refinement_input inter_intra)."
        )
        raise ValueError(msg)


def check_trainer(trainer: Trainer, refinement_epochs: int | None) -> None:
    """Refuse data without a datamodule, and a training without an epoch for the networks."""
    if getattr(trainer, "datamodule", None) is None:
        msg = (
            "Ddad draws the batches of each of its networks by itself and needs a datamodule for that, not a "
            "dataloader: engine.fit(model, datamodule=...)."
        )
        raise MedicalError(msg)
    epochs = trainer.max_epochs or -1
    if refinement_epochs is not None and epochs <= refinement_epochs:
        msg = (
            f"The last refinement_epochs={refinement_epochs} of --trainer.max_epochs={epochs} train the "
            "refinement, and the epochs before them the networks: max_epochs must be larger (350 in the paper)."
        )
        raise MedicalError(msg)


def check_pool(datamodule: Any, score: str) -> None:  # noqa: ANN401 - anomalib's know no unlabeled images
    """Refuse data without unlabeled images."""
    if not len(getattr(datamodule, "unlabeled_data", ())):
        other = "score intra" if score == "inter" else "refinement_input intra"
        msg = (
            f"score: {score} compares known normal with unlabeled images, and {datamodule.name} has no "
            "unlabeled ones. With --data anomalib_medical.MedicalFolder put images that nobody has looked at into "
            "<root>/unlabeled, or name their folder with --data.unlabeled_dir; without any, "
            f"--model.{other} learns from the known normal ones alone."
        )
        raise MedicalError(msg)


def check_validation_interval(trainer: Trainer, refinement_steps: int) -> None:
    """Refuse now what Lightning would refuse when the refinement's shorter epochs begin."""
    interval = trainer.val_check_interval
    if isinstance(interval, int) and trainer.check_val_every_n_epoch is not None and interval > refinement_steps:
        msg = (
            f"--trainer.val_check_interval={interval} is more than the {refinement_steps} steps of an "
            "epoch of the refinement. Validate every so many epochs: --trainer.check_val_every_n_epoch."
        )
        raise MedicalError(msg)


def check_refined(score: str, refined_steps: int) -> None:
    """Refuse scores of a refinement that has learnt nothing."""
    if score == "refined" and not refined_steps:
        msg = (
            "The refinement has not been trained: the training ended before its turn. Resume it (anomalib fit "
            "--ckpt_path ...), or train with score inter."
        )
        raise MedicalError(msg)


def read_module_b(path: Path, model: DdadModel) -> dict[str, torch.Tensor]:
    """Read module B's weights from a checkpoint of a Ddad whose networks are those of the model."""
    content = read_checkpoint(path)
    state: dict[str, torch.Tensor] = content["state_dict"]
    weights = {key.removeprefix(_MODULE_B): value for key, value in state.items() if key.startswith(_MODULE_B)}
    if not weights:
        msg = f"module_b: {path} is a checkpoint of another model than Ddad."
        raise MedicalError(msg)
    theirs: dict[str, Any] = content.get("hyper_parameters", {})
    # Sizes that swap height and width have tensors of the same shapes.
    other_size = tuple(theirs.get("image_size", ())) != model.image_size
    shapes, own = ({key: value.shape for key, value in part.items()} for part in (weights, model.module_b.state_dict()))
    if other_size or shapes != own:
        told = ", ".join(f"{key} {theirs.get(key)}" for key in ("network", "members", "image_size"))
        msg = f"module_b: the networks in {path} are others ({told}): build this model with the same arguments."
        raise MedicalError(msg)
    return weights
