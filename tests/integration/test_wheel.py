"""What people install: the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from anomalib_medical.cli.configs import configs_dir, list_configs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_wheel_carries_every_module_and_configuration_file(tmp_path):
    # --no-cache-dir: another build of the same version must not be taken for this one.
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir", "--wheel-dir", tmp_path, ROOT]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    (wheel,) = tmp_path.glob("anomalib_medical-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "anomalib_medical").rglob("*.py")}
    configs = {f"anomalib_medical/configs/{path.as_posix()}" for path in list_configs()}
    assert configs_dir() == ROOT / "configs"
    assert {
        "anomalib_medical/configs/quickstart.yaml",
        "anomalib_medical/deploy/templates/edge.py",
    } <= modules | configs
    # What a bundle is made with, besides.
    names_of_others = (
        *("py.typed", "edge/README.md", "edge/serve/orthanc.lua"),
        *("deploy/requirements.txt", "deploy/requirements-serve.txt"),
        *(
            f"deploy/templates/service/{name}"
            for name in ("Dockerfile", "anomalib-medical-edge.service", "compose.yaml")
        ),
    )
    others = {f"anomalib_medical/{name}" for name in names_of_others}
    assert modules | configs | others | {"anomalib_medical/deploy/templates/MODEL_CARD.md.jinja"} <= names
