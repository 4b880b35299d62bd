"""What a job writes of its scores: the threshold that decides, and no scores that are no numbers."""

import errno
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from anomalib.data import InferenceBatch

from anomalib_medical import MedicalFolder
from anomalib_medical.benchmark import worker
from anomalib_medical.benchmark.plan import make_plan
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.benchmark.scoring import Scored
from anomalib_medical.benchmark.training import EpochScores, Result
from anomalib_medical.errors import MedicalError
from anomalib_medical.post_processing import MedicalPostProcessor


@pytest.fixture
def run_job(tiny_folder, tmp_path, monkeypatch):
    """Run a job whose training is replaced by given scores of the test set; returns the job's folder."""
    data = MedicalFolder(root=tiny_folder, num_workers=0)
    data.setup()
    content = {
        "keep_weights": False,
        "models": {"scrd": {"class_path": "Scrd"}},
        "datasets": {"tiny": {"class_path": "MedicalFolder", "init_args": {"root": str(tiny_folder)}}},
    }
    plan = make_plan(content, "plan.yaml")

    def scored(part, scores):
        scores = np.asarray(scores, np.float32)
        maps = np.repeat(scores, 16).reshape(-1, 4, 4)
        return Scored([str(path) for path in part.samples.image_path], scores, maps)

    def run(test_scores, post_processor):
        result = Result(
            data=data,
            held_out=scored(data.val_data, np.linspace(0, 1, len(data.val_data))),
            test=scored(data.test_data, test_scores),
            post_processor=post_processor,
            train_seconds=1.0,
            teacher="random",
            model=SimpleNamespace(),
        )
        monkeypatch.setattr(worker, "train_and_score", lambda *_: result)
        monkeypatch.setattr(worker, "measure_cost", lambda cost, *_: cost)
        folder = RunFolder(tmp_path)
        (job,) = plan.jobs.values()
        worker.guarded(folder.job(job.job), lambda: worker.run_job(plan, job, folder, "cpu"))
        return folder.job(job.job)

    return run


@pytest.mark.parametrize("sensitivity", [0.2, 0.5, 0.8])
def test_the_thresholds_are_those_that_labels_and_masks_are_made_with(run_job, sensitivity):
    post_processor = MedicalPostProcessor(image_sensitivity=sensitivity, pixel_sensitivity=1 - sensitivity)
    scores = torch.linspace(0, 1, 40)
    post_processor.calibrate(scores, scores - 1, scores * 2)
    job = run_job(np.linspace(0, 3, 8), post_processor).read()
    assert job.status.status == "done"
    result = post_processor(
        InferenceBatch(
            pred_score=torch.tensor([-0.01, 0.01]) + job.thresholds.image,
            anomaly_map=torch.tensor([-0.01, 0.01]).view(1, 1, 1, 2).repeat(2, 1, 1, 1) + job.thresholds.pixel,
        )
    )
    assert result.pred_label.tolist() == [False, True]
    assert result.pred_mask[0].flatten().tolist() == [False, True]
    if sensitivity != 0.5:
        assert job.thresholds.image != pytest.approx(float(post_processor.image_threshold))


def test_scores_that_are_no_numbers_fail_the_job_by_name(run_job):
    post_processor = MedicalPostProcessor()
    post_processor.calibrate(torch.linspace(0, 1, 40))
    job = run_job([0, 1, np.nan, 3, np.inf, 5, 6, 7], post_processor)
    status = job.read().status
    assert status.status == "failed"
    assert status.message.startswith("scores are NaN or infinite: 2 of 8 of the test images. The training has run")
    assert len(job.scores()) > 8  # to look at
    assert not (job.path / "gallery").exists()


def test_a_training_that_runs_away_has_no_score_of_its_epochs():
    """In the middle of a training NaN is no reason to crash, and no AUROC."""
    batch = SimpleNamespace(image=torch.zeros(2, 3, 4, 4), gt_label=torch.tensor([0, 1]))
    for scores in (torch.full((2,), torch.nan), torch.tensor([0.0, 1.0])):
        model = SimpleNamespace(
            device="cpu",
            pre_processor=SimpleNamespace(transform=lambda images: images),
            model=lambda _, scores=scores: SimpleNamespace(pred_score=scores),
        )
        auroc = EpochScores(None, lambda: [batch], 1.0)._auroc(model)
        assert np.isnan(auroc) == bool(scores.isnan().any())


def full_disk():
    msg = "The checkpoint was not written"
    raise MedicalError(msg) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_memory():
    msg = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"
    raise RuntimeError(msg)


@pytest.mark.parametrize(
    ("work", "state", "message"),
    [
        (full_disk, "disk_full", "The checkpoint was not written"),
        (no_memory, "out_of_memory", "RuntimeError: [enforce fail"),
        (lambda: {}["x"], "failed", "KeyError: 'x'"),
        (dict, "done", ""),
    ],
)
def test_a_job_says_how_it_ended(work, state, message, tmp_path, capsys):
    folder = RunFolder(tmp_path).job("x")
    assert worker.guarded(folder, work) == int(state != "done")
    status = folder.read().status
    assert status.status == state
    assert status.message.startswith(message)
    assert ("Traceback" in capsys.readouterr().err) == (state != "done")
