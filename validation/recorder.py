"""States of ASE atoms, step by step -> `Series`."""

import ase
import numpy as np

from mdplugin.validation.case import Case
from mdplugin.validation.observables.pressure import find_pressure
from mdplugin.validation.plan import EQUILIBRATION, REVERSAL, Segment, sampling_steps
from mdplugin.validation.series import Failure, Series
from mdplugin.validation.spectrum import power_spectra


class Recorder:
    """Collects what a segment leaves.

    Attributes:
        degrees_of_freedom: of the ensemble.
        has_bath: whether something exchanges energy with the system that only the dynamics can count.
        last_energies: potential and kinetic, eV.
    """

    def __init__(self, case: Case, segment: Segment, degrees_of_freedom: int):
        self.degrees_of_freedom = degrees_of_freedom
        self.has_bath = segment.phase in (EQUILIBRATION, "npt")
        self.last_energies = (np.nan, np.nan)
        self._timestep_fs = segment.timestep_fs
        self._total = segment.steps * (2 if segment.phase == REVERSAL else 1)
        self._sample_every, self._frame_every = recording_steps(case, segment)
        self._velocity_every = segment.velocity_every
        self._energies, self._samples, self._frames, self._velocities = [], [], [], []

    def record(self, step: int, atoms: ase.Atoms, heat_eV: float, wall_s: float) -> None:
        """Take the state after `step` steps; `heat_eV` is what the thermostat has put in so far."""
        potential, kinetic = atoms.get_potential_energy(), atoms.get_kinetic_energy()
        self.last_energies = (potential, kinetic)
        time_ps = step * self._timestep_fs / 1000
        self._energies.append((time_ps, potential, kinetic, potential + kinetic - heat_eV, wall_s))
        if step % self._sample_every == 0:
            self._samples.append((time_ps, *_pressure_and_volume(atoms), *_momenta(atoms)))
        if step % self._frame_every == 0:
            self._frames.append((time_ps, atoms.positions.copy(), atoms.cell.array.copy()))
        if self._velocity_every and step % self._velocity_every == 0 and step < self._total:
            self._velocities.append(atoms.get_velocities())

    def finish(self, atoms: ase.Atoms, failure: Failure | None) -> Series:
        """The series so far."""
        samples = np.array(self._samples, dtype=np.float64).reshape(-1, 9)
        times, positions, cells = zip(*self._frames, strict=True) if self._frames else ((), (), ())
        n_atoms = len(atoms)
        frequency, spectrum = power_spectra(
            np.array(self._velocities).reshape(-1, n_atoms, 3),
            atoms.numbers,
            self._timestep_fs * self._velocity_every,
        )
        return Series(
            *np.array(self._energies, dtype=np.float64).reshape(-1, 5).T,
            n_atoms=n_atoms,
            degrees_of_freedom=self.degrees_of_freedom,
            sample_time_ps=samples[:, 0],
            pressure_bar=samples[:, 1],
            volume_A3=samples[:, 2],
            momentum=samples[:, 3:6],
            angular_momentum=samples[:, 6:9],
            frame_time_ps=np.array(times),
            positions=np.array(positions).reshape(-1, n_atoms, 3),
            cells=np.array(cells).reshape(-1, 3, 3),
            spectrum=spectrum,
            frequency_per_cm=frequency,
            failure=failure,
        )


def recording_steps(case: Case, segment: Segment) -> tuple[int, int]:
    """Steps between samples and between frames; a reversal keeps its first and last frame alone."""
    if segment.phase == REVERSAL:
        return segment.steps, 2 * segment.steps
    return sampling_steps(case, segment.timestep_fs)


def _pressure_and_volume(atoms: ase.Atoms) -> tuple[float, float]:
    """bar and Å^3; NaN where there is no volume or the calculator has no stress."""
    if not atoms.pbc.all():
        return np.nan, np.nan
    return find_pressure(atoms, include_ideal_gas=True), atoms.get_volume()


def _momenta(atoms: ase.Atoms) -> tuple[float, ...]:
    relative = atoms.positions - atoms.get_center_of_mass()
    momenta = atoms.get_momenta()
    return (*momenta.sum(axis=0), *np.cross(relative, momenta).sum(axis=0))
