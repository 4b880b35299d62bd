"""One bar on a terminal, lines in a log."""

import logging
import re
import sys

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from anomalib_medical.callbacks import RunProgress
from anomalib_medical.io import archive
from tests.helpers.terminal import Terminal


class Line(LightningModule):
    """Fits nothing, with a loss."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch):
        loss = self.layer(batch).mean() * 0 + 0.25
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch):
        del batch

    test_step = predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def run(progress, tmp_path, **options):
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_model_summary"), False)
    trainer = Trainer(**off, accelerator="cpu", callbacks=[progress], default_root_dir=tmp_path, **options)
    loader = DataLoader(torch.zeros(8, 1), batch_size=2)
    trainer.fit(Line(), loader, loader)
    for task in (trainer.validate, trainer.test):
        task(Line(), loader, verbose=False)
    trainer.predict(Line(), loader)


@pytest.mark.parametrize(("options", "steps"), [({"max_epochs": 2}, 8), ({"max_steps": 3}, 3)])
def test_a_terminal_shows_one_bar_for_each_task(options, steps, tmp_path, monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TQDM_DISABLE", "0")
    run(RunProgress(), tmp_path, **options)
    lines = [line.split("\r")[-1] for line in screen.getvalue().split("\n") if "%|" in line]
    assert [re.match(r"(\w+):", line)[1] for line in lines] == ["Training", "Validating", "Testing", "Predicting"]
    assert [re.search(r"(\d+)/(\d+) ", line).groups() for line in lines] == [(str(steps),) * 2, *[("4", "4")] * 3]
    assert "loss 0.25" in screen.getvalue()


def test_a_log_has_a_line_now_and_then(tmp_path, caplog, monkeypatch, capsys):
    monkeypatch.setattr(archive, "_PROGRESS_SECONDS", 0.0)
    with caplog.at_level(logging.INFO):
        run(RunProgress(), tmp_path, max_epochs=2)
    said = [record.getMessage() for record in caplog.records if record.name.endswith("callbacks.progress")]
    assert re.fullmatch(r"Training, epoch 2 of 2, loss 0.25: 8 of 8 steps, [\d.]+ a second, 0:00:00 left\.", said[7])
    assert said[-1].startswith("Predicting: 4 of 4 steps, ")
    assert "%|" not in capsys.readouterr().err


def test_short_tasks_say_nothing_in_a_log_and_a_job_prints_its_own(tmp_path, caplog, monkeypatch):
    lines = []
    run(RunProgress(lines.append), tmp_path, max_epochs=1)
    assert lines == []
    monkeypatch.setattr(archive, "_PROGRESS_SECONDS", 0.0)
    run(RunProgress(lines.append), tmp_path, max_epochs=1)
    assert lines[0].startswith("Training, epoch 1 of 1")
    assert not [record for record in caplog.records if record.name.endswith("callbacks.progress")]
