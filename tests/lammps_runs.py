"""LAMMPS runs for the tests: atoms and a model -> input files -> forces, energies and virials as arrays.

Every run is a subprocess with a timeout. `lmp` and `mpirun` are those of the Python that runs the tests.
"""

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ase
import ase.build
import numpy as np
import torch

from mdplugin import launch

BIN = Path(sys.executable).parent
ELEMENTS = ("H", "C", "O")  # of the organic test model; atom types in this order
VOIGT = (0, 1, 2, 5, 4, 3)  # ASE's order xx yy zz yz xz xy -> LAMMPS's xx yy zz xy xz yz
BAR_PER_EV_PER_A3 = 1.6021765e6  # LAMMPS's own constant in units metal


@dataclass(frozen=True)
class System:
    """Atoms in a cell whose vectors are lower triangular, and LAMMPS's boundary command for them."""

    atoms: ase.Atoms
    boundary: str


@dataclass(frozen=True)
class Result:
    """What LAMMPS says of one configuration, in its units (metal: eV, eV/Å, bar, Å³)."""

    energy: float
    volume: float
    pressure: np.ndarray  # (6,) xx yy zz xy xz yz, without the kinetic part
    forces: np.ndarray  # (n_atoms, 3)
    energies: np.ndarray  # (n_atoms,)
    stresses: np.ndarray  # (n_atoms, 6) minus pressure times volume


def scatter(shape, cell, seed, *, origin=(0.0, 0.0, 0.0), extent=None) -> ase.Atoms:
    """Atoms up to 0.25 Å off a grid that fills `extent` (default: the cell), elements at random."""
    random = np.random.default_rng(seed)
    fractions = np.stack(np.meshgrid(*[np.arange(n) / n for n in shape], indexing="ij"), -1).reshape(-1, 3)
    positions = fractions @ np.asarray(cell if extent is None else extent) + origin
    positions += random.uniform(-0.25, 0.25, positions.shape)
    return ase.Atoms(random.choice(ELEMENTS, len(positions)), positions, cell=cell, pbc=True)


def make_systems() -> dict[str, System]:
    """The geometries of the acceptance table, for the organic test model (r_max 4 Å)."""
    box = np.diag([7.2, 7.5, 9.8])
    tilted = np.array([[7.2, 0.0, 0.0], [2.1, 7.5, 0.0], [-1.3, 1.7, 9.8]])
    slab = scatter((3, 3, 2), np.diag([7.2, 7.5, 20.0]), 2, origin=(0, 0, 8), extent=np.diag([7.2, 7.5, 5.0]))
    slab.pbc = (True, True, False)
    molecule = ase.build.molecule("CH3CH2OH", cell=np.diag([12.0, 13.0, 14.0]))
    molecule.center()
    molecule.rattle(0.05, seed=3)
    corner = scatter((3, 2, 2), np.diag([40.0] * 3), 5, origin=(1, 1, 1), extent=np.diag([7.0, 5.0, 5.0]))
    corner.pbc = False
    tiny = np.array([[2.9, 0.0, 0.0], [0.4, 3.1, 0.0], [0.0, -0.3, 3.3]])
    return {
        "orthogonal": System(scatter((3, 3, 4), box, 0), "p p p"),
        "triclinic": System(scatter((3, 3, 4), tilted, 1), "p p p"),
        "slab": System(slab, "p p f"),
        "shrink-wrapped-slab": System(slab, "p p s"),
        "molecule": System(molecule, "f f f"),
        "cell-smaller-than-cutoff": System(scatter((1, 1, 2), tiny, 4), "p p p"),
        "ranks-without-atoms": System(corner, "f f f"),
    }


def write_data(atoms: ase.Atoms, path: Path, elements: Sequence[str]) -> None:
    """A LAMMPS data file with every digit; type i is elements[i - 1]."""
    cell = atoms.cell.array
    assert not np.triu(cell, 1).any(), "LAMMPS wants a lower triangular cell"
    lines = ["made by the tests", "", f"{len(atoms)} atoms", f"{len(elements)} atom types", ""]
    lines += [f"0 {cell[i, i]:.17g} {axis}lo {axis}hi" for i, axis in enumerate("xyz")]
    if np.tril(cell, -1).any():
        lines.append(f"{cell[1, 0]:.17g} {cell[2, 0]:.17g} {cell[2, 1]:.17g} xy xz yz")
    lines += ["", "Masses", ""]
    lines += [f"{i} {ase.Atoms(symbol).get_masses()[0]}" for i, symbol in enumerate(elements, 1)]
    lines += ["", "Atoms # atomic", ""]
    for i, (symbol, position) in enumerate(zip(atoms.symbols, atoms.positions, strict=True), 1):
        x, y, z = (f"{value:.17g}" for value in position)
        lines.append(f"{i} {elements.index(symbol) + 1} {x} {y} {z}")
    path.write_text("\n".join(lines) + "\n")


