"""The candidate against the float64 reference on frames of the candidate's own runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase.calculators.calculator import Calculator
from scipy import stats

from mdplugin.validation.observables.conservation import mean_of_independent, root
from mdplugin.validation.statistics import UNKNOWN, Estimate


@dataclass(frozen=True)
class Shadow:
    """Differences frame by frame.

    Attributes:
        time_ps: (n_frames,).
        energy_meV_per_atom: (n_frames,) candidate less reference.
        force_ms: (n_frames,) mean square of the force differences' components, (meV/Å)^2.
        force_max_meV_per_A: largest component of all frames.
        force_slope: (n_frames,) regression of the candidate's forces on the reference's.
    """

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
    return Shadow(np.asarray(time_ps), np.array(energies), np.array(squares), largest, np.array(slopes))


def _evaluate(frame: ase.Atoms, calculator: Calculator) -> tuple[float, np.ndarray]:
    atoms = frame.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces()


def measure_shadow(shadow: Shadow) -> dict[str, Estimate]:
    """Force error (rms, meV/Å), its regression slope, scatter of the energy difference, and the difference's trend."""
    energy = shadow.energy_meV_per_atom
    trend = UNKNOWN
    if len(energy) >= 4 and np.isfinite(energy).all():
        fit = stats.linregress(shadow.time_ps, energy)
        trend = Estimate(float(fit.slope), float(fit.stderr), len(energy) - 2)
    return {
        "force_rmse": root(mean_of_independent(shadow.force_ms)),
        "force_slope": mean_of_independent(shadow.force_slope),
        "shadow_energy": root(mean_of_independent((energy - energy.mean()) ** 2)),
        "shadow_trend": trend,
    }
