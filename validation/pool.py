"""Runs -> processes of their own, several at a time, under one progress bar.

Each process is the command that a cluster's scheduler would start: `mdplugin validate --run NAME -o DIR`.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mdplugin.errors import CaseError
from mdplugin.validation.case import require_integer
from mdplugin.validation.chain import count_done
from mdplugin.validation.plan import RunPlan
from mdplugin.validation.progress import read_progress, show_progress

POLL_S = 0.2


@dataclass(frozen=True)
class Job:
    """A process at work on a run, and the file that takes its stderr: a pipe that nobody reads would stop it."""

    process: subprocess.Popen
    stderr: IO[str]


@dataclass(frozen=True)
class Milestone:
    """What is done once, as soon as some of the runs are there, while others go on."""

    plans: Sequence[RunPlan]
    action: Callable[[], None]


def execute_runs(
    plans: Sequence[RunPlan],
    directory: Path,
    jobs: int,
    *,
    quiet: bool,
    milestone: Milestone | None = None,
) -> None:
    """Do what is left of the runs in `directory`/runs, `jobs` at a time; an error of the milestone's ends them all.

    Raises:
        CaseError: `jobs` is less than 1, or a run could not be done; the others that had started are ended, and
            everything is kept.
    """
    require_integer("jobs", jobs, 1)
    done = count_steps_done(plans, directory)
    waiting = [plan for plan in plans if done[plan.name] < plan.steps]
    running: dict[RunPlan, Job] = {}
    with show_progress(sum(plan.steps for plan in plans), quiet, sum(done.values())) as reach:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    plan = waiting.pop(0)
                    running[plan] = _start(plan, directory)
                time.sleep(POLL_S)
                for plan in [plan for plan, job in running.items() if job.process.poll() is not None]:
                    _require_success(plan, running.pop(plan))
                    done[plan.name] = plan.steps
                if milestone and not any(plan in running or plan in waiting for plan in milestone.plans):
                    milestone.action()
                    milestone = None
                for plan in running:
                    done[plan.name] = max(done[plan.name], _steps_so_far(directory, plan))
                reach(sum(done.values()))
        finally:
            for job in running.values():
                job.process.terminate()  # it ends its LAMMPS and keeps its checkpoints
            for job in running.values():
                job.process.wait()
                job.stderr.close()


def count_steps_done(plans: Sequence[RunPlan], directory: Path) -> dict[str, int]:
    """Run -> its steps in `directory`/runs that are committed."""
    return {plan.name: count_done(directory / "runs" / plan.name, plan) for plan in plans}


def run_command(plan: RunPlan, directory: Path) -> list[str]:
    """The command of one run; -P: a folder called mdplugin in the working directory is not ours."""
    return [sys.executable, "-P", "-m", "mdplugin", "validate", "--run", plan.name, "-o", str(directory)]


def _start(plan: RunPlan, directory: Path) -> Job:
    stderr = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed with the job
    process = subprocess.Popen(
        [*run_command(plan, directory.resolve()), "--parent", str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )
    return Job(process, stderr)


def _steps_so_far(directory: Path, plan: RunPlan) -> int:
    return min(plan.steps, read_progress(directory / "runs" / plan.name))


def _require_success(plan: RunPlan, job: Job) -> None:
    process = job.process
    with job.stderr as file:
        file.seek(0)
        message = file.read()
    if process.returncode == 0:
        return
    lines = [line for line in message.splitlines() if line.startswith("mdplugin: ")] or message.splitlines()[
        -1:
    ]
    reason = lines[-1].removeprefix("mdplugin: ") if lines else f"it ended with status {process.returncode}"
    if process.returncode < 0:
        reason = f"it was killed by signal {-process.returncode}; the same command goes on from the last checkpoint"
    raise CaseError(reason if plan.name in reason else f"run {plan.name}: {reason}")
