"""Small trainings through anomalib's engine, and comparing what comes out of them."""

import torch
from anomalib.engine import Engine

from anomalib_medical import MedicalFolder


def datamodule(root, **kwargs):
    return MedicalFolder(root=root, train_batch_size=4, eval_batch_size=4, num_workers=0, **kwargs)


def engine(folder, **kwargs):
    options = {"max_epochs": 2, "accelerator": "cpu", "devices": 1, "logger": False, "enable_progress_bar": False}
    return Engine(default_root_dir=folder, **options | kwargs)


def weights_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(value, second[key], rtol=0, atol=0, equal_nan=True, msg=key)
