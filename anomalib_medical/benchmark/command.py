"""The subcommand `benchmark`: checks a plan, runs what is left of it, writes the report."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import filelock

from anomalib_medical.benchmark.build import build_datamodule, model_class
from anomalib_medical.benchmark.files import atomic
from anomalib_medical.benchmark.machine import describe_run, find_devices
from anomalib_medical.benchmark.plan import Plan
from anomalib_medical.benchmark.plan_file import check_variables, differences, load_plan, teacher_digest
from anomalib_medical.benchmark.records import Job, JobStatus, PlannedJob
from anomalib_medical.benchmark.report import write_report
from anomalib_medical.benchmark.run_folder import JobFolder, RunFolder
from anomalib_medical.benchmark.runner import DeviceRunner, PlanJobs, disk_full_explained, estimate_seconds, is_done
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.data.phantom.datamodule import Phantom
from anomalib_medical.data.privacy import SALT_FILE
from anomalib_medical.errors import MedicalError
from anomalib_medical.io import agree, counted

_LOCK = ".lock"
# What must not leave this machine with the results: who holds the salt can try out names, pictures show patients, and
# weights are made of their images.
_IGNORED = f"{SALT_FILE}\n{_LOCK}\nlog.txt\ngallery/\nreport/index.html\n*.ckpt\nbundles/\n"


class BenchmarkError(MedicalError):
    """A benchmark cannot run, or some of its jobs have failed."""


def run_benchmark(config: Path, output: Path | None, *, dry_run: bool = False, force_new_plan: bool = False) -> None:
    """Run a benchmark, or what is left of it.

    Args:
        config: The plan.
        output: Run folder; ``results/benchmark/<name>`` if None. What is done there is not done again.
        dry_run: Only check the plan and print it.
        force_new_plan: Take a run folder with another plan: jobs that are the same in both are kept, the others moved
            to ``replaced/``.

    Raises:
        BenchmarkError: If a job failed, or the folder belongs to another plan or is in use.
        MedicalError: If the plan cannot be run, the disk is full or the user stopped it.
    """
    plan = load_plan(config)
    check_variables(plan, config)
    plan = replace(plan, teacher_sha256=teacher_digest(plan))
    devices = find_devices(plan.devices)
    _check_classes(plan)
    run = RunFolder(output or Path("results") / "benchmark" / plan.name)
    if dry_run:
        print(_dry_run(plan, run, devices, force_new_plan=force_new_plan))
        return
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with disk_full_explained(run.path), filelock.FileLock(run.path / _LOCK, timeout=0):
            _run(plan, run, devices, force_new_plan=force_new_plan)
    except filelock.Timeout as error:
        msg = f"Another benchmark is running in {run.path}. Wait for its end, or choose another folder with --output."
        raise BenchmarkError(msg) from error


def _check_classes(plan: Plan) -> None:
    """Refuse unknown classes, arguments and variables before hours of work, not after."""
    for job in plan.jobs():
        if not job.model.is_trivial:
            model_class(job)
    for name in plan.datasets:
        build_datamodule(plan, name)


def _run(plan: Plan, run: RunFolder, devices: tuple[str, ...], *, force_new_plan: bool) -> None:
    _prepare_folder(plan, run, force=force_new_plan)
    stop = threading.Event()
    runner = DeviceRunner(PlanJobs(plan, run, devices, stop), len(devices), stop, run.path)
    runner.run({"kind": "data"})
    broken = _refuse_broken_data(plan, run)
    left = sum(not is_done(run.job(job.name)) for job in plan.jobs())
    done = len(plan.jobs()) - left
    jobs = counted(len(plan.jobs()), "job")
    print(f"{done} of {jobs} {agree(done, 'is', 'are')} done, {left - _count(plan, broken)} to run.")
    runner.run({"kind": "job", "skip": broken})
    print(write_report(run))
    failed = [job.name for job in plan.jobs() if not is_done(run.job(job.name))]
    if failed:
        shown = "\n".join(_reasons(run, failed))
        msg = (
            f"{len(failed)} of {jobs} failed; whatever is done is saved.\n{shown}\nLogs with tracebacks are in "
            f"{run.path / 'jobs'}. The same command runs again what failed, and nothing else."
        )
        raise BenchmarkError(msg)
    print(f"All done, {jobs}: {run.path}")


def _is_another_plan(plan: Plan, run: RunFolder, *, force: bool) -> bool:
    """Whether the folder holds a run of another plan, which must be forced.

    Raises:
        BenchmarkError: If it does and is not.
    """
    if not (run.path / "plan.yaml").exists():
        return False
    changes = differences(run.plan(), plan.as_dict())
    if changes and not force:
        msg = (
            f"{run.path} holds a run of another plan:\n" + "\n".join(f"  {change}" for change in changes[:10]) + "\n"
            "Choose another folder with --output, or take the new plan with --force_new_plan: jobs that it does "
            "not change are kept, the others are moved to replaced/ and run anew."
        )
        raise BenchmarkError(msg)
    return bool(changes)


def _prepare_folder(plan: Plan, run: RunFolder, *, force: bool) -> None:
    if _is_another_plan(plan, run, force=force):
        _set_aside(plan, run)
    jobs = [
        PlannedJob(
            job.name,
            job.dataset,
            job.model_name,
            job.model.label or job.model_name,
            job.seed,
            "trivial" if job.model.is_trivial else "trained",
        )
        for job in plan.jobs()
    ]
    run.start(plan.as_dict(), describe_run(plan.name), jobs)
    with atomic(run.path / ".gitignore") as file:
        file.write(_IGNORED)


def _changed(plan: Plan, run: RunFolder) -> list[JobFolder]:
    """The jobs that another plan has run otherwise."""
    wanted = {job.name: plan.spec(job) for job in plan.jobs()}
    found = []
    for name, job in run.jobs().items():
        same_teacher = job.info is None or job.info.teacher != "file" or job.info.teacher_sha256 == plan.teacher_sha256
        if job.info is None or wanted.get(name) != job.info.spec or not same_teacher:
            found.append(run.job(name))
    return found


def _set_aside(plan: Plan, run: RunFolder) -> None:
    """Move what the new plan changes out of the way."""
    number = sum(1 for _ in run.path.glob("replaced/*"))
    target = run.path / "replaced" / str(number)
    for job in _changed(plan, run):
        (target / "jobs").mkdir(parents=True, exist_ok=True)
        shutil.move(job.path, target / "jobs" / job.path.name)
    if (run.path / "data").exists():
        # Quick to make anew, and its plan is not kept beside it.
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(run.path / "data", target / "data")


def _refuse_broken_data(plan: Plan, run: RunFolder) -> set[str]:
    """Mark the jobs on datasets that failed their check, and return these datasets."""
    checks = {name: run.data(name).read() for name in plan.datasets}
    broken = {name for name, check in checks.items() if check is None or check.data is None}
    for job in plan.jobs():
        if job.dataset in broken and not is_done(run.job(job.name)):
            check = checks[job.dataset]
            reason = check.status.message if check else "it did not run"
            message = f"the check of {job.dataset} failed: {reason}"
            run.job(job.name).write(Job(JobStatus("failed", 0.0, message)))
    return broken


def _reasons(run: RunFolder, names: list[str]) -> list[str]:
    """Say once what several jobs failed of."""
    groups: dict[str, list[str]] = {}
    for name in names:
        job = run.job(name).read()
        reason = "it did not run" if job is None else f"{job.status.status.replace('_', ' ')}: {job.status.message}"
        groups.setdefault(reason, []).append(name)
    return [f"  {', '.join(own)}: {reason}" for reason, own in groups.items()]


def _count(plan: Plan, datasets: set[str]) -> int:
    return sum(job.dataset in datasets for job in plan.jobs())


def _dry_run(plan: Plan, run: RunFolder, devices: tuple[str, ...], *, force_new_plan: bool) -> str:
    """The plan as text.

    Raises:
        BenchmarkError: If the run would refuse the folder.
    """
    another = _is_another_plan(plan, run, force=force_new_plan)
    anew = {job.path.name for job in _changed(plan, run)} if another else set()
    jobs = plan.jobs()
    left = [job for job in jobs if job.name in anew or not is_done(run.job(job.name))]
    lines = [f"{plan.name}: {counted(len(jobs), 'job')} ({plan.protocol} protocol), run folder {run.path}", ""]
    for job in jobs:
        state = "done" if job not in left else f"at most about {duration(estimate_seconds(plan, job))}"
        lines.append(f"  {job.dataset:<20} {job.model_name:<20} seed {job.seed}  {state}")
    weights = "of the hub" if plan.pre_trained else "random (results are floors)"
    if plan.teacher_sha256:
        weights = f"of a file, sha256 {plan.teacher_sha256[:12]}"
    total = sum(estimate_seconds(plan, job) for job in left) / len(devices)
    lines += [
        "",
        f"Backbone {plan.backbone}, {plan.image_size}x{plan.image_size} pixels, weights: {weights}",
        f"Devices: {', '.join(devices)}; training of each model at most {plan.limits.train_minutes:g} min",
        f"{counted(len(left), 'job')} left: at most about {duration(total)}; models that make one pass end earlier.",
        *_absent_data(plan),
        "Nothing was run (--dry_run).",
    ]
    return "\n".join(lines)


def _absent_data(plan: Plan) -> list[str]:
    """Say which folders of the data are not there: a dry run reads no data."""
    found = []
    for name in plan.datasets:
        data = build_datamodule(plan, name)
        root = getattr(data, "root", None)
        if root is not None and not Path(root).is_dir() and not isinstance(data, Phantom):  # which makes its own
            found.append(f"  {name}: {root}")
    return ["These datasets have no folder yet; the run says of each what it expects there:", *found] if found else []
