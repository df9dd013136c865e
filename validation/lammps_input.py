"""Case -> LAMMPS input files and data file that a person can read, rerun and change.

Start them by hand in their directory with `mdplugin lmp -in candidate.in`.
"""

import ase
import numpy as np
from ase import units
from ase.calculators.lammps import Prism
from ase.data import chemical_symbols
from ase.geometry import complete_cell

from mdplugin.validation.case import NveCase
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.runner_ase import FRICTION_PER_FS

INITIAL_DATA, START_DATA = "initial.data", "start.data"
DUMP_HEADER_LINES = 9  # of each frame
A_PER_PS = 1000 * units.fs  # ASE velocity -> Å/ps

_SETUP = """\
# {title}
# written by mdplugin validate nve; run it again here with: mdplugin lmp -in {label}.in
units           metal
atom_style      atomic
boundary        {boundary}
read_data       {data}
pair_style      mace/quant threads {threads}
pair_coeff      * * "{model}" {elements}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
timestep        {timestep_ps!r}

variable        step equal step
variable        picoseconds equal step*dt
variable        potential equal pe
variable        kinetic equal ke
variable        kelvin equal temp
variable        wall equal cpu
fix             record all print 1 "${{step}} $(v_picoseconds:%.17g) $(v_potential:%.17g) $(v_kinetic:%.17g) \
$(v_wall:%.6f)" file {label}.energies screen no title "# step time_ps potential_eV kinetic_eV wall_s"
fix             explosion all halt 1 v_kelvin > {explosion_K:g} error hard
thermo          100
thermo_style    custom step time temp pe ke etotal
fix             integrate all nve
"""

_EQUILIBRATION = """\
fix             thermostat all langevin {temperature_K!r} {temperature_K!r} {damping_ps!r} {seed}
run             {steps}
velocity        all zero linear
write_data      {start} nocoeff
"""

_NVE = """\
dump            frames all custom {every} {label}.lammpstrj id type element xu yu zu vx vy vz
dump_modify     frames element {elements} sort id format float %.17g
run             {steps}
"""


class Species:
    """LAMMPS's atom types of some atoms: one for each element and mass."""

    def __init__(self, atoms: ase.Atoms):
        kinds = list(zip(atoms.numbers.tolist(), atoms.get_masses().tolist(), strict=True))
        table = sorted(set(kinds))
        self.symbols = [chemical_symbols[number] for number, _ in table]
        self.masses = [mass for _, mass in table]
        self.types = [table.index(kind) + 1 for kind in kinds]


def write_equilibration(case: NveCase, atoms: ase.Atoms, model: str, threads: int) -> str:
    """Input: Langevin dynamics from INITIAL_DATA, then START_DATA without total momentum."""
    setup = _write_setup(case, atoms, "equilibrate", model, threads, INITIAL_DATA, "equilibration before NVE")
    return setup + _EQUILIBRATION.format(
        temperature_K=float(case.temperature_K),
        damping_ps=1 / (1000 * FRICTION_PER_FS),
        seed=case.seed + 1,  # LAMMPS wants it positive
        steps=case.equilibration_steps,
        start=START_DATA,
    )


def write_nve(case: NveCase, atoms: ase.Atoms, label: str, model: str, threads: int) -> str:
    """Input: constant-energy dynamics from START_DATA."""
    setup = _write_setup(
        case, atoms, label, model, threads, START_DATA, f"constant-energy run of the {label}"
    )
    return setup + _NVE.format(
        every=case.trajectory_every, label=label, elements=" ".join(Species(atoms).symbols), steps=case.steps
    )


def _write_setup(
    case: NveCase, atoms: ase.Atoms, label: str, model: str, threads: int, data: str, title: str
) -> str:
    return _SETUP.format(
        title=title,
        label=label,
        boundary=" ".join("p" if periodic else "s" for periodic in atoms.pbc),
        data=data,
        threads=threads,
        model=model,
        elements=" ".join(Species(atoms).symbols),
        timestep_ps=case.timestep_fs / 1000,
        explosion_K=LIMITS["explosion_K"].value,
    )


def write_data(atoms: ase.Atoms) -> str:
    """Data file with positions and velocities to the last bit.

    The crystal is turned as a whole to LAMMPS's orientation (first vector along x, second in the xy plane;
    a left-handed cell is mirrored), which changes no energy. Directions without periods get a perpendicular
    cell vector and bounds around the atoms.
    """
    species = Species(atoms)
    vectors = atoms.cell.array.copy()
    vectors[~atoms.pbc] = 0
    prism = Prism(complete_cell(vectors), atoms.pbc)
    positions = prism.vector_to_lammps(atoms.positions)
    velocities = prism.vector_to_lammps(atoms.get_velocities()) * A_PER_PS
    lines = [
        "mdplugin validate: metal units, atomic",
        "",
        f"{len(atoms)} atoms",
        f"{len(species.symbols)} atom types",
    ]
    lines += ["", *_box_lines(prism, positions, atoms.pbc), "", "Masses", ""]
    for number, (mass, symbol) in enumerate(zip(species.masses, species.symbols, strict=True), 1):
        lines.append(f"{number} {mass!r} # {symbol}")
    lines += ["", "Atoms # atomic", ""]
    lines += [
        f"{i} {kind} {_join(r)}" for i, (kind, r) in enumerate(zip(species.types, positions, strict=True), 1)
    ]
    lines += ["", "Velocities", ""]
    lines += [f"{i} {_join(v)}" for i, v in enumerate(velocities, 1)]
    return "\n".join(lines) + "\n"


def _box_lines(prism: Prism, positions: np.ndarray, periodic: np.ndarray) -> list[str]:
    x, y, z, xy, xz, yz = prism.get_lammps_prism()
    margin = 1.0  # the box then shrinks to the atoms
    lines = []
    for axis, length in enumerate((x, y, z)):
        bounds = (0.0, length) if periodic[axis] else _bounds(positions[:, axis], margin)
        lines.append(f"{_join(bounds)} {'xyz'[axis]}lo {'xyz'[axis]}hi")
    if prism.is_skewed():
        lines.append(f"{_join((xy, xz, yz))} xy xz yz")
    return lines


def _bounds(values: np.ndarray, margin: float) -> tuple[float, float]:
    return float(values.min()) - margin, float(values.max()) + margin


def _join(values) -> str:
    return " ".join(repr(float(value)) for value in values)  # the shortest text of exactly this double
