"""Thresholds of few-shot models: from normal images of patients that are not in the support."""

import pytest
import torch

from anomalib_medical import D24fad, FewShotTasks, MedicalFolder
from anomalib_medical.benchmark.training import set_threshold


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
