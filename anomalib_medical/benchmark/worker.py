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

import pandas as pd
import torch

from anomalib_medical.allocator import keep_freed_memory
from anomalib_medical.benchmark.datasets import describe_dataset
from anomalib_medical.benchmark.gallery import write_gallery
from anomalib_medical.benchmark.machine import describe_machine, measure_cost, peak_memory_mib
from anomalib_medical.benchmark.plan import Plan, make_plan
from anomalib_medical.benchmark.records import (
    Cost,
    GalleryEntry,
    Job,
    JobInfo,
    JobStatus,
    PlannedJob,
    State,
    Thresholds,
)
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.benchmark.scoring import check_numbers, fault_scores, pixel_result, score_table
from anomalib_medical.benchmark.training import Result, image_of, score_trivially, train_and_score
from anomalib_medical.benchmark.weights import keep_weights
from anomalib_medical.data.privacy import PatientHasher
from anomalib_medical.errors import FULL, is_user_error, user_message
from anomalib_medical.io import finite_or_none
from anomalib_medical.post_processing import raw_threshold

_HELD_OUT = "held-out normal images of the training side, by patient where patients are known"
_TRIVIAL = "a trivial baseline"


def main(arguments: list[str]) -> int:
    """Run a job, or a dataset's check: run folder, ``job`` or ``data``, name, device."""
    path, kind, name, device = arguments
    _die_with_parent()
    keep_freed_memory()
    run = RunFolder(path)
    plan = make_plan(run.plan(), str(run.path / "plan.yaml"))
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    if kind == "data":
        run.data(name).begin_step("reading the images")
        return guarded(run.data(name), lambda: {"data": describe_dataset(plan, name)})
    return guarded(run.job(name), lambda: run_job(plan, plan.jobs[name], run, device))


def run_job(plan: Plan, job: PlannedJob, run: RunFolder, device: str) -> dict[str, Any]:
    """Run a job and write all its files but `job.json`; returns what is to stand in that."""
    folder = run.job(job.job)
    folder.begin_step("reading the data")
    trivial = job.kind == "trivial"
    result = score_trivially(plan, job) if trivial else train_and_score(plan, job, device, folder.begin_step)
    thresholds = _thresholds(plan, result)
    gallery = _write_scores(folder, result, thresholds, PatientHasher(run.path), plan.gallery)
    cost = Cost(
        train_seconds=result.train_seconds,
        steps=result.steps,
        epochs=result.epochs,
        peak_memory_mib=peak_memory_mib(),
        not_measured=dict.fromkeys(("latency.torch", "latency.openvino", "parameters"), _TRIVIAL),
    )
    weights = None
    if result.model is not None:
        if device != "cpu":
            cost = replace(cost, peak_gpu_mib=torch.cuda.max_memory_allocated() / 2**20)
        weights = keep_weights(plan, folder, result.trainer, result.model, result.data)
        folder.begin_step("measuring the latency")
        cost = measure_cost(cost, result.model, image_of(result.data.test_data, 0)[None], plan.latency_repeats)
    return {
        "info": JobInfo(
            **vars(job),
            device=device,
            spec=plan.spec(job),
            teacher=result.teacher,
            teacher_sha256=plan.teacher_digest(job) if result.teacher == "file" else "",
            machine=describe_machine() if "SLURM_JOB_ID" in os.environ else {},
        ),
        "thresholds": thresholds,
        "cost": cost,
        "weights": weights,
        "gallery": gallery,
        "epochs": result.epoch_scores,
    }


def _thresholds(plan: Plan, result: Result) -> Thresholds:
    post_processor = result.post_processor
    normalised = result.model is not None and post_processor.enable_normalization
    return Thresholds(
        image=finite_or_none(raw_threshold(post_processor, "image")),
        pixel=finite_or_none(raw_threshold(post_processor, "pixel")),
        target_specificity=plan.target_specificity,
        n_held_out=len(result.held_out.paths),
        source=_HELD_OUT,
        low=finite_or_none(post_processor.image_min) if normalised else None,
        high=finite_or_none(post_processor.image_max) if normalised else None,
    )


def _write_scores(
    folder: JobFolder, result: Result, thresholds: Thresholds, hasher: PatientHasher, gallery: int
) -> list[GalleryEntry]:
    data, test = result.data, result.test
    root = getattr(data, "root", None)
    tables = [
        score_table(part, scored, split, hasher, None if root is None else str(root))
        for part, scored, split in ((data.val_data, result.held_out, "val"), (data.test_data, test, "test"))
    ]
    tables[1] = tables[1].assign(**fault_scores(test, list(tables[1].class_name)))
    # Before they are looked at: also of scores that are no numbers one may want to see which.
    folder.write_scores(pd.concat(tables, ignore_index=True))
    check_numbers(result.held_out, "held-out")
    check_numbers(test, "test")
    labels = tables[1].label.to_numpy().astype(bool)
    pixels = pixel_result(test, labels, thresholds.pixel)
    if pixels is not None:
        folder.write_pixels(pixels)
    return write_gallery(folder, data.test_data, test, list(tables[1].path_hash), labels, gallery, thresholds.pixel)


def guarded(folder: JobFolder, work: Callable[[], dict[str, Any]]) -> int:
    """Do a job's work and write how it ended; a failure's traceback goes into the log. Returns the exit code."""
    started = time.monotonic()
    found: dict[str, Any] = {}
    try:
        found = work()
        status = JobStatus("done", time.monotonic() - started)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
        traceback.print_exc()
        status = JobStatus(_state(error), time.monotonic() - started, _message(error))
    folder.write(Job(status, **found))
    return int(status.status != "done")


def _state(error: BaseException | None) -> State:
    """What kind of failure an error is of, or any that it was raised from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return "disk_full"
        # torch's CPU allocator raises a plain RuntimeError.
        if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "not enough memory" in str(error):
            return "out_of_memory"
        error = error.__cause__ or error.__context__
    return "failed"


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
