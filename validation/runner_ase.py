"""Case -> runs in ASE: Langevin equilibration, then velocity Verlet, with any ASE calculators."""

import time
from collections.abc import Callable
from pathlib import Path

import ase
import ase.io
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io.extxyz import write_extxyz
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.verlet import VelocityVerlet

from mdplugin.errors import MDPluginError
from mdplugin.validation.engine import Engine
from mdplugin.validation.series import Failure, Run, describe_collapse
from mdplugin.validation.systems import stop_drifting

FRICTION_PER_FS = 0.02  # relaxes in 50 fs: equilibration, not dynamics


class AseEngine(Engine):
    """Runs any ASE calculators; `start` is the state from which every NVE run begins."""

    def __post_init__(self):
        self.start = self.atoms

    def equilibrate(self, label: str) -> Failure | None:
        """Langevin dynamics from the initial state; sets `start`, without total momentum, unless it fails."""
        if self.case.equilibration_steps == 0:
            return None
        self.progress.begin("equilibration")
        atoms = self._load(self.atoms, label)
        dynamics = Langevin(
            atoms,
            self.case.timestep_fs * units.fs,
            temperature_K=self.case.temperature_K,
            friction=FRICTION_PER_FS / units.fs,
            fixcm=False,
            rng=np.random.default_rng([self.case.seed, 1]),  # not the velocities' stream
        )
        run = _follow(dynamics, self.case.equilibration_steps, lambda step, _: self.progress.reach(step))
        if run.failure is None:
            stop_drifting(atoms)
            self.start = atoms.copy()
        return run.failure

    def run(self, label: str) -> Run:
        """Velocity Verlet from `start`, with a frame in LABEL.xyz every `trajectory_every` steps."""
        self.progress.begin(label)
        atoms = self._load(self.start, label)
        dynamics = VelocityVerlet(atoms, self.case.timestep_fs * units.fs)
        with self._trajectory(label).open("w") as file:

            def watch(step: int, atoms: ase.Atoms) -> None:
                self.progress.reach(step)
                if step % self.case.trajectory_every == 0:
                    write_extxyz(file, _snapshot(atoms, step * self.case.timestep_fs))

            return _follow(dynamics, self.case.steps, watch)

    def frames(self, label: str) -> list[ase.Atoms]:
        """The frames that `run` wrote."""
        return ase.io.read(self._trajectory(label), ":", format="extxyz")

    def _trajectory(self, label: str) -> Path:
        return self.directory / f"{label}.xyz"

    def _load(self, atoms: ase.Atoms, label: str) -> ase.Atoms:
        loaded = atoms.copy()
        loaded.calc = self.potentials[label].calculator
        return loaded


def _snapshot(atoms: ase.Atoms, time_fs: float) -> ase.Atoms:
    frame = atoms.copy()
    frame.info = {"time_fs": time_fs}
    frame.calc = SinglePointCalculator(frame, energy=atoms.get_potential_energy(), forces=atoms.get_forces())
    return frame


def _follow(dynamics: MolecularDynamics, steps: int, watch: Callable[[int, ase.Atoms], None]) -> Run:
    """Sample every step from 0 to `steps`; stop at the first state that is not worth another."""
    atoms, rows, failure = dynamics.atoms, [], None
    states = dynamics.irun(steps)
    timestep_ps = dynamics.dt / (1000 * units.fs)
    for step in range(steps + 1):
        before = time.perf_counter()
        try:
            next(states)
        except (MDPluginError, FloatingPointError) as error:  # the calculator refuses what the dynamics made
            failure = Failure(step, str(error))
            break
        wall = time.perf_counter() - before
        rows.append((step * timestep_ps, atoms.get_potential_energy(), atoms.get_kinetic_energy(), wall))
        if reason := describe_collapse(rows[-1][1], rows[-1][2], len(atoms)):
            failure = Failure(step, reason)
            break
        watch(step, atoms)
    columns = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return Run(*columns, n_atoms=len(atoms), failure=failure)
