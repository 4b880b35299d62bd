"""Jobs given to SLURM, by commands of SLURM that only say what a test wants; a real one is in the integration tests."""

import sys
import time
from types import SimpleNamespace

import psutil
import pytest
from submitit.core.utils import DelayedSubmission

from anomalib_medical.benchmark import cluster, command, runner
from anomalib_medical.benchmark.cluster import granted_device, sbatch_parameters, submit_jobs
from anomalib_medical.benchmark.plan import load_plan, make_plan
from anomalib_medical.benchmark.records import Job, JobStatus, RunInfo
from anomalib_medical.benchmark.run_folder import RunFolder
from anomalib_medical.benchmark.runner import Task
from anomalib_medical.benchmark.slurm_queue import in_queue, read_batches, write_batch
from anomalib_medical.errors import MedicalError
from tests.helpers.commands import fail
from tests.helpers.terminal import Terminal
from tests.unit.benchmark.test_command import write

CONTENT = {"models": {"m": {"class_path": "Padim"}}, "datasets": {"a": {"class_path": "Phantom"}}}
TASKS = [Task("job", str(number), f"task {number}", 60.0) for number in range(3)]


def plan_with(**content):
    return make_plan(CONTENT | content, "plan.yaml")


class FakeSlurm:
    """Commands in a folder of their own on the path, which log how they were called."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        folder.mkdir()
        self.says("sbatch", "echo Submitted batch job 7")
        self.says("scancel", "")
        self.says("srun", "")
        self.queue()
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def says(self, name, does):
        (self.folder / name).write_text(f'#!/bin/sh\necho "{name} $@" >> {self.folder}/calls\n{does}\n')
        (self.folder / name).chmod(0o755)

    def queue(self, *lines):
        """What squeue says; @ stands for the name of the batch that it is asked for last."""
        echoes = "\n".join(f"echo '{line}' | sed s/@/$name/" for line in lines)
        self.says("squeue", f"name=$(echo \"$@\" | sed 's/.*--name=//; s/ .*//; s/.*,//')\n{echoes}")

    @property
    def calls(self):
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(cluster, "_WORD_SECONDS", 0.0)
    return FakeSlurm(tmp_path / "bin", monkeypatch)


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "run")


def saying(run, name, status):
    """Let a job have said how it ended, once it is submitted."""
    run.job(name).write(Job(status))


def submitted_script(run):
    (script,) = run.path.glob("cluster/*/*_submission.sh")
    return script.read_text()


def test_sbatch_is_given_what_the_plan_asks_for(slurm, run):
    slurm.queue("@|7_0|COMPLETED|1:00|None", "@|7_1|COMPLETED|1:00|None", "@|7_2|COMPLETED|1:00|None")
    asked = {
        "partition": "gpu",
        "gpus": 1,
        "cpus": 6,
        "memory_gib": 12.5,
        "at_once": 2,
        "slurm": {"account": "mine", "mail_type": "END"},
    }
    submit_jobs(plan_with(cluster=asked, limits={"job_minutes": 30}), run, TASKS)
    script = submitted_script(run)
    wanted = (
        *("array=0-2%2", "partition=gpu", "gpus-per-node=1", "cpus-per-task=6", "mem=12800M"),
        *("time=35", "account=mine", "mail-type=END", "signal=USR2@90"),
    )
    for option in wanted:
        assert f"#SBATCH --{option}\n" in script
    assert "srun --unbuffered" in script
    assert "--cpus-per-task=6" in script[script.index("srun") :]
    assert len([call for call in slurm.calls if call.startswith("sbatch")]) == 1


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ({}, {"cpus_per_task": 4}),
        ({"threads": 2, "num_workers": 3}, {"cpus_per_task": 5}),
        ({"limits": {"memory_gib": 6}}, {"mem": "8192M"}),
        ({"limits": {"train_minutes": 5}}, {"time": 30}),
    ],
)
def test_what_is_not_asked_for_follows_from_the_plan(content, wanted):
    parameters = sbatch_parameters(plan_with(**content), "x")
    assert wanted.items() <= parameters.items()
    assert not {"partition", "gpus_per_node", "additional_parameters"} & parameters.keys()
    assert "mem" in wanted or "mem" not in parameters


@pytest.mark.parametrize(
    ("queue", "said", "state", "message"),
    [
        ("7|COMPLETED|1:00|None", JobStatus("done", 5.0), "done", ""),
        ("7|FAILED|1:00|NonZeroExitCode", JobStatus("failed", 5.0, "no luck"), "failed", "no luck"),
        ("7|TIMEOUT|1-00:01:05|TimeLimit", None, "timeout", "SLURM's job 7 is TIMEOUT (TimeLimit), which lies"),
        ("7|OUT_OF_MEMORY|1:00|OutOfMemory", None, "out_of_memory", "cluster.memory_gib of the plan may be raised"),
        ("7|CANCELLED|0:00|None", None, "failed", "SLURM's job 7 is CANCELLED; see"),
        ("7|NODE_FAIL|0:00|None", None, "failed", "SLURM's job 7 is NODE_FAIL"),
        # The task's process was told to end: that is not why.
        ("7|TIMEOUT|1:05|TimeLimit", JobStatus("failed", 5.0, "ended with signal 15"), "timeout", "is TIMEOUT"),
        # Its own limit came first, or it had just ended.
        ("7|CANCELLED|1:05|None", JobStatus("out_of_memory", 5.0, "of 8 GiB"), "out_of_memory", "of 8 GiB"),
        ("7|TIMEOUT|1:05|TimeLimit", JobStatus("done", 5.0), "done", ""),
        (None, None, "failed", "SLURM knows the job no longer"),
        (None, JobStatus("done", 5.0), "done", ""),
    ],
)
def test_how_a_job_ended_stands_in_its_folder(queue, said, state, message, slurm, run, capsys):
    slurm.queue(*([f"@|{queue}"] if queue else []))
    if said:
        text = '{"status": ' + str(vars(said)).replace("'", '"') + "}"
        folder = run.job("0").path
        slurm.says("sbatch", f"mkdir -p {folder}; echo '{text}' > {folder}/job.json; echo Submitted batch job 7")
    submit_jobs(plan_with(), run, TASKS[:1])
    status = run.job("0").read().status
    assert status.status == state
    assert message in status.message
    if "1-00" in (queue or ""):
        assert status.seconds == 86465
    assert f"task 0: {state.replace('_', ' ')} in " in capsys.readouterr().out


def test_memory_that_slurm_calls_a_failure_is_found_in_what_it_said(slurm, run):
    slurm.queue("@|7|FAILED|1:00|NonZeroExitCode")
    log = "slurmstepd: error: Exceeded job memory limit"
    slurm.says("sbatch", f"folder=$(dirname $1); echo '{log}' > $folder/7_0_log.out; echo Submitted batch job 7")
    submit_jobs(plan_with(), run, TASKS[:1])
    assert run.job("0").read().status.status == "out_of_memory"


def test_a_terminal_shows_what_running_jobs_do(slurm, run, monkeypatch):
    screen, looks = Terminal(), iter(range(100))
    monkeypatch.setattr(sys, "stderr", screen)

    def sleep(_):
        slurm.queue("@|7_0|RUNNING|1:00|None", "@|7_1|PENDING|0:00|Priority")
        if next(looks):
            slurm.queue("@|7_0|FAILED|1:00|None", "@|7_1|FAILED|1:00|None")
        else:
            run.job("0").path.mkdir(parents=True)
            run.job("0").begin_step("training 5%")

    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    submit_jobs(plan_with(), run, TASKS[:2])
    assert "  task 0: training 5%" in screen.getvalue()
    assert "task 1:" not in screen.getvalue()
    assert "1 pending (Priority), 1 running" in screen.getvalue()


def test_a_word_that_comes_late_is_waited_for(slurm, run, monkeypatch):
    monkeypatch.setattr(cluster, "_WORD_SECONDS", 30.0)
    slurm.queue("@|7|COMPLETED|1:00|None")
    looks = iter(range(100))

    def sleep(_):
        if next(looks) == 3:
            saying(run, "0", JobStatus("done", 5.0))

    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    submit_jobs(plan_with(), run, TASKS[:1])
    assert run.job("0").read().status.status == "done"


def test_jobs_of_before_are_not_submitted_again(slurm, run, capsys, monkeypatch):
    write_batch(run, "old", [("job", "0"), ("job", "1")])
    for name in ("0", "1", "2"):
        saying(run, name, JobStatus("failed", 1.0))
    slurm.queue("anomalib-medical-old|5_0|RUNNING|1:00|None", "anomalib-medical-old|5_1|FAILED|1:00|None")
    assert in_queue(run) == ["5_0"]

    def sleep(_):
        # Both batches have ended now; the job of before says so, of the others only SLURM does.
        assert run.job("1").read() is None, "of a failure, removed before it is submitted again"
        slurm.queue("anomalib-medical-old|5_0|COMPLETED|1:00|None", "@|7_0|FAILED|1:00|None", "@|7_1|FAILED|1:00|None")

    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    submit_jobs(plan_with(), run, TASKS)
    assert "1 job of before is still with SLURM." in capsys.readouterr().out
    places = read_batches(run)
    assert sorted(name for (batch, _), (_, name) in places.items() if batch != "old") == ["1", "2"]


@pytest.mark.parametrize("ending", [KeyboardInterrupt, OSError])
def test_what_ends_the_run_cancels_its_jobs(ending, slurm, run, monkeypatch):
    slurm.queue("@|7_0|RUNNING|1:00|None", "@|7_1|PENDING|0:00|Priority")

    def sleep(_):
        raise ending

    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    with pytest.raises(ending):
        submit_jobs(plan_with(), run, TASKS[:2])
    (batch,) = {batch for batch, _ in read_batches(run)}
    assert slurm.calls[-1] == f"scancel --quiet --name=anomalib-medical-{batch}"


def test_a_full_disk_on_a_node_ends_the_run(slurm, run):
    slurm.queue("@|7_0|FAILED|1:00|None", "@|7_1|RUNNING|0:00|Priority")
    full = '{"status": {"status": "disk_full", "seconds": 1.0, "message": "No space left"}}'
    folder = run.job("0").path
    slurm.says("sbatch", f"mkdir -p {folder}; echo '{full}' > {folder}/job.json; echo Submitted batch job 7")
    with pytest.raises(OSError, match="No space left"):
        submit_jobs(plan_with(), run, TASKS[:2])
    assert slurm.calls[-1].startswith("scancel")


def test_a_slurm_that_is_silent_for_a_while_costs_nothing(slurm, run, monkeypatch):
    slurm.says("squeue", "exit 1")
    looks = iter(range(100))

    def sleep(_):
        if next(looks) == 2:
            slurm.queue("@|7|CANCELLED|1:00|None")

    monkeypatch.setattr(cluster, "time", SimpleNamespace(sleep=sleep, monotonic=time.monotonic))
    submit_jobs(plan_with(), run, TASKS[:1])
    assert "is CANCELLED" in run.job("0").read().status.message


def test_what_slurm_refuses_is_said_in_its_words(slurm, run):
    slurm.says("sbatch", "echo 'sbatch: error: invalid partition specified: nowhere' >&2; exit 1")
    with pytest.raises(MedicalError, match=r"SLURM does not take the jobs: .*invalid partition specified: nowhere"):
        submit_jobs(plan_with(), run, TASKS)
    assert read_batches(run) == {}


def test_a_slurm_that_is_not_there_is_one_line(here, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(here))
    shown = fail(capsys, "benchmark", "--config", write(here), "--executor", "slurm")
    assert "--executor slurm: this machine has no sbatch, srun, squeue, scancel. Start it where jobs are" in shown
    assert not (here / "results").exists()


def test_a_slurm_that_does_not_answer_is_one_line(slurm, run):
    slurm.says("squeue", "exit 1")
    write_batch(run, "old", [("job", "0")])
    with pytest.raises(MedicalError, match=r"SLURM does not answer \(squeue\)"):
        submit_jobs(plan_with(), run, TASKS)


def test_a_folder_whose_jobs_are_with_slurm_is_refused_here_and_for_another_plan(slurm, run, here, capsys):
    path = write(here)
    plan = load_plan(path)
    run.start(command.asdict(plan), RunInfo("x", "", "", {}, {}, ""), list(plan.jobs.values()))
    write_batch(run, "old", [("job", "0")])
    slurm.queue("anomalib-medical-old|5|PENDING|0:00|Priority")
    shown = fail(capsys, "benchmark", "--config", path, "--output", run.path)
    assert "1 job of " in shown
    assert (
        "is still with SLURM. Wait for it with --executor slurm and the same plan, or end it first: scancel 5" in shown
    )
    path = write(here, image_size=32)
    more = ("--executor", "slurm", "--force_new_plan")
    assert "end it first: scancel 5" in fail(capsys, "benchmark", "--config", path, "--output", run.path, *more)


@pytest.mark.usefixtures("slurm")
def test_the_command_line_goes_over_the_plan(here, capsys):
    path = write(here, cluster={"partition": "slow", "at_once": 3, "slurm": {"qos": "low"}})
    options = (
        "--executor",
        "slurm",
        "--cluster.partition",
        "fast",
        "--cluster.gpus",
        "2",
        "--cluster.slurm.qos",
        "high",
    )
    plan = load_plan(path, {"partition": "fast", "gpus": "2"})
    assert (plan.cluster.partition, plan.cluster.gpus, plan.cluster.at_once) == ("fast", 2, 3)
    command_line("benchmark", "--config", str(path), "--dry_run", *options)
    assert "SLURM, at most 2 jobs at once; training of each model" in capsys.readouterr().out
    shown = fail(capsys, "benchmark", "--config", path, "--cluster.gpu", "2")
    assert "cluster has 'gpu', which is unknown: did you mean 'gpus'?" in shown
    shown = fail(capsys, "benchmark", "--config", path, "--cluster.gpus", "many")
    assert "cluster.gpus is 'many', expected" in shown
    shown = fail(capsys, "benchmark", "--config", path, "--cluster.slurm.job-name", "mine")
    assert "cluster.slurm has 'job_name', which the benchmark itself sets: leave it out." in shown


def command_line(*arguments):
    from anomalib_medical.cli.main import main

    main(list(arguments))


@pytest.mark.parametrize(
    ("environment", "device"),
    [
        ({"SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "3"}, "cuda:3"),
        ({"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1"}, "cuda:0"),
        ({"SLURM_GPUS_ON_NODE": "1", "CUDA_VISIBLE_DEVICES": "MIG-1f2e"}, "cuda:MIG-1f2e"),
        ({"CUDA_VISIBLE_DEVICES": "3"}, "cpu"),  # of where it was submitted
        ({}, "cpu"),
    ],
)
def test_a_job_takes_the_gpu_that_it_was_given(environment, device, monkeypatch):
    for name in ("SLURM_GPUS_ON_NODE", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert granted_device() == device


@pytest.fixture
def on_node(run, monkeypatch):
    """Do a task, a piece of Python code, as a node would."""
    monkeypatch.setattr(cluster, "_NODE_POLL_SECONDS", 0.02)
    before = cluster.signal.getsignal(cluster.signal.SIGTERM)

    def do(code, **limits):
        plan = plan_with(limits=limits)
        run.start(command.asdict(plan), RunInfo("x", "", "", {}, {}, ""), [])
        monkeypatch.setattr(runner, "worker_command", lambda *_: [sys.executable, "-S", "-c", code])
        cluster._OnNode(run.path, 1)(TASKS[0])
        job = run.job("0").read()
        return job and job.status

    yield do
    cluster.signal.signal(cluster.signal.SIGTERM, before)


def test_a_node_keeps_the_plans_limits(on_node):
    started = time.monotonic()
    assert on_node("import time; time.sleep(60)", job_minutes=0.5 / 60).status == "timeout"
    assert time.monotonic() - started < 10
    assert on_node("x = bytearray(200_000_000); import time; time.sleep(60)", memory_gib=0.1).status == "out_of_memory"
    assert on_node("import sys; sys.exit(3)").message == "the process ended with exit code 3"


def test_a_finished_task_is_not_done_again_when_its_job_is_queued_again(on_node, run):
    saying(run, "0", JobStatus("done", 5.0))
    assert on_node("raise SystemExit(3)").status == "done"


def test_what_slurm_ends_leaves_no_word_and_no_process(on_node, run, tmp_path):
    mark = tmp_path / "pid"
    code = (
        f"import os, time; open({str(mark)!r}, 'w').write(str(os.getpid())); os.kill(os.getppid(), 15); time.sleep(60)"
    )
    with pytest.raises(SystemExit) as stop:
        on_node(code)
    assert stop.value.code == 143
    assert run.job("0").read() is None
    assert not psutil.pid_exists(int(mark.read_text()))


def test_a_task_does_not_see_the_signal_of_preemption(on_node):
    # It would die of it before the job is queued again.
    assert on_node("import os, signal, sys; os.kill(os.getpid(), signal.SIGUSR2); sys.exit(4)").message.endswith(
        "code 4"
    )


@pytest.mark.parametrize("left", ["6:00", "2-00:00:00", "UNLIMITED", None])
def test_a_preempted_job_is_queued_again_with_the_same_task(left, slurm, run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slurm.says("squeue", f"echo {left}" if left else "exit 1")
    again = cluster._OnNode(run.path, 2).checkpoint(TASKS[1])
    assert slurm.calls == ["squeue --noheader --jobs=7 --format=%L"]
    assert isinstance(again, DelayedSubmission)
    assert (again.function.run, again.function.threads, again.args) == (run.path, 2, (TASKS[1],))


def test_a_job_at_slurms_limit_of_time_is_not_queued_for_ever(slurm, run, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slurm.says("squeue", "echo 1:28")  # the same signal as of a preemption
    assert cluster._OnNode(run.path, 2).checkpoint(TASKS[1]) is None
    status = run.job("1").read().status
    assert (status.status, "ended at SLURM's limit of time, which lies above" in status.message) == ("timeout", True)
