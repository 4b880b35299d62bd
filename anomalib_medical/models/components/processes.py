"""Several processes of one run, one for each device: what they have to agree on, and what none may count twice."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DistributedSampler, Sampler

from anomalib_medical.errors import MedicalError

_WAY_OUT = "Set --trainer.strategy ddp, or --trainer.devices 1."


class Processes(Callback):
    """Give the processes of a run one folder, each image of an evaluation once, and one network.

    Does nothing where there is one process.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before data is loaded: let samplers deal what there is, and no more."""
        del pl_module, stage
        strategy: Any = trainer.strategy
        if trainer.world_size == 1:
            return
        # anomalib makes up a folder in every process; whoever writes is to write into that of the first.
        vars(trainer)["_default_root_dir"] = strategy.broadcast(trainer.default_root_dir)  # which has no setter
        if "process_dataloader" in vars(strategy) or trainer.overfit_batches:  # type: ignore[attr-defined]
            return
        theirs = strategy.process_dataloader
        # Where Lightning lets a strategy change loaders into which it has put its distributed samplers.
        strategy.process_dataloader = lambda loader: theirs(deal(loader))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate what the first process is going to save."""
        self.on_train_epoch_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the first process's buffers: statistics of batch normalisation are of each one's own batches.

        torch does so with the next batch only; before that supports are encoded and maps of normal images fitted.
        """
        if trainer.world_size > 1 and trainer.state.fn == TrainerFn.FITTING:
            for buffer in pl_module.buffers():
                if buffer.numel():
                    torch.distributed.broadcast(buffer, src=0)


def deal(loader: Any) -> Any:  # noqa: ANN401 - whatever Lightning loads from
    """Let a loader with a distributed sampler give each image of an evaluation to one process; returns the loader.

    torch's sampler repeats the first images so that all processes get equally many, which training needs: metrics and
    thresholds would count them twice.

    Raises:
        MedicalError: If there are fewer images than processes.
    """
    sampler = getattr(getattr(loader, "batch_sampler", None) or loader, "sampler", None)
    if not isinstance(sampler, DistributedSampler):
        return loader
    inner = getattr(sampler.dataset, "_sampler", None)  # of a sampler that Lightning has wrapped
    if callable(getattr(inner, "set_epoch", None)):
        _pass_epochs_on(sampler, inner)
    if sampler.shuffle:  # training
        return loader
    images = len(sampler.dataset)  # type: ignore[arg-type]  # torch's sampler has asked it before
    if images < sampler.num_replicas:
        msg = (
            f"{images} of the images to score for {sampler.num_replicas} processes, expected at least one for each. "
            f"Set --trainer.devices {max(images, 1)}, or give more images."
        )
        raise MedicalError(msg)
    sampler.total_size = images
    sampler.num_samples = len(range(sampler.rank, images, sampler.num_replicas))
    return loader


def _pass_epochs_on(wrapper: Any, inner: Any) -> None:  # noqa: ANN401 - samplers
    """Let a sampler draw anew in every epoch, of which Lightning's wrapper around it would tell it nothing."""
    theirs = wrapper.set_epoch

    def set_epoch(epoch: int) -> None:
        theirs(epoch)
        inner.set_epoch(epoch)

    wrapper.set_epoch = set_epoch


def undealt(sampler: Sampler[Any]) -> list[Any]:
    """All that a sampler gives, also one that deals it to several processes."""
    if not isinstance(sampler, DistributedSampler):
        return list(sampler)
    inner = getattr(sampler.dataset, "_sampler", None)
    return list(range(len(sampler.dataset)) if inner is None else inner)  # type: ignore[arg-type]  # as above


def check_strategy(strategy: Any) -> None:  # noqa: ANN401 - a name, one of Lightning's, or a user's own
    """Refuse processes that are copies of this one; others are this command, started again."""
    started = str(getattr(strategy, "_start_method", strategy))
    if any(way in started for way in ("spawn", "fork", "notebook")):
        msg = (
            f"--trainer.strategy: got processes that are copies of this one ({started}), which give back no more of a "
            f"training than its tensors, not what scores and thresholds depend on besides. {_WAY_OUT}"
        )
        raise MedicalError(msg)


def check_processes(trainer: Trainer, model: LightningModule) -> None:
    """Refuse ways to use several devices in which a wrong model, or none, would come out.

    Raises:
        MedicalError: If the trainer would go such a way.
    """
    if trainer.world_size == 1:
        return
    if not isinstance(trainer.strategy, DDPStrategy):
        name = type(trainer.strategy).__name__
        msg = f"--trainer.strategy: got {name}, expected processes that each hold the whole model. {_WAY_OUT}"
        raise MedicalError(msg)
    if trainer.state.fn != TrainerFn.FITTING:
        return
    check_strategy(trainer.strategy)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        msg = f"This {type(model).__name__} learns nothing that several processes could share: --trainer.devices 1."
        raise MedicalError(msg)
