"""Segment -> a LAMMPS input that a person can read, rerun and change; atoms -> data file.

Start one by hand in its directory with `mdplugin lmp -in segment.in`.
"""

import ase
import numpy as np
from ase import units
from ase.calculators.lammps import Prism
from ase.data import chemical_symbols
from ase.geometry import complete_cell

from mdplugin.validation.case import Case
from mdplugin.validation.engine import BAROSTAT_FS, FRICTION_PER_FS, THERMOSTAT_FS
from mdplugin.validation.plan import EQUILIBRATION, REVERSAL, Segment
from mdplugin.validation.recorder import recording_steps

START_DATA, START_RESTART, END_RESTART = "start.data", "start.restart", "end.restart"
ENERGIES, SAMPLES, FRAMES, VELOCITIES = (
    "energies.txt",
    "samples.txt",
    "frames.lammpstrj",
    "velocities.lammpstrj",
)
DUMP_HEADER_LINES = 9  # of each frame
A_PER_PS = 1000 * units.fs  # ASE velocity -> Å/ps

_SETUP = """\
# {title}
# written by mdplugin validate; run it again here with: mdplugin lmp -in segment.in
{read}
pair_style      mace/quant threads {threads}
pair_coeff      * * "{model}" {elements}
neighbor        1.0 bin
neigh_modify    every 1 delay 0 check yes
timestep        {timestep_ps!r}
reset_timestep  0

"""
_READ_DATA = """\
units           metal
atom_style      atomic
boundary        {boundary}
read_data       start.data"""
_READ_RESTART = "read_restart    start.restart"

_RECORD = """
variable        step equal step
variable        picoseconds equal step*dt
variable        potential equal pe
variable        kinetic equal ke
variable        conserved equal econserve
variable        wall equal cpu
variable        kelvin equal temp
fix             energies all print 1 "${{step}} $(v_picoseconds:%.17g) $(v_potential:%.17g) $(v_kinetic:%.17g) \
$(v_conserved:%.17g) $(v_wall:%.6f)" file energies.txt screen no title \
"# step time_ps potential_eV kinetic_eV conserved_eV wall_s"
fix             explosion all halt 1 v_kelvin > {explosion_K!r} error hard

variable        pressure equal press
variable        volume equal vol
variable        px equal vcm(all,x)*mass(all)
variable        py equal vcm(all,y)*mass(all)
variable        pz equal vcm(all,z)*mass(all)
variable        lx equal angmom(all,x)
variable        ly equal angmom(all,y)
variable        lz equal angmom(all,z)
fix             samples all print {sample_every} "$(v_picoseconds:%.17g) $(v_pressure:%.17g) $(v_volume:%.17g) \
$(v_px:%.17g) $(v_py:%.17g) $(v_pz:%.17g) $(v_lx:%.17g) $(v_ly:%.17g) $(v_lz:%.17g)" file samples.txt screen no \
title "# time_ps pressure_bar volume_A3 momentum_amu_A_per_ps angular_momentum_amu_A2_per_ps"
dump            frames all custom {frame_every} frames.lammpstrj id xu yu zu
dump_modify     frames sort id format float %.17g
thermo          100
thermo_style    custom step time temp pe ke etotal press vol

"""
_VELOCITIES = """\
dump            velocities all custom {velocity_every} velocities.lammpstrj id vx vy vz
dump_modify     velocities sort id format float %.9g
"""
# its thermodynamic output needs the fixes that exchange energy, so integrators come before the recording
_INTEGRATORS = {
    EQUILIBRATION: """\
fix             integrate all nve
fix             thermostat all langevin {T!r} {T!r} {langevin_ps!r} {seed}
""",
    "nve": "fix             integrate all nve\n",
    "nvt": """\
fix             integrate all nve
fix             thermostat all temp/csvr {T!r} {T!r} {thermostat_ps!r} {seed}
""",
    "npt": """\
fix             integrate all npt temp {T!r} {T!r} {thermostat_ps!r} iso {P!r} {P!r} {barostat_ps!r}
""",
}
_INTEGRATORS[REVERSAL] = _INTEGRATORS["nve"]

_RUN = "run             {steps}\n"
_REVERSAL = """\
run             {steps}
variable        back_x atom -vx
variable        back_y atom -vy
variable        back_z atom -vz
velocity        all set v_back_x v_back_y v_back_z
run             {steps}
"""
_END = "write_restart   end.restart\n"


class Species:
    """LAMMPS's atom types of some atoms: one for each element and mass."""

    def __init__(self, atoms: ase.Atoms):
        kinds = list(zip(atoms.numbers.tolist(), atoms.get_masses().tolist(), strict=True))
        table = sorted(set(kinds))
        self.symbols = [chemical_symbols[number] for number, _ in table]
        self.masses = [mass for _, mass in table]
        self.types = [table.index(kind) + 1 for kind in kinds]


def write_segment(case: Case, atoms: ase.Atoms, segment: Segment, model: str, *, from_data: bool) -> str:
    """Input of one segment, from start.data or start.restart to end.restart."""
    sample_every, frame_every = recording_steps(case, segment)
    numbers = {
        "T": float(case.temperature_K),
        "P": float(case.pressure_bar),
        "langevin_ps": 1 / (1000 * FRICTION_PER_FS),
        "thermostat_ps": THERMOSTAT_FS / 1000,
        "barostat_ps": BAROSTAT_FS / 1000,
        "seed": segment.seed + 1,  # LAMMPS wants it positive
        "steps": segment.steps,
    }
    boundary = " ".join("p" if periodic else "s" for periodic in atoms.pbc)
    text = _SETUP.format(
        title=f"{segment.phase} of {segment.potential}, {case.ensemble} case, steps {segment.offset} to "
        f"{segment.offset + segment.steps}",
        read=_READ_DATA.format(boundary=boundary) if from_data else _READ_RESTART,
        threads=case.threads,
        model=model,
        elements=" ".join(Species(atoms).symbols),
        timestep_ps=segment.timestep_fs / 1000,
    )
    text += _INTEGRATORS[segment.phase].format(**numbers)
    text += _RECORD.format(
        explosion_K=case.limit_table["explosion_K"].value, sample_every=sample_every, frame_every=frame_every
    )
    if segment.velocity_every:
        text += _VELOCITIES.format(velocity_every=segment.velocity_every)
    text += (_REVERSAL if segment.phase == REVERSAL else _RUN).format(**numbers)
    if segment.phase == EQUILIBRATION:
        text += "velocity        all zero linear\n"
    return text + _END


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
