"""`benchmarks/gpu.py`, which waits for a GPU, runs from its beginning to its end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.nightly
def test_a_dry_run_measures_every_part(tmp_path):
    command = [sys.executable, "benchmarks/gpu.py", "--dry_run", "--out", str(tmp_path / "gpu")]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["tests"]["code"] == 0
    rows = found["steps"] + found["scoring"]
    assert not [row["failed"] for row in rows if "failed" in row]
    assert {(row["case"].split(",")[0], row["setting"].split(",")[0]) for row in found["steps"]} == {
        (model, schedule) for model in ("Scrd", "D24fad", "Ddad") for schedule in ("released", "ours")
    }
    assert all(row["ms"] > 0 for row in rows)
    assert found["ddad_forms"].keys() == {"loop", "vmap"}
    assert "random" in found["images"]["tables"][0]
    assert "left_out" not in found
    assert "A dry run" in (tmp_path / "gpu.md").read_text()
