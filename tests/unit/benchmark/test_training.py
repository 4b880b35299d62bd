"""How far a training is; and thresholds of few-shot models: from normal images of patients not in the support."""

from types import SimpleNamespace

import pytest
import torch

from anomalib_medical import D24fad, FewShotTasks, MedicalFolder
from anomalib_medical.benchmark.training import Steps, set_threshold


def trained(steps, **fit):
    """A trainer after some steps of which each is half a minute."""
    fit = {"max_steps": -1, "max_epochs": -1, "num_training_batches": 4, "current_epoch": 0} | fit
    loop = SimpleNamespace(total_batch_idx=steps - 1)
    return SimpleNamespace(global_step=steps, fit_loop=loop, callback_metrics={"train_loss": torch.tensor(0.25)}, **fit)


@pytest.mark.parametrize(
    ("fit", "share"),
    [({}, "10%"), ({"max_steps": 8}, "25%"), ({"max_epochs": 1}, "50%"), ({"max_steps": 1000}, "10%")],
)
def test_how_far_a_training_is_says_what_ends_it_first(fit, share):
    said = []
    teller = Steps(SimpleNamespace(time_elapsed=lambda: 60.0), 10.0, said.append)
    for step in (2, 3):  # the second is too soon
        teller.on_train_batch_end(trained(step, **fit), None, None, None, step - 1)
    assert said == [f"training {share}, step 2, loss 0.25"]


@pytest.fixture
def data(tiny_folder):
    made = MedicalFolder(root=tiny_folder, val_split_ratio=0.5, num_workers=0)
    made.setup()
    return made


@pytest.fixture
def calibrated(monkeypatch):
    """What models were calibrated with."""
    given = []
    monkeypatch.setattr(D24fad, "recalibrate", lambda _, normals: given.append(normals))
    return given


def test_a_support_image_is_not_calibrated_with(data, calibrated, tiny_folder):
    """A datamodule that is set up again has its whole validation set again."""
    tasks = {name: MedicalFolder(root=tiny_folder, num_workers=0) for name in ("tiny", "other")}
    source = FewShotTasks(tasks=tasks, target="tiny", shots=1, target_shots=3, num_workers=0)
    source.setup()
    support = {patient.removeprefix("tiny/") for patient in source.support_data.samples.patient_id}
    held_out = list(data.val_data.samples.patient_id)
    rows = [row for row, patient in enumerate(held_out) if patient not in support]
    assert 0 < len(rows) < len(held_out)
    kept = [torch.as_tensor(data.val_data[row].image) for row in rows]
    set_threshold(D24fad(backbone="resnet18", pre_trained=False), None, data, source)
    (normals,) = calibrated
    assert len(normals) == len(kept)
    assert all(torch.equal(one, other) for one, other in zip(normals, kept, strict=True))
    # The scores of these are saved too.
    assert list(data.val_data.samples.patient_id) == [held_out[row] for row in rows]
