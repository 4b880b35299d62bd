"""A trainer for measurements: on the CPU, without validation, checkpoints or talk."""

from lightning.pytorch import Callback, Trainer


def quiet_trainer(epochs: int, callbacks: list[Callback] | None = None) -> Trainer:
    """Make a trainer for so many epochs."""
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=callbacks,
    )
