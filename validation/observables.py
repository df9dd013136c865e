"""Runs -> the numbers that a verdict is made from, each with its unit in its name."""

from collections.abc import Sequence
from dataclasses import dataclass

import ase
import numpy as np
from ase.calculators.calculator import Calculator

from mdplugin.validation.drift import Slope, detrend, fit_slope
from mdplugin.validation.series import Failure, Run


@dataclass(frozen=True)
class RunMeasures:
    """Energy conservation of one run.

    Attributes:
        steps: steps done.
        length_ps: their time.
        failure: where the run broke off, or None; then the numbers below are NaN.
        drift: slope of the total energy, meV/atom/ps.
        drift_ratio: |drift| x length / std of the kinetic energy per atom.
        rms_meV_per_atom: fluctuation of the total energy about the fitted line.
        temperature_K: mean.
        ms_per_step: median.
    """

    steps: int
    length_ps: float
    failure: Failure | None
    drift: Slope
    drift_ratio: float
    rms_meV_per_atom: float
    temperature_K: float
    ms_per_step: float


@dataclass(frozen=True)
class Shadow:
    """The candidate against the float64 reference on frames of the candidate's own trajectory.

    Attributes:
        n_frames: frames compared.
        force_rmse_meV_per_A: over all components.
        force_max_meV_per_A: largest component.
        force_scale_meV_per_A: rms of the reference's forces.
        energy_rmse_meV_per_atom: of the energy difference about its mean over the frames.
        energy_max_meV_per_atom: largest energy difference.
    """

    n_frames: int
    force_rmse_meV_per_A: float
    force_max_meV_per_A: float
    force_scale_meV_per_A: float
    energy_rmse_meV_per_atom: float
    energy_max_meV_per_atom: float


@dataclass(frozen=True)
class NveMeasures:
    """All that the verdict of an NVE case needs.

    Attributes:
        equilibration_failure: where the candidate's equilibration broke off, or None.
        shadow: None where the candidate's run failed.
    """

    candidate: RunMeasures
    reference: RunMeasures
    shadow: Shadow | None
    equilibration_failure: Failure | None


def measure_run(run: Run) -> RunMeasures:
    """Drift, ratio, fluctuation, temperature and speed of one run."""
    wall_ms = 1000 * float(np.median(run.wall_s[1:])) if len(run.wall_s) > 1 else np.nan
    steps = max(0, len(run.time_ps) - 1)
    length = float(run.time_ps[-1]) if steps else 0.0
    if run.failure is not None:
        return RunMeasures(
            steps, length, run.failure, Slope(np.nan, np.nan, 1), np.nan, np.nan, np.nan, wall_ms
        )
    energy = run.total_meV_per_atom
    drift = fit_slope(run.time_ps, energy)
    thermal = 1000 * float(np.std(run.kinetic_eV)) / run.n_atoms
    return RunMeasures(
        steps=steps,
        length_ps=length,
        failure=None,
        drift=drift,
        drift_ratio=abs(drift.value) * length / thermal if thermal > 0 else np.nan,
        rms_meV_per_atom=float(np.std(detrend(run.time_ps, energy))),
        temperature_K=float(np.mean(run.temperature_K)),
        ms_per_step=wall_ms,
    )


def measure_shadow(frames: Sequence[ase.Atoms], candidate: Calculator, reference: Calculator) -> Shadow:
    """Differences of forces and energies on `frames` (at least one)."""
    forces, scales, energies = [], [], []
    for frame in frames:
        (energy, force), (true_energy, true_force) = (
            _evaluate(frame, each) for each in (candidate, reference)
        )
        forces.append(1000 * (force - true_force).ravel())
        scales.append(1000 * true_force.ravel())
        energies.append(1000 * (energy - true_energy) / len(frame))
    difference, energy = np.concatenate(forces), np.array(energies)
    return Shadow(
        n_frames=len(energies),
        force_rmse_meV_per_A=float(np.sqrt(np.mean(difference**2))),
        force_max_meV_per_A=float(np.max(np.abs(difference))),
        force_scale_meV_per_A=float(np.sqrt(np.mean(np.concatenate(scales) ** 2))),
        energy_rmse_meV_per_atom=float(np.std(energy)),
        energy_max_meV_per_atom=float(np.max(np.abs(energy))),
    )


def _evaluate(frame: ase.Atoms, calculator: Calculator) -> tuple[float, np.ndarray]:
    atoms = frame.copy()
    atoms.calc = calculator
    return atoms.get_potential_energy(), atoms.get_forces()
