"""The subcommand `benchmark`: models x datasets x seeds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from anomalib_medical.errors import needs_extra

DESCRIPTION = (
    "Run models x datasets x seeds under the same conditions, one process a job, and go on where a run stopped."
)
OWN_CONFIG = True  # the plan


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", type=Path, required=True, help="The plan, such as configs/benchmark/smoke.yaml.")
    parser.add_argument(
        "--output",
        type=Path | None,
        metavar="DIR",
        help="Run folder; results/benchmark/<name of the plan> by default. Finished jobs in it are not run again.",
    )
    parser.add_argument(
        "--dry_run",
        "--dry-run",
        action="store_true",
        help="Check the plan and print it with an estimate of the time.",
    )
    parser.add_argument(
        "--force_new_plan",
        action="store_true",
        help="Take a run folder that holds another plan: jobs that are the same in both are kept, the others are "
        "moved to replaced/ in it.",
    )
    parser.add_argument(
        "--executor",
        type=Literal["local", "slurm"],
        default="local",
        help="Where jobs run: on this machine's devices, or on a cluster, submitted from here (extra `cluster`).",
    )
    parser.add_argument(
        "--cluster",
        type=dict[str, object],
        default={},
        metavar="{...}",
        help="What each job asks SLURM for, over the plan's section cluster: --cluster.partition gpu "
        "--cluster.gpus 1 --cluster.cpus 4 --cluster.memory_gib 16 --cluster.at_once 8, and any other option of "
        "sbatch, such as --cluster.slurm.account mine.",
    )


def run(arguments: Mapping[str, Any]) -> int:
    """Run the plan and return 0; a `MedicalError` if a job failed."""
    with needs_extra("report"):
        from anomalib_medical.benchmark.command import run_plan

    names = ("config", "output", "dry_run", "force_new_plan", "executor", "cluster")
    run_plan(**{name: arguments[name] for name in names})
    return 0
