"""Stops a training whose numbers are no numbers any more, and keeps them out of checkpoints: a MedicalError each."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from anomalib_medical.errors import MedicalError, shell_argument


class StopOnDivergence(Callback):
    """Stops once a loss, the weights or all validation scores are not finite.

    The loss is looked at on its own device; reading the result, which a GPU would have to be waited for, is left to
    every ``log_every_n_steps``-th step, to validation and to the end of an epoch: before a checkpoint is written.
    """

    def __init__(self) -> None:
        super().__init__()
        self._bad_step: Tensor | None = None
        self._a_score_is_finite: Tensor | None = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's
        *_: object,
    ) -> None:
        """Look at the loss."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        if not isinstance(loss, Tensor):
            return
        if self._bad_step is None:
            self._bad_step = torch.full((), -1, device=loss.device)
        is_first = ~loss.detach().isfinite().all() & (self._bad_step < 0)
        self._bad_step = torch.where(is_first, trainer.global_step, self._bad_step)
        reads_at_once = loss.device.type == "cpu" and trainer.world_size == 1
        if reads_at_once or trainer.global_step % max(1, trainer.log_every_n_steps) == 0:  # type: ignore[attr-defined]
            self._check_loss(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate, and take a threshold from, finite weights only."""
        self._a_score_is_finite = None
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self.on_train_epoch_end(trainer, pl_module)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,  # noqa: ANN401 - Lightning's
        *_: object,
    ) -> None:
        """Look at the scores."""
        del trainer, pl_module
        scores = getattr(outputs, "pred_score", None)
        if scores is not None:
            any_finite = scores.detach().isfinite().any()
            known = self._a_score_is_finite
            self._a_score_is_finite = any_finite if known is None else known | any_finite

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if no image has a score: finite weights can be as useless."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        none_is_finite = self._a_score_is_finite is not None and not bool(self._a_score_is_finite)
        if trainer.strategy.reduce_boolean_decision(none_is_finite, all=True):
            raise _diverged(pl_module, f"no validation image has a finite score after step {trainer.global_step}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Come before the checkpoint of the epoch."""
        self._check_loss(trainer, pl_module)
        if not all_finite(parameter for parameter in pl_module.parameters() if parameter.requires_grad):
            raise _diverged(pl_module, f"weights are nan or infinite after step {trainer.global_step}")

    def _check_loss(self, trainer: Trainer, pl_module: LightningModule) -> None:
        step = -1 if self._bad_step is None else int(self._bad_step)
        if trainer.strategy.reduce_boolean_decision(step >= 0, all=False):
            step = step if step >= 0 else trainer.global_step
            raise _diverged(pl_module, f"the loss is nan or infinite in step {step}")


def refuse_broken_weights(module: LightningModule, state: dict[str, Any]) -> None:
    """Keep a state whose network is not finite from being saved, over a finite one perhaps."""
    if not all_finite(value for key, value in state.items() if key.startswith("model.")):
        raise _diverged(module, "weights are nan or infinite, and were not saved")


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all values are finite; waits for the device once."""
    found = [tensor.detach().isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    return not found or bool(torch.stack(found).all())


def _diverged(module: LightningModule, what: str) -> MedicalError:
    if module._trainer is None:  # noqa: SLF001 - `trainer` raises where there is none
        return MedicalError(f"This model cannot be used: {what}. Take an earlier checkpoint.")
    trainer = module.trainer
    rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else float("nan")
    ways = [shell_argument("model.learning_rate", float(f"{rate / 10:.1g}"))]
    if not trainer.gradient_clip_val:
        ways.append(shell_argument("trainer.gradient_clip_val", 1.0))
    if trainer.precision != "32-true":
        ways.append(f"{shell_argument('trainer.precision', '32-true')} (now {trainer.precision})")
    callbacks = [each for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
    paths = {path for each in callbacks for path in (each.best_model_path, each.last_model_path, *each.best_k_models)}
    written = [Path(path) for path in paths if path and Path(path).is_file()]
    newest = max(written, key=lambda path: path.stat().st_mtime, default=None)
    kept = f"The last checkpoint with finite weights: {newest}" if newest else "No checkpoint was written before."
    return MedicalError(
        f"The training has diverged: {what} (epoch {trainer.current_epoch}, learning rate {rate:g}). Try "
        f"{', or '.join(ways)}. {kept}"
    )
