"""One progress bar for a whole training, test or prediction; in a log a line now and then."""

import logging
import math
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from anomalib_medical.io import Progress

logger = logging.getLogger(__name__)

# Between two looks at the loss, for which a GPU has to be waited for.
_SECONDS = 0.5


class RunProgress(ProgressBar):
    """Shows steps of all epochs, the time that is left and the loss.

    On a terminal it is a bar, of which there is one at a time; validation within a training has none of its own.
    Elsewhere it is a line every half minute, or none of what is done sooner.

    Args:
        say: Takes these lines; the log if not given.
    """

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        super().__init__()
        self._say = say or logger.info
        self._drawn = say is None and sys.stderr.isatty()
        self._enabled = True
        self._bar: tqdm[Any] | None = None
        self._lines: Progress | None = None
        self._looked = 0.0
        self._what, self._done = "", 0

    def enable(self) -> None:
        """Show it."""
        self._enabled = True

    def disable(self) -> None:
        """Show nothing, as in all processes but the first."""
        self._enabled = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        del pl_module
        epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs > 0 else math.inf
        batches = epochs * trainer.num_training_batches
        if trainer.max_steps > 0:
            batches = min(batches, trainer.max_steps * trainer.accumulate_grad_batches)
        self._start("Training", batches, trainer.fit_loop.epoch_loop.total_batch_idx + 1)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: object) -> None:
        """Move on."""
        del args
        self._move(lambda: self._epoch(trainer) + self._loss(trainer, pl_module))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, if it is not within a training."""
        del pl_module
        if trainer.state.fn == "validate":
            self._start("Validating", _total(trainer.num_val_batches))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        del pl_module
        self._start("Testing", _total(trainer.num_test_batches))

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        del pl_module
        self._start("Predicting", _total(trainer.num_predict_batches))

    def on_validation_batch_end(self, trainer: Trainer, *args: object) -> None:
        """Move on, if it is not within a training."""
        del args
        if trainer.state.fn == "validate":
            self._move()

    def on_test_batch_end(self, *args: object) -> None:
        """Move on."""
        del args
        self._move()

    def on_train_end(self, *args: object) -> None:
        """Leave the bar as it is."""
        del args
        self._end()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the bar as it is, if it is not within a training."""
        del pl_module
        if trainer.state.fn == "validate":
            self._end()

    def on_exception(self, *args: object) -> None:
        """Leave the bar as it is."""
        del args
        self._end()

    def on_predict_batch_end(self, *args: object) -> None:
        """Move on."""
        del args
        self._move()

    def on_test_end(self, *args: object) -> None:
        """Leave the bar as it is."""
        del args
        self._end()

    def on_predict_end(self, *args: object) -> None:
        """Leave the bar as it is."""
        del args
        self._end()

    def _start(self, what: str, total: float, done: int = 0) -> None:
        self._end()
        if not self._enabled:
            return
        known = int(total) if math.isfinite(total) else None
        self._what, self._done, self._looked = what, done, 0.0
        if self._drawn:
            self._bar = tqdm(desc=what, total=known, initial=done, unit="step", dynamic_ncols=True)
        elif known:
            self._lines = Progress(known, done, unit="step")

    def _move(self, more: Callable[[], str] = str) -> None:
        self._done += 1
        if self._bar is not None:
            if (now := time.monotonic()) - self._looked > _SECONDS:
                self._looked = now
                self._bar.set_postfix_str(more().removeprefix(", "), refresh=False)
            self._bar.update()
        elif self._lines is not None and (line := self._lines.line(self._done)):
            self._say(f"{self._what}{more()}: {line}")

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._lines = None

    @staticmethod
    def _epoch(trainer: Trainer) -> str:
        of = f" of {trainer.max_epochs}" if trainer.max_epochs is not None and trainer.max_epochs > 0 else ""
        return f", epoch {trainer.current_epoch + 1}{of}"

    def _loss(self, trainer: Trainer, pl_module: LightningModule) -> str:
        metrics = self.get_metrics(trainer, pl_module)
        losses = [value for name, value in metrics.items() if "loss" in name and isinstance(value, float)]
        return f", loss {losses[0]:.3g}" if losses else ""


def _total(batches: float | Sequence[float]) -> float:
    return sum(batches) if isinstance(batches, Sequence) else batches
