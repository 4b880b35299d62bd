"""A SLURM of one node on this machine, with its files in a folder of its own: munged, slurmctld and slurmd, no systemd.

Debian's packages are enough, and no cgroups are used: `apt-get install slurm-wlm munge`. To try something on it:

    SLURM_FOLDER=$(mktemp -d)
    eval "$(python tests/helpers/slurm.py start "$SLURM_FOLDER")"   # exports SLURM_CONF
    sinfo; anomalib-medical benchmark --config configs/benchmark/smoke.yaml --executor slurm
    python tests/helpers/slurm.py stop "$SLURM_FOLDER"
"""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue")
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=SEARCHED) is None]

# One task a job on any of the cores, memory as a resource that jobs are killed above; both daemons as this user.
CONFIG = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
KillWait=5
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory={memory} Gres=gpu:1 State=UNKNOWN
PartitionName=short Nodes={host} Default=YES MaxTime=600 State=UP
"""


def start(folder: Path) -> None:
    """Start it and wait until a job can run; `RuntimeError` with what the daemons said if it does not come up."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o755)
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # no GPU, but jobs are told that they have one
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    host = socket.gethostname().partition(".")[0]
    values = {"host": host, "user": getpass.getuser(), "cores": os.cpu_count(), "memory": memory * 9 // 10}
    (folder / "slurm.conf").write_text(CONFIG.format(folder=folder, ports=_free_ports(2), **values))
    munge = [f"--{name}={folder}/munge.{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
    try:
        _run(folder, "munged", "--force", f"--key-file={folder}/munge.key", *munge)
        _run(folder, "slurmctld")
        _run(folder, "slurmd", "-N", host)
        _run(folder, "srun", "--immediate=60", "true")
    except subprocess.SubprocessError as error:
        said = "\n".join(file.read_text(errors="replace")[-2000:] for file in sorted(folder.glob("*log*")))
        stop(folder)
        msg = f"SLURM did not start: {error}\n{said}"
        raise RuntimeError(msg) from error


def stop(folder: Path) -> None:
    """End all jobs and the daemons."""
    _run(folder, "scancel", "--quiet", f"--user={getpass.getuser()}", check=False)
    deadline = time.monotonic() + 20
    while _run(folder, "squeue", "--noheader", check=False).strip() and time.monotonic() < deadline:
        time.sleep(0.2)
    for name in ("slurmd.pid", "slurmctld.pid", "munge.pid-file"):
        with contextlib.suppress(FileNotFoundError, ValueError, ProcessLookupError):
            pid = int((folder / name).read_text())
            os.kill(pid, signal.SIGTERM)
            while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
                time.sleep(0.1)


def environment(folder: Path) -> dict[str, str]:
    """What SLURM's commands need to find it."""
    return {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": SEARCHED}


def _run(folder: Path, *command: str, check: bool = True) -> str:
    """Run a command and return what it printed. Daemons keep no pipe open: they would never end then."""
    log = folder / f"{command[0]}.out.log"
    with log.open("wb") as out:
        subprocess.run(
            command, env=environment(folder), stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=check, timeout=60
        )
    return log.read_text(errors="replace")


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    action, where = sys.argv[1], Path(sys.argv[2]).resolve()
    if action == "start":
        start(where)
        print(f"export SLURM_CONF={where / 'slurm.conf'}")
    else:
        stop(where)
