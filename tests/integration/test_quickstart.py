"""`anomalib-medical quickstart`, as a newcomer runs it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def quickstart(cwd: Path, timeout: float) -> str:
    command = [str(Path(sys.executable).with_name("anomalib-medical")), "quickstart", "--output", "out"]
    # With all cores, as its user has it: the tests' own processes have one each.
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    environment["HF_HUB_OFFLINE"] = "1"
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    return result.stdout


def summary(printed: str) -> dict[str, str]:
    lines = printed[printed.index("\nImage AUROC") : printed.index("\nNext:")].strip().splitlines()
    return dict(re.split(r"\s{2,}", line, maxsplit=1) for line in lines)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_quickstart_trains_exports_and_is_quick_the_second_time(tmp_path):
    first = quickstart(tmp_path, timeout=850)
    shown = summary(first)
    # Other processors round otherwise.
    assert 0.85 < float(re.match(r"[\d.]+", shown["Image AUROC"])[0]) <= 1
    assert "(100 images: 50 normal, 50 abnormal, of 25 patients)" in shown["Image AUROC"]
    assert 0.7 < float(shown["Pixel AUROC"]) <= 1
    assert "same scores on 8 images" in shown["OpenVINO"]
    assert len(list((tmp_path / shown["Heatmaps"]).rglob("*.png"))) == 100
    assert len((tmp_path / shown["Scores"]).read_text(encoding="utf-8").splitlines()) == 101
    assert (tmp_path / shown["A picture"]).stat().st_size > 0
    model = tmp_path / shown["OpenVINO model"]
    assert model.stat().st_size > 0
    assert model.with_suffix(".bin").stat().st_size > 0

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.suffix != ".json"}
    second = quickstart(tmp_path, timeout=100)
    assert "Found a finished run in out" in second
    assert summary(second) == shown
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert set((tmp_path / "out").rglob("*")) >= set(before)

    # The manual's picture is made of such a run.
    script = Path(__file__).resolve().parents[2] / "docs/figures.py"
    draw = [sys.executable, str(script), "--run", "out", "--output", "pictures"]
    subprocess.run(draw, cwd=tmp_path, capture_output=True, timeout=100, check=True)
    assert (tmp_path / "pictures/heatmaps.png").stat().st_size < 150_000
