"""The process of one job: `python -m anomalib_medical.benchmark.worker RUN job NAME DEVICE`.

A process of its own gives each job its own peak memory, and a crash takes nothing but the job along. The runner starts
it; it writes into the run folder, `job.json` last.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from anomalib_medical.benchmark.cost import measure_cost, peak_memory_mib
from anomalib_medical.benchmark.gallery import write_gallery
from anomalib_medical.benchmark.plan import JobSpec, Plan
from anomalib_medical.benchmark.plan_file import load_run_plan
from anomalib_medical.benchmark.records import Cost, GalleryEntry, Job, JobInfo, JobStatus, State, Thresholds
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.benchmark.scoring import (
    Scored,
    check_numbers,
    fault_scores,
    join_scores,
    pixel_result,
    score_table,
)
from anomalib_medical.benchmark.trivial import TRIVIAL
from anomalib_medical.benchmark.weights import keep_weights
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.dataset import MedicalDataset
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.errors import is_user_error, user_message
from anomalib_medical.post_processing import MedicalPostProcessor, raw_threshold

_HELD_OUT = "held-out normal images of the training side, by patient where patients are known"


def main(arguments: list[str]) -> int:
    """Run a job, or a dataset's check.

    Args:
        arguments: Run folder, ``job`` or ``data``, name, device.
    """
    run, kind, name, device = arguments
    _die_with_parent()
    folder = RunFolder(run)
    plan = load_run_plan(folder.path)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if kind == "data":
        from anomalib_medical.benchmark.datasets import describe_dataset

        return _guarded(folder.data(name), lambda: {"data": describe_dataset(plan, name)})
    job = plan.job(name)
    return _guarded(folder.job(name), lambda: run_job(plan, job, folder, device))


def run_job(plan: Plan, job: JobSpec, run: RunFolder, device: str) -> dict[str, Any]:
    """Run a job, write all of its files but `job.json`, and return what that is to hold."""
    folder = run.job(job.name)
    hasher = PatientHasher(run.path)
    trivial = job.model.is_trivial
    info = JobInfo(
        job=job.name,
        dataset=job.dataset,
        model=job.model_name,
        label=job.model.label or job.model_name,
        seed=job.seed,
        kind="trivial" if trivial else "trained",
        device=device,
        spec=plan.spec(job),
    )
    if trivial:
        return {"info": info, **_run_trivial(plan, job, folder, hasher)}
    from anomalib_medical.benchmark.training import train_and_score

    trained = train_and_score(plan, job, device)
    teacher: Any = trained.teacher
    info = replace(info, teacher=teacher, teacher_sha256=plan.teacher_sha256 if teacher == "file" else "")
    post_processor: Any = trained.model.post_processor
    thresholds = Thresholds(
        image=raw_threshold(post_processor),
        pixel=raw_threshold(post_processor, "pixel"),
        target_specificity=plan.target_specificity,
        n_held_out=len(trained.held_out.paths),
        source=_HELD_OUT,
        low=float(post_processor.image_min),
        high=float(post_processor.image_max),
    )
    gallery = _write_scores(folder, trained.data, trained.held_out, trained.test, thresholds, hasher, plan.gallery)
    peak, gpu = peak_memory_mib(), torch.cuda.max_memory_allocated() / 2**20 if device != "cpu" else None
    weights = keep_weights(plan, folder, trained.trainer, trained.model, trained.data)
    cost = measure_cost(
        trained.model, _image(trained.data.test_data, 0)[None], plan.latency_repeats, torch.get_num_threads()
    )
    return {
        "info": info,
        "thresholds": thresholds,
        "gallery": gallery,
        "epochs": trained.epoch_scores,
        "weights": weights,
        "cost": replace(
            cost,
            train_seconds=trained.train_seconds,
            steps=trained.steps,
            epochs=trained.epochs,
            peak_memory_mib=peak,
            peak_gpu_mib=gpu,
        ),
    }


def _run_trivial(plan: Plan, job: JobSpec, folder: JobFolder, hasher: PatientHasher) -> dict[str, Any]:
    from anomalib_medical.benchmark.build import build_datamodule

    data = build_datamodule(plan, job.dataset)
    data.prepare_data()
    data.setup()
    scorer = TRIVIAL[job.model.class_path](job.seed)
    started = time.monotonic()
    scorer.fit(_image(data.train_data, index) for index in range(len(data.train_data)))
    seconds = time.monotonic() - started
    scored = []
    for part in (data.val_data, data.test_data):
        scores = np.array([scorer.score(_image(part, index)) for index in range(len(part))], np.float32)
        scored.append(Scored([str(path) for path in part.samples.image_path], scores))
    post_processor = MedicalPostProcessor(target_specificity=plan.target_specificity)
    post_processor.calibrate(torch.from_numpy(scored[0].scores))
    image = float(post_processor.image_threshold)
    thresholds = Thresholds(image, None, plan.target_specificity, len(scored[0].paths), _HELD_OUT)
    _write_scores(folder, data, scored[0], scored[1], thresholds, hasher, 0)
    reason = "a trivial baseline"
    cost = Cost(
        train_seconds=seconds,
        peak_memory_mib=peak_memory_mib(),
        not_measured={"latency.torch": reason, "latency.openvino": reason, "parameters": reason},
    )
    return {"thresholds": thresholds, "cost": cost}


def _image(data: MedicalDataset, index: int) -> torch.Tensor:
    image: Any = data[index].image
    return torch.as_tensor(image).float()


def _write_scores(
    folder: JobFolder,
    data: MedicalDataModule,
    held_out: Scored,
    test: Scored,
    thresholds: Thresholds,
    hasher: PatientHasher,
    gallery: int,
) -> list[GalleryEntry]:
    root = getattr(data, "root", None)
    tables = [
        score_table(part, scored, split, hasher, None if root is None else str(root))
        for part, scored, split in ((data.val_data, held_out, "val"), (data.test_data, test, "test"))
    ]
    tables[1] = tables[1].assign(**fault_scores(test, list(tables[1].class_name)))
    folder.write_scores(join_scores(*tables))
    check_numbers(held_out, "held-out")
    check_numbers(test, "test")
    labels = tables[1].label.to_numpy().astype(bool)
    pixels = pixel_result(test, labels, float("nan") if thresholds.pixel is None else thresholds.pixel)
    if pixels is not None:
        folder.write_pixels(pixels)
    return write_gallery(folder, data.test_data, test, list(tables[1].path_hash), labels, gallery)


def _guarded(folder: JobFolder, run: Callable[[], dict[str, Any]]) -> int:
    """Run, and write what it returned and how it ended; the traceback of a failure goes into the log."""
    started = time.monotonic()
    found: dict[str, Any] = {}
    try:
        found = run()
        status = JobStatus("done", time.monotonic() - started)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
        traceback.print_exc()
        status = JobStatus(_state(error), time.monotonic() - started, _message(error))
    folder.write(Job(status, **found))
    return int(status.status != "done")


def _state(error: Exception) -> State:
    out_of_memory = isinstance(error, MemoryError | torch.cuda.OutOfMemoryError)
    # torch's CPU allocator raises a plain RuntimeError.
    return "out_of_memory" if out_of_memory or "not enough memory" in str(error) else "failed"


def _message(error: Exception) -> str:
    text = user_message(error) if is_user_error(error) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def _die_with_parent() -> None:
    """End this process when the runner is gone, kill -9 included: nobody else would end it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
