"""A cut of the smoke benchmark from the command line: killed in the middle, continued, with a job that cannot work."""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import yaml

from anomalib_medical.benchmark.build import build_datamodule
from anomalib_medical.benchmark.plan import make_plan
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.cli import main as cli
from anomalib_medical.cli.configs import configs_dir
from anomalib_medical.data.images import read_image
from anomalib_medical.edge.manifest import Manifest
from anomalib_medical.edge.predictor import MODEL, GraphScorer
from anomalib_medical.edge.scores import raw_threshold
from tests.helpers.commands import start

# One of every kind: trivial, memory bank, an anomalib model that trains, and our three.
KINDS = {
    "thumbnail": {},
    "patchcore": {},
    "stfpm": {"max_epochs": 2},
    "scrd": {"max_epochs": 3},
    "ddad": {"max_epochs": 2},
    "d24fad": {"max_steps": 2},
}
COMMAND = ("benchmark", "--config", "plan.yaml", "--output", "run")


def small_plan() -> dict:
    """The smoke plan, cut to one model of every kind on one small dataset, and a job that cannot work."""
    plan = yaml.safe_load((configs_dir() / "benchmark" / "smoke.yaml").read_text())
    plan |= {"latency_repeats": 1, "gallery": 1, "threads": 1, "limits": {"train_minutes": 0.5, "job_minutes": 10}}
    plan["models"] = {name: plan["models"][name] | {"trainer": trainer} for name, trainer in KINDS.items()}
    plan["models"]["broken"] = {"class_path": "Scrd", "init_args": {"learning_rate": "fast"}}
    counts = {"train_count": 24, "test_normal_count": 6, "test_abnormal_count": 6}
    for data in plan["datasets"].values():
        data["init_args"] |= {"root": "phantom", **counts}
    # Only a task that D2-4FAD learns on.
    plan["datasets"]["phantom_hard"]["models"] = {name: {"skip": True} for name in plan["models"]}
    return plan


def workers(parent: int) -> list[psutil.Process]:
    return psutil.Process(parent).children(recursive=True)


def kill_in_the_middle(folder: Path) -> None:
    """Start the benchmark and kill -9 it while it trains."""
    program = str(Path(sys.executable).with_name("anomalib-medical"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "first.log").open("wb") as log:
        process = subprocess.Popen([program, *COMMAND], cwd=folder, env=environment, stdout=log, stderr=log)
    deadline = time.monotonic() + 500
    log_of_job = folder / "run/jobs/phantom_easy__scrd__seed0/log.txt"
    while not (log_of_job.exists() and log_of_job.stat().st_size):
        assert process.poll() is None, (folder / "first.log").read_text()
        assert time.monotonic() < deadline, (folder / "first.log").read_text()
        time.sleep(0.1)
    left = workers(process.pid)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    # Nobody else would end them.
    _, alive = psutil.wait_procs(left, timeout=30)
    assert not alive


def check_bundle(run: RunFolder, printed: str, monkeypatch) -> None:
    """A command of the report is run as it stands there, and its bundle scores as the benchmark did."""
    report = (run.path / "report" / "report.md").read_text(encoding="utf-8")
    commands = [line.strip() for line in report.splitlines() if line.startswith("    anomalib-medical bundle ")]
    assert len(commands) == len(KINDS) - 1  # of all that were trained
    (best,) = [line.strip() for line in printed.splitlines() if line.startswith("  anomalib-medical bundle ")]
    assert best.replace("run/", "") == commands[0]
    monkeypatch.chdir(run.path)
    (command,) = [line for line in commands if "--model Patchcore" in line]
    cli.main(shlex.split(command)[1:])
    folder = run.job("phantom_easy__patchcore__seed0")
    job = folder.read()
    bundle = run.path / "bundles" / folder.path.name
    kept = Manifest.read(bundle).post_processing
    assert raw_threshold(kept.image, kept.normalization) == pytest.approx(job.thresholds.image, rel=1e-6)
    scorer = GraphScorer(bundle / MODEL)
    monkeypatch.chdir(run.path.parent)
    data = build_datamodule(make_plan(run.plan(), "plan.yaml"), job.info.dataset)
    data.setup()
    scored = [scorer.score(read_image(path).numpy())[0] for path in data.test_data.samples.image_path]
    scores = folder.scores()
    # Names are hashed in the run folder.
    assert sorted(scored) == pytest.approx(sorted(scores[scores.split == "test"].raw_score), rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1500)  # twelve processes, each with seconds of imports: three minutes where nothing else runs
def test_every_kind_of_model_is_scored_and_a_killed_run_goes_on(tmp_path, monkeypatch):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(small_plan(), sort_keys=False))
    kill_in_the_middle(tmp_path)
    run = RunFolder(tmp_path / "run")
    finished = run.job("phantom_easy__patchcore__seed0").path / "job.json"
    before = finished.stat().st_mtime_ns
    assert run.job("phantom_easy__scrd__seed0").read() is None

    result = start("anomalib-medical", *COMMAND, cwd=tmp_path, timeout=900)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "3 of 7 jobs are done, 4 to run." in result.stdout
    assert "error: 1 of 7 jobs failed; whatever is done is saved." in result.stderr
    assert "phantom_easy__broken__seed0: failed" in result.stderr
    assert finished.stat().st_mtime_ns == before
    statuses = {name: run.job(f"phantom_easy__{name}__seed0").read().status.status for name in (*KINDS, "broken")}
    assert statuses == dict.fromkeys(KINDS, "done") | {"broken": "failed"}

    assert "Traceback" in (run.job("phantom_easy__broken__seed0").path / "log.txt").read_text()
    folder, data = run.job("phantom_easy__scrd__seed0"), run.data("phantom_easy").read().data
    job, scores = folder.read(), folder.scores()
    assert list(scores.split.value_counts()[["test", "val"]]) == [12, data.n_held_out]
    assert set(scores[scores.split == "val"].label) == {0}
    # Nine held-out normals are too few for 95%: the threshold is the largest of them.
    assert job.thresholds.image == pytest.approx(scores[scores.split == "val"].raw_score.max())
    assert folder.pixels().counts.regions.sum() > 0
    assert set(job.cost.latency) == {"torch", "openvino"}
    assert job.cost.steps == job.cost.epochs * len(range(0, data.n_train, 16))
    assert scores[scores.split == "test"].batch_blur.notna().all()
    epochs = pd.DataFrame(job.epochs)
    assert list(epochs.epoch) == sorted(set(epochs.epoch))
    assert job.info.teacher == "random"
    # The same images under the same hashes, so that models can be compared image by image.
    thumbnail = run.job("phantom_easy__thumbnail__seed0").scores()
    assert set(thumbnail.path_hash) == set(scores.path_hash)
    # Test scores of epochs, for all but what has a single pass.
    assert {name for name in KINDS if run.job(f"phantom_easy__{name}__seed0").read().epochs} == {
        *("stfpm", "scrd", "ddad", "d24fad")
    }
    metrics = pd.read_csv(run.path / "report" / "metrics.csv").set_index(["model", "metric"])
    assert set(metrics.loc[[(name, "image_auroc") for name in KINDS]].n_images) == {12}
    assert metrics.loc[("scrd", "fault.checkpoint")].value == pytest.approx(
        epochs.image_auroc.max() - epochs.image_auroc.iloc[-1]
    )
    assert (run.path / "report" / "index.html").exists()
    check_bundle(run, result.stdout, monkeypatch)
    assert ".png" not in (folder.path / "scores.csv").read_text()
    assert run.read()[0].command.startswith("anomalib-medical benchmark")
