"""Job + allocator -> the result of a child process."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from mdplugin.bench.job import ALLOCATORS, Job
from mdplugin.errors import CaseError


def make_environment(allocator: str, threads: int) -> dict[str, str]:
    """This process's environment with the allocator's settings in place of any others, and a number of threads."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
    }
    number = str(threads)
    quiet = {"KINETO_LOG_LEVEL": "99"}  # torch's profiler announces itself on stderr
    return {**kept, **quiet, "OMP_NUM_THREADS": number, "MKL_NUM_THREADS": number, **ALLOCATORS[allocator]}


def run_job(job: Job, allocator: str, tick: Callable[[], None]) -> dict:
    """Run the job in a child; `tick` is called at each of its steps of progress.

    Raises:
        CaseError: the child cannot do it, or was killed.
    """
    result, messages = None, []
    # -P: the installed package, also where the working directory has a folder mdplugin/
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "mdplugin.bench.child", json.dumps(dataclasses.asdict(job))],
        env=make_environment(allocator, job.threads),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            for text in child.stdout:
                line = json.loads(text)
                result = line.get("result", result)
                messages += [line["error"]] if "error" in line else []
                if "tick" in line:
                    tick()
        except BaseException:  # an interrupted benchmark must not leave its child running
            child.kill()
            raise
    if child.returncode == 0 and result is not None:
        return result
    raise CaseError(messages[0] if messages else _explain(child.returncode, job))


def _explain(returncode: int, job: Job) -> str:
    what = f"bench: {job.n_atoms} atoms, {job.threads} threads"
    if returncode == -signal.SIGKILL:
        return f"{what}: the process was killed, most likely for want of memory: take fewer atoms"
    if returncode < 0:
        return f"{what}: the process was ended by signal {-returncode}"
    return f"{what}: the process failed with status {returncode}, see its message above"
