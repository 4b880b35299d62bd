"""What a run says of its machine."""

import sys

import pytest
import torch
from anomalib.models import Fre

from anomalib_medical.benchmark.machine import describe_run, find_devices, measure_cost
from anomalib_medical.benchmark.records import Cost
from anomalib_medical.cli.configs import configs_dir
from anomalib_medical.errors import MedicalError


def test_the_command_names_no_folder_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = configs_dir() / "benchmark" / "smoke.yaml"
    given = [
        "/x/bin/anomalib-medical",
        "benchmark",
        "--config",
        str(config),
        f"--output={tmp_path / 'run'}",
        "/y/z.yaml",
    ]
    monkeypatch.setattr(sys, "argv", given)
    command = describe_run("smoke").command
    assert command == "anomalib-medical benchmark --config configs/benchmark/smoke.yaml --output=run z.yaml"


def test_devices_are_all_gpus_or_the_cpu_or_those_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert find_devices("auto") == ("cuda:0", "cuda:1")
    assert find_devices(["cuda:1"]) == ("cuda:1",)
    with pytest.raises(MedicalError, match=r"devices: got 'cuda:2', this machine has cpu, cuda:0, cuda:1"):
        find_devices(["cuda:2"])
    with pytest.raises(MedicalError, match="devices: got none"):
        find_devices([])
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert find_devices("auto") == ("cpu",)


@pytest.mark.slow
def test_the_latency_of_an_exported_model_is_that_of_one_image():
    # anomalib exports this one for two images at a time.
    model = Fre(backbone="resnet18", pre_trained=False, input_dim=16384, latent_dim=8, pooling_kernel_size=2)
    cost = measure_cost(Cost(), model, torch.rand(1, 3, 64, 64), 1)
    assert set(cost.latency) == {"torch", "openvino"}
    assert cost.not_measured == {}