def environment() -> dict[str, str]:
    """Of a LAMMPS run: an installed mdplugin is found by its entry point, a bare checkout is pointed at."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    # a copy of the libraries at another place may have lost its way to torch
    search = [Path(torch.__file__).parent / "lib"]
    entry_points = importlib.metadata.entry_points(group="lammps.plugins")
    if not any(entry.name == "mdplugin" for entry in entry_points):
        variables["LAMMPS_PLUGIN_PATH"] = launch.plugin_directory()
        search.append(launch.find_libmpi().parent)
    variables["LD_LIBRARY_PATH"] = ":".join([*map(str, search), variables.get("LD_LIBRARY_PATH", "")])
    return variables


def run(command: Sequence[str], directory: Path, timeout: float = 120) -> subprocess.CompletedProcess:
    """Run a command to its end or to the timeout; stdout holds both of its streams."""
    return subprocess.run(
        [str(word) for word in command],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_lmp(directory: Path, script: str, ranks: int = 1) -> subprocess.CompletedProcess:
    """Run an input script with `lmp`."""
    (directory / "in.lammps").write_text(script)
    lmp = [BIN / "lmp", "-in", "in.lammps", "-log", "log.lammps"]
    return run(lmp if ranks == 1 else [BIN / "mpirun", "-np", str(ranks), *lmp], directory)


def set_up(system: System, data: str, model: Path, elements: Sequence[str], **options: str) -> str:
    """The input up to pair_coeff.

    Options: units, newton, style (arguments of pair_style), coeff (the commands after it), before and after
    (commands around read_data).
    """
    return f"""
units {options.get("units", "metal")}
atom_style atomic
boundary {system.boundary}
newton {options.get("newton", "on")}
{options.get("before", "")}
read_data {data}
{options.get("after", "")}
pair_style {options.get("style", "mace/quant")}
{options.get("coeff", f"pair_coeff * * {model} {' '.join(elements)}")}
"""


MEASURE = """
compute virial all pressure NULL virial
compute energies all pe/atom
compute stresses all stress/atom NULL virial
thermo_style custom step pe vol c_virial[*]
dump result all custom 1 {name}.dump id fx fy fz c_energies c_stresses[*]
dump_modify result sort id format float %.17g
run 0 post no
print "$(pe:%.17g) $(vol:%.17g) $(c_virial[1]:%.17g) $(c_virial[2]:%.17g) $(c_virial[3]:%.17g) &
$(c_virial[4]:%.17g) $(c_virial[5]:%.17g) $(c_virial[6]:%.17g)" file {name}.values screen no
"""


def measure(
    directory: Path,
    model: Path,
    systems: dict[str, System],
    elements: Sequence[str] = ELEMENTS,
    ranks: int = 1,
    **options: str,
) -> dict[str, Result]:
    """Evaluate the systems one after the other in one LAMMPS process; options as for `set_up`."""
    parts = []
    for name, system in systems.items():
        write_data(system.atoms, directory / f"{name}.data", elements)
        parts.append(set_up(system, f"{name}.data", model, elements, **options) + MEASURE.format(name=name))
    done = run_lmp(directory, "\nclear\n".join(parts), ranks)
    assert done.returncode == 0, done.stdout
    return {name: _read_result(directory, name) for name in systems}


def _read_result(directory: Path, name: str) -> Result:
    energy, volume, *pressure = (float(word) for word in (directory / f"{name}.values").read_text().split())
    rows = np.loadtxt(directory / f"{name}.dump", skiprows=9, ndmin=2)
    return Result(energy, volume, np.array(pressure), rows[:, 1:4], rows[:, 4], rows[:, 5:])


MOVE = """
velocity all create {temperature} 12345 loop all mom yes
neigh_modify every 5 delay 0 check no
{before}
fix nve all nve
timestep 0.0005
thermo_style custom step temp pe etotal press
run {steps}
write_dump all custom {name}.dump id x y z vx vy vz modify sort id format float %.17g
"""


def move(
    directory: Path,
    model: Path,
    system: System,
    *,
    steps: int = 20,
    ranks: int = 1,
    name: str = "trajectory",
    temperature: float = 1000.0,
    before: str = "",
    **options: str,
) -> tuple[np.ndarray, str]:
    """Positions and velocities (n_atoms, 6) after `steps` of NVE, and LAMMPS's output."""
    write_data(system.atoms, directory / f"{name}.data", ELEMENTS)
    script = set_up(system, f"{name}.data", model, ELEMENTS, **options)
    script += MOVE.format(name=name, steps=steps, temperature=temperature, before=before)
    done = run_lmp(directory, script, ranks)
    assert done.returncode == 0, done.stdout
    return np.loadtxt(directory / f"{name}.dump", skiprows=9)[:, 1:], done.stdout
