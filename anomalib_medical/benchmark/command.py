"""Runs a plan: checks it, runs what is left of it, writes the report."""

from __future__ import annotations

import contextlib
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import filelock

from anomalib_medical.benchmark.build import build_datamodule, model_class
from anomalib_medical.benchmark.files import atomic
from anomalib_medical.benchmark.machine import describe_run, find_devices
from anomalib_medical.benchmark.plan import Plan, differences, expand, load_plan
from anomalib_medical.benchmark.records import Job, JobInfo, JobStatus, PlannedJob, RunInfo
from anomalib_medical.benchmark.report import write_report
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.benchmark.runner import Task, run_jobs
from anomalib_medical.benchmark.slurm_queue import in_queue
from anomalib_medical.benchmark.wording import duration
from anomalib_medical.data.datamodule import MedicalDataModule
from anomalib_medical.data.phantom.datamodule import Phantom
from anomalib_medical.data.privacy import SALT_FILE
from anomalib_medical.errors import FULL, MedicalError, needs_extra, shell_argument
from anomalib_medical.io import agree, counted

_LOCK = ".lock"
# What must not leave this machine with the results: who holds the salt can try out names, pictures show patients, and
# weights are made of their images.
_IGNORED = f"{SALT_FILE}\n{_LOCK}\nlog.txt\ncluster/\ngallery/\nreport/index.html\n*.ckpt\nbundles/\n"
# What a job takes beside its training, roughly: imports, scoring, export. For estimates only.
_OVERHEAD_SECONDS = 60.0
_TRIVIAL_SECONDS = 20.0
_RunTasks = Callable[[Plan, RunFolder, Sequence[Task], Sequence[str]], None]


def run_plan(
    config: Path,
    output: Path | None,
    *,
    dry_run: bool = False,
    force_new_plan: bool = False,
    executor: Literal["local", "slurm"] = "local",
    cluster: Mapping[str, object] | None = None,
) -> None:
    """Run a benchmark, or what is left of it.

    Args:
        config: The plan.
        output: Run folder; ``results/benchmark/<name>`` if None. What is done there is not done again.
        dry_run: Only check the plan and print it.
        force_new_plan: Take a run folder with another plan: jobs that are the same in both are kept, the others moved
            to ``replaced/``.
        executor: Whether the jobs run on this machine's devices or are given to SLURM.
        cluster: Entries of the plan's section ``cluster``, instead of what stands there.

    Raises:
        MedicalError: If the plan cannot be run, a job failed, the folder belongs to another plan or is in use, the
            disk is full, SLURM cannot be used or the user stopped it.
    """
    plan = load_plan(config, cluster)
    expand(asdict(plan))  # variables that are not set, all at once
    plan = plan.with_teacher_digest()
    run_tasks, devices = _executor(plan, executor)
    # Unknown classes and arguments are refused before hours of work, not after.
    for job in plan.jobs.values():
        if job.kind == "trained":
            model_class(plan, job)
    data = {name: build_datamodule(plan, name) for name in plan.datasets}
    run = RunFolder(output or Path("results") / "benchmark" / plan.name)
    another = _is_another_plan(plan, run, force=force_new_plan)
    if executor == "local" or another:
        _refuse_queued(run)
    ended = run.jobs()
    changed = _changed(plan, ended) if another else set()
    if dry_run:
        done = {name for name, job in ended.items() if job.status.status == "done"} - changed
        print(_shown(plan, run, devices, done))
        absent = [f"  {name}: {root}" for name, each in data.items() if (root := _absent_folder(each))]
        if absent:
            print("These datasets have no folder yet; the run says of each what it expects there:", *absent, sep="\n")
        print("Nothing was run (--dry_run).")
        return
    run.path.mkdir(parents=True, exist_ok=True)
    try:
        with _how_to_go_on(run.path), filelock.FileLock(run.path / _LOCK, timeout=0):
            if another:
                _set_aside(run, changed)
            run.start(asdict(plan), _described(plan, executor), list(plan.jobs.values()))
            with atomic(run.path / ".gitignore") as file:
                file.write(_IGNORED)
            _run(plan, run, devices, run_tasks)
    except filelock.Timeout as error:
        msg = f"Another benchmark is running in {run.path}. Wait for its end, or choose another folder with --output."
        raise MedicalError(msg) from error


