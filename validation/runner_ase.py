"""Segments in ASE, with any ASE calculators: Langevin, velocity Verlet, Bussi's thermostat, BAOAB at constant pressure."""

import time
from pathlib import Path

import ase
import numpy as np
from ase import units
from ase.md.bussi import Bussi
from ase.md.langevin import Langevin
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from mdplugin.errors import MDPluginError
from mdplugin.threads import torch_threads
from mdplugin.validation.engine import BAROSTAT_FS, FRICTION_PER_FS, THERMOSTAT_FS, Engine
from mdplugin.validation.plan import EQUILIBRATION, REVERSAL, Segment
from mdplugin.validation.recorder import Recorder
from mdplugin.validation.series import Failure, Series, describe_collapse, is_whole
from mdplugin.validation.systems import count_degrees_of_freedom, stop_drifting

# of a calculator, where dynamics made what cannot be evaluated
REFUSALS = (MDPluginError, FloatingPointError)


class AseEngine(Engine):
    """States are .npz files: positions, velocities, cell, momentum of the barostat."""

    suffix = ".npz"

    def write_start(self, state: Path) -> None:
        """The initial atoms at rest as a whole."""
        _write_state(state, self.atoms, 0.0)

    def is_whole(self, state: Path) -> bool:
        """See `Engine.is_whole`."""
        return is_whole(state)

    def advance(self, segment: Segment, start: Path, scratch: Path, end: Path) -> Series:
        """Run a segment; see `Engine.advance`."""
        # once for all steps: changing torch's number at every evaluation costs more than the evaluation
        with torch_threads(self.case.threads):
            return self._advance(segment, start, end)

    def _advance(self, segment: Segment, start: Path, end: Path) -> Series:
        atoms, barostat = self._read_state(start)
        atoms.calc = self.potentials[segment.potential].make_calculator()
        recorder = Recorder(self.case, segment, self._degrees_of_freedom(segment))
        try:
            dynamics = self._make_dynamics(atoms, segment, barostat)
        except REFUSALS as error:  # BAOAB evaluates the forces at once
            return recorder.finish(atoms, Failure(0, str(error)))
        failure = self._follow(dynamics, segment.steps, recorder, first=0)
        if segment.phase == REVERSAL and failure is None:
            atoms.set_momenta(-atoms.get_momenta())
            failure = self._follow(dynamics, segment.steps, recorder, first=segment.steps)
        if segment.phase == EQUILIBRATION:
            stop_drifting(atoms)
        if failure is None:
            _write_state(end, atoms, getattr(dynamics, "p_eps", 0.0))
        return recorder.finish(atoms, failure)

    def _degrees_of_freedom(self, segment: Segment) -> int:
        # BAOAB's noise moves the centre of mass too
        moving = segment.phase in (EQUILIBRATION, "npt")
        return 3 * len(self.atoms) if moving else count_degrees_of_freedom(self.atoms)

    def _make_dynamics(self, atoms: ase.Atoms, segment: Segment, barostat: float) -> MolecularDynamics:
        timestep, temperature = segment.timestep_fs * units.fs, self.case.temperature_K
        rng = np.random.default_rng(segment.seed)
        if segment.phase == EQUILIBRATION:
            friction = FRICTION_PER_FS / units.fs
            return Langevin(
                atoms, timestep, temperature_K=temperature, friction=friction, fixcm=False, rng=rng
            )
        if segment.phase == "nvt":
            dynamics = Bussi(atoms, timestep, temperature, THERMOSTAT_FS * units.fs, rng=rng)
            # ASE counts 3 N; without total momentum it is fewer, as in LAMMPS
            dynamics.ndof = count_degrees_of_freedom(atoms)
            dynamics.target_kinetic_energy = 0.5 * dynamics.ndof * units.kB * temperature
            return dynamics
        if segment.phase == "npt":
            dynamics = LangevinBAOAB(
                atoms,
                timestep,
                temperature_K=temperature,
                externalstress=-self.case.pressure_bar * units.bar,
                hydrostatic=True,
                T_tau=THERMOSTAT_FS * units.fs,
                P_tau=BAROSTAT_FS * units.fs,
                P_mass=_barostat_mass(atoms, temperature),
                rng=rng,
            )
            dynamics.p_eps = barostat
            return dynamics
        return VelocityVerlet(atoms, timestep)

    def _follow(
        self, dynamics: MolecularDynamics, steps: int, recorder: Recorder, first: int
    ) -> Failure | None:
        """Sample every step from `first` on; stop at the first state that is not worth another."""
        atoms, states = dynamics.atoms, dynamics.irun(steps)
        degrees_of_freedom, explosion_K = recorder.degrees_of_freedom, self.explosion_K
        for step in range(first, first + steps + 1):
            before = time.perf_counter()
            try:
                next(states)
                heat = getattr(dynamics, "transferred_energy", np.nan if recorder.has_bath else 0.0)
                if step > first or first == 0:  # the turning point is known already
                    recorder.record(step, atoms, heat, time.perf_counter() - before)
            except REFUSALS as error:
                return Failure(step, str(error))
            potential, kinetic = recorder.last_energies
            if reason := describe_collapse(potential, kinetic, degrees_of_freedom, explosion_K):
                return Failure(step, reason)
            self.reach(step)
        return None

    def _read_state(self, path: Path) -> tuple[ase.Atoms, float]:
        atoms = self.atoms.copy()
        with np.load(path) as arrays:
            atoms.set_cell(arrays["cell"])
            atoms.set_positions(arrays["positions"])
            atoms.set_momenta(arrays["momenta"])
            return atoms, float(arrays["barostat"])


def _write_state(path: Path, atoms: ase.Atoms, barostat: float) -> None:
    with path.open("wb") as file:
        np.savez(
            file,
            positions=atoms.positions,
            momenta=atoms.get_momenta(),
            cell=atoms.cell.array,
            barostat=np.array(barostat),
        )


def _barostat_mass(atoms: ase.Atoms, temperature_K: float) -> float:
    """W = (3 N + 3) kT tau^2 (Martyna, Tuckerman, Tobias, Klein, Mol. Phys. 87, 1117 (1996)), as in LAMMPS."""
    return (3 * len(atoms) + 3) * units.kB * temperature_K * (BAROSTAT_FS * units.fs) ** 2
