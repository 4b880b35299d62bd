"""A bundle in a fresh environment with its own requirements and nothing else: small, without torch, and it works."""

import os
import shutil
import subprocess
import sys

import pytest
from PIL import Image

LIMIT_MB = 600


@pytest.mark.slow
def test_a_bundle_runs_with_its_own_requirements_alone(tmp_path, bundles):
    shutil.copytree(bundles.bundle("D24fad"), tmp_path / "bundle")
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True, timeout=120)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}

    def run(*arguments):
        return subprocess.run(
            [python, *arguments],
            cwd=tmp_path / "bundle",
            env=environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )

    installed = run("-m", "pip", "install", "--quiet", "--no-cache-dir", "-r", "requirements.txt")
    if installed.returncode:
        pytest.skip(f"the package registry cannot be reached: {installed.stderr.strip().splitlines()[-1]}")
    megabytes = sum(file.lstat().st_size for file in (tmp_path / "venv").rglob("*") if file.is_file()) / 1e6
    assert megabytes < LIMIT_MB
    for absent in ("torch", "anomalib", "anomalib_medical"):
        assert f"No module named '{absent}'" in run("-c", f"import {absent}").stderr
    tested = run("-m", "edge", "self-test")
    assert tested.returncode == 0, tested.stderr
    Image.effect_noise((90, 70), 40).save(tmp_path / "image.png")
    scored = run("-m", "edge", "run", tmp_path / "image.png", "--output", tmp_path / "out")
    assert scored.returncode == 0, scored.stderr
    assert len((tmp_path / "out" / "predictions.csv").read_text().splitlines()) == 2
    # What was changed is found before it is used.
    with (tmp_path / "bundle" / "model" / "model.bin").open("r+b") as file:
        file.write(b"x")
    changed = run("-m", "edge", "self-test")
    assert changed.returncode != 0
    assert "model/model.bin: changed" in changed.stderr