def _executor(plan: Plan, name: str) -> tuple[_RunTasks, tuple[str, ...]]:
    """What runs the tasks, and where: a name for each that runs at the same time."""
    if name == "local":
        return run_jobs, find_devices(plan.devices)
    with needs_extra("cluster"):
        from anomalib_medical.benchmark.cluster import check_cluster, submit_jobs
    check_cluster()
    return submit_jobs, ("slurm",) * min(plan.cluster.at_once or len(plan.jobs), len(plan.jobs))


def _described(plan: Plan, executor: str) -> RunInfo:
    """This run; on a cluster each job says which machine it had."""
    info = describe_run(plan.name)
    return info if executor == "local" else replace(info, machine={"scheduler": "nodes of a SLURM cluster"})


def _refuse_queued(run: RunFolder) -> None:
    """Refuse to run beside, or to replace, jobs that SLURM still has.

    Raises:
        MedicalError: If there are any.
    """
    if ids := in_queue(run):
        shown = " ".join(ids[:20]) + (" ..." if len(ids) > 20 else "")
        msg = (
            f"{counted(len(ids), 'job')} of {run.path} {agree(len(ids), 'is', 'are')} still with SLURM. Wait for "
            f"{agree(len(ids), 'it', 'them')} with --executor slurm and the same plan, or end "
            f"{agree(len(ids), 'it', 'them')} first: scancel {shown}"
        )
        raise MedicalError(msg)


def _run(plan: Plan, run: RunFolder, devices: tuple[str, ...], run_tasks: _RunTasks) -> None:
    unchecked = [name for name in plan.datasets if run.dataset(name) is None]
    run_tasks(plan, run, [Task("data", name, f"{name}: data", _OVERHEAD_SECONDS) for name in unchecked], devices)
    failed_checks = {name: check for name in unchecked if (check := run.data(name).read()) and check.data is None}
    done = {name for name, job in run.jobs().items() if job.status.status == "done"}
    left = [job for name, job in plan.jobs.items() if name not in done]
    tasks = []
    for job in left:
        if check := failed_checks.get(job.dataset):
            message = f"the check of {job.dataset} failed: {check.status.message}"
            run.job(job.job).write(Job(JobStatus("failed", 0.0, message)))
        else:
            label = f"{job.dataset}: {job.model}, seed {job.seed}"
            tasks.append(Task("job", job.job, label, _seconds(plan, job), job.model))
    total, n_done = counted(len(plan.jobs), "job"), len(plan.jobs) - len(left)
    print(f"{n_done} of {total} {agree(n_done, 'is', 'are')} done, {len(tasks)} to run.")
    run_tasks(plan, run, tasks, devices)
    print(write_report(run))
    ended = run.jobs()
    failed = defaultdict(list)  # what went wrong -> the jobs that it happened to
    for name in plan.jobs:
        status = ended[name].status
        if status.status != "done":
            failed[f"{status.status.replace('_', ' ')}: {status.message}"].append(name)
    if failed:
        reasons = "\n".join(f"  {', '.join(names)}: {reason}" for reason, names in failed.items())
        msg = (
            f"{sum(map(len, failed.values()))} of {total} failed; whatever is done is saved.\n{reasons}\nLogs with "
            f"tracebacks are in {run.path / 'jobs'}. The same command runs again what failed, and nothing else."
        )
        raise MedicalError(msg)
    print(f"All done, {total}: {run.path}")


