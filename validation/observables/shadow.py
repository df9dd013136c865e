"""The candidate against the float64 reference on frames of the candidate's own runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase import units
from ase.calculators.calculator import Calculator

from mdplugin.validation.observables.conservation import root
from mdplugin.validation.statistics import Estimate, estimate_mean_of_few, fit_slope_to_few


@dataclass(frozen=True)
class Shadow:
    """Differences frame by frame.

    Attributes:
        n_atoms: of a frame.
        time_ps: (n_frames,).
        energy_meV_per_atom: (n_frames,) candidate less reference.
        force_ms: (n_frames,) mean square of the force differences' components, (meV/Å)^2.
        force_max_meV_per_A: largest component of all frames.
        force_slope: (n_frames,) regression of the candidate's forces on the reference's.
    """

    n_atoms: int
    time_ps: np.ndarray
    energy_meV_per_atom: np.ndarray
    force_ms: np.ndarray
    force_max_meV_per_A: float
    force_slope: np.ndarray


def compare_frames(
    frames: Sequence[ase.Atoms], time_ps: Sequence[float], candidate: Calculator, reference: Calculator
) -> Shadow:
    """Evaluate both potentials on the frames."""
    energies, squares, slopes, largest = [], [], [], 0.0
    for frame in frames:
        (energy, force), (true_energy, true_force) = (
            _evaluate(frame, each) for each in (candidate, reference)
        )
        difference = 1000 * (force - true_force)
        energies.append(1000 * (energy - true_energy) / len(frame))
        squares.append(np.mean(difference**2))
        largest = max(largest, float(np.abs(difference).max()))
        scale = float((true_force**2).sum())
        slopes.append(float((force * true_force).sum()) / scale if scale > 0 else np.nan)
    return Shadow(
        len(frames[0]), np.asarray(time_ps), np.array(energies), np.array(squares), largest, np.array(slopes)
    )


def _evaluate(frame: ase.Atoms, calculator: Calculator) -> tuple[float, np.ndarray]:
    atoms = frame.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces()


def measure_shadow(shadow: Shadow, temperature_K: float) -> dict[str, Estimate]:
    """Force error (rms, meV/Å), its regression slope, scatter and trend (per ps) of the energy difference.

    The scatter is std(dE) / (sqrt(N) kT) of the whole system's dE. To first order in dE an average <A> moves by
    cov(A, dE) / kT (Zwanzig, J. Chem. Phys. 22, 1420 (1954)), that is by at most std(A) std(dE) / kT.
    """
    energy = shadow.energy_meV_per_atom
    per_root_atom = energy * np.sqrt(shadow.n_atoms) / (1000 * units.kB * temperature_K)
    return {
        "force_rmse": root(estimate_mean_of_few(shadow.force_ms)),
        "force_slope": estimate_mean_of_few(shadow.force_slope),
        "shadow_energy": root(estimate_mean_of_few((per_root_atom - per_root_atom.mean()) ** 2)),
        "shadow_trend": fit_slope_to_few(shadow.time_ps, energy),
    }
