"""The candidate against the float64 reference on frames of the candidate's own runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import Calculator

from mdplugin.validation.observables.conservation import root
from mdplugin.validation.observables.pressure import find_pressure
from mdplugin.validation.observables.structure import Rdf
from mdplugin.validation.statistics import Estimate, estimate_mean_of_few, fit_slope_to_few


@dataclass(frozen=True)
class Shadow:
    """Differences frame by frame.

    Attributes:
        n_atoms: of a frame.
        time_ps: (n_frames,).
        energy_meV_per_atom: (n_frames,) candidate less reference.
        force_ms: (n_frames,) mean square of the force differences' components, (meV/Å)^2.
        force_slope: (n_frames,) regression of the candidate's forces on the reference's.
        temperature_K: of the runs.
        pressure_bar: (n_frames, 2) of the virials of candidate and reference; NaN if not asked for.
        volume_A3: (n_frames,). mass_amu: of a frame.
        rdfs: pair -> g(r) with a block for each frame (reweighting.py).
    """

    n_atoms: int
    time_ps: np.ndarray
    energy_meV_per_atom: np.ndarray
    force_ms: np.ndarray
    force_slope: np.ndarray
    temperature_K: float
    pressure_bar: np.ndarray
    volume_A3: np.ndarray
    mass_amu: float
    rdfs: dict[str, Rdf]

    @property
    def log_weights(self) -> np.ndarray:
        """(n_frames,) energy difference of the whole, candidate less reference, over kT."""
        return self.energy_meV_per_atom * self.n_atoms / (1000 * units.kB * self.temperature_K)


def compare_frames(
    frames: Sequence[ase.Atoms],
    time_ps: Sequence[float],
    candidate: Calculator,
    reference: Calculator,
    temperature_K: float,
    *,
    with_pressure: bool = False,
    rdfs: Sequence[Rdf] = (),
) -> Shadow:
    """Evaluate both potentials on the frames, of which `rdfs` have a block each."""
    energies, squares, slopes, pressures = [], [], [], []
    for frame in frames:
        (energy, force, pressure), (true_energy, true_force, true_pressure) = (
            _evaluate(frame, each, with_pressure) for each in (candidate, reference)
        )
        difference = 1000 * (force - true_force)
        energies.append(1000 * (energy - true_energy) / len(frame))
        squares.append(np.mean(difference**2))
        scale = float((true_force**2).sum())
        slopes.append(float((force * true_force).sum()) / scale if scale > 0 else np.nan)
        pressures.append([pressure, true_pressure])
    return Shadow(
        n_atoms=len(frames[0]),
        time_ps=np.asarray(time_ps),
        energy_meV_per_atom=np.array(energies),
        force_ms=np.array(squares),
        force_slope=np.array(slopes),
        temperature_K=temperature_K,
        pressure_bar=np.array(pressures),
        volume_A3=np.array([frame.cell.volume for frame in frames]),
        mass_amu=float(frames[0].get_masses().sum()),
        rdfs={rdf.pair: rdf for rdf in rdfs},
    )


def _evaluate(
    frame: ase.Atoms, calculator: Calculator, with_pressure: bool
) -> tuple[float, np.ndarray, float]:
    atoms = frame.copy()
    atoms.calc = calculator
    pressure = find_pressure(atoms) if with_pressure else np.nan
    return atoms.get_potential_energy(), atoms.get_forces(), pressure


def measure_shadow(shadow: Shadow) -> dict[str, Estimate]:
    """Force error (rms, meV/Å), its regression slope, scatter and trend (per ps) of the energy difference.

    The scatter is std(dE) / (sqrt(N) kT) of the whole system's dE. To first order in dE an average <A> moves by
    cov(A, dE) / kT (Zwanzig, J. Chem. Phys. 22, 1420 (1954)), that is by at most std(A) std(dE) / kT.
    """
    energy = shadow.energy_meV_per_atom
    per_root_atom = shadow.log_weights / np.sqrt(shadow.n_atoms)
    return {
        "force_rmse": root(estimate_mean_of_few(shadow.force_ms)),
        "force_slope": estimate_mean_of_few(shadow.force_slope),
        "shadow_energy": root(estimate_mean_of_few((per_root_atom - per_root_atom.mean()) ** 2)),
        "shadow_trend": fit_slope_to_few(shadow.time_ps, energy),
    }