@contextlib.contextmanager
def _how_to_go_on(run: Path) -> Iterator[None]:
    """Turn Ctrl-C and a full disk into an error that says how to go on."""
    try:
        yield
    except (KeyboardInterrupt, OSError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        what = "The disk is full. Free some space" if isinstance(error, OSError) else "Stopped"
        again = shell_argument("output", run)
        msg = f"{what}. All finished jobs are in {run}; the same command with {again} goes on where this stopped."
        raise MedicalError(msg) from error


def _is_another_plan(plan: Plan, run: RunFolder, *, force: bool) -> bool:
    """Whether the folder holds a run of another plan, which must be forced.

    Raises:
        MedicalError: If it does and is not.
    """
    if not (run.path / "plan.yaml").exists():
        return False
    changes = differences(run.plan(), asdict(plan))
    if changes and not force:
        msg = (
            f"{run.path} holds a run of another plan:\n" + "\n".join(f"  {change}" for change in changes[:10]) + "\n"
            "Choose another folder with --output, or take the new plan with --force_new_plan: jobs that it does "
            "not change are kept, the others are moved to replaced/ and run anew."
        )
        raise MedicalError(msg)
    return bool(changes)


def _changed(plan: Plan, ended: dict[str, Job]) -> set[str]:
    """The jobs that another plan has run otherwise."""

    def same(name: str, info: JobInfo | None) -> bool:
        if info is None or name not in plan.jobs or info.spec != plan.spec(plan.jobs[name]):
            return False
        return info.teacher_sha256 in {"", plan.teacher_digest(plan.jobs[name])}  # "": it did not use the file

    return {name for name, job in ended.items() if not same(name, job.info)}


def _set_aside(run: RunFolder, changed: set[str]) -> None:
    """Move what the new plan changes out of the way."""
    target = run.path / "replaced" / str(sum(1 for _ in run.path.glob("replaced/*")))
    (target / "jobs").mkdir(parents=True)
    for name in changed:
        shutil.move(run.job(name).path, target / "jobs" / name)
    if (run.path / "data").exists():
        # Quick to make anew, and its plan is not kept beside it.
        shutil.move(run.path / "data", target / "data")


def _seconds(plan: Plan, job: PlannedJob) -> float:
    """How long a job takes at most, roughly: the cap of its training and what comes with it."""
    return _TRIVIAL_SECONDS if job.kind == "trivial" else 60 * plan.limits.train_minutes + _OVERHEAD_SECONDS


def _shown(plan: Plan, run: RunFolder, devices: tuple[str, ...], done: set[str]) -> str:
    """The plan as text."""
    lines = [f"{plan.name}: {counted(len(plan.jobs), 'job')} ({plan.protocol} protocol), run folder {run.path}", ""]
    for name, job in plan.jobs.items():
        state = "done" if name in done else f"at most about {duration(_seconds(plan, job))}"
        lines.append(f"  {job.dataset:<20} {job.model:<20} seed {job.seed}  {state}")
    weights = "of the hub" if plan.pre_trained else "random (results are floors)"
    if plan.teacher_sha256:
        weights = f"of a file, sha256 {plan.teacher_sha256[:12]}"
    left = [_seconds(plan, job) for name, job in plan.jobs.items() if name not in done]
    total = duration(sum(left) / len(devices))
    lines += [
        "",
        f"Backbone {plan.backbone}, {plan.image_size}x{plan.image_size} pixels, weights: {weights}",
        f"{_where(devices)}; training of each model at most {plan.limits.train_minutes:g} min",
        f"{counted(len(left), 'job')} left: at most about {total}; models that make one pass end earlier.",
    ]
    return "\n".join(lines)


def _where(devices: tuple[str, ...]) -> str:
    """The devices in words."""
    if devices[0] == "slurm":
        return f"SLURM, at most {counted(len(devices), 'job')} at once"
    return f"Devices: {', '.join(devices)}"


def _absent_folder(data: MedicalDataModule) -> Path | None:
    """The folder of the data, if it is not there: a dry run reads no data."""
    root = getattr(data, "root", None)
    makes_its_own = isinstance(data, Phantom)
    return None if root is None or makes_its_own or Path(root).is_dir() else Path(root)
