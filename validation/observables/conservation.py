"""Energy, momentum, and reversibility: what Newton's equations conserve."""

import ase
import numpy as np
from ase import units

from mdplugin.validation.series import Series
from mdplugin.validation.statistics import (
    UNKNOWN,
    Estimate,
    detrend,
    estimate_mean,
    fit_slope,
    scale,
    take_one,
)

SHORT_PS = 1.0


def measure_drift(series: Series) -> Estimate:
    """Slope of the conserved quantity, meV/atom/ps: E in nve, E less the thermostat's heat in nvt.

    In less than SHORT_PS what the integrator's error does may be one swing, whose size no block tells: a line through a
    swing of rms s over the time T has a slope of s sqrt(12) / T, which is added to the error.
    """
    values = series.conserved_meV_per_atom
    if not np.isfinite(values).all():
        return UNKNOWN
    slope = fit_slope(series.time_ps, values)
    if series.length_ps >= SHORT_PS:
        return slope
    swing = np.sqrt(12) * float(np.std(detrend(series.time_ps, values))) / series.length_ps
    return Estimate(slope.value, float(np.hypot(slope.error, swing)), slope.dof)


def measure_drift_ratio(series: Series) -> Estimate:
    """Slope of E times T / std(E_kin), both per atom (mlipaudit, there without its sign)."""
    drift = fit_slope(series.time_ps, series.total_meV_per_atom)
    thermal = 1000 * float(np.std(series.kinetic_eV)) / series.n_atoms
    if not thermal > 0:
        return UNKNOWN
    return scale(drift, series.length_ps / thermal)


N_WINDOWS = 16  # of the time in which fluctuations are measured: 125 steps each


def measure_fluctuation(series: Series, length_ps: float) -> Estimate:
    """Rms of E in meV/atom over the first `length_ps`, about a line in each of N_WINDOWS windows.

    Only there, since runs of one replica start from one state and have not parted yet: velocity Verlet's error goes with
    the energy in the stiffest vibrations, which no two later picoseconds of a molecule share (a factor of 3 between
    replicas of 3BPA). What noise adds is the same at all times. In short windows its random walk is many independent
    pieces, in one long window a single one; what grows is the drift's.
    """
    first = series.time_ps <= length_ps * (1 + 1e-9)
    time, energy = series.time_ps[first], series.total_meV_per_atom[first]
    n_windows = max(1, round(N_WINDOWS * time[-1] / length_ps))
    pieces = zip(np.array_split(time, n_windows), np.array_split(energy, n_windows), strict=True)
    return root(estimate_mean(np.concatenate([detrend(*piece) for piece in pieces]) ** 2))


def root(square: Estimate) -> Estimate:
    """The square root of a mean square, with its error to first order."""
    value = np.sqrt(square.value)
    return Estimate(float(value), float(square.error / (2 * value)) if value > 0 else 0.0, square.dof)


def measure_exponent(fine: Series, coarse: Series, length_ps: float) -> Estimate:
    """p of rms(E) ~ dt^p from runs with two timesteps from one state; 2 for velocity Verlet on a smooth surface."""
    steps = [float(series.time_ps[1]) for series in (fine, coarse)]
    first, second = (measure_fluctuation(series, length_ps) for series in (fine, coarse))
    if not (first.value > 0 and second.value > 0):
        return UNKNOWN
    log = np.log(steps[1] / steps[0])
    error = np.hypot(first.error / first.value, second.error / second.value) / log
    return Estimate(float(np.log(second.value / first.value) / log), float(error), min(first.dof, second.dof))


def measure_momentum(series: Series, atoms: ase.Atoms, temperature_K: float) -> Estimate:
    """Largest |P - P(0)| / sqrt(3 M kT); its error is the scatter of replicas."""
    change = np.linalg.norm(series.momentum - series.momentum[:1], axis=1).max(initial=0.0)
    return take_one(change / np.sqrt(3 * atoms.get_masses().sum() * units.kB * temperature_K))


def measure_angular_momentum(series: Series, atoms: ase.Atoms, temperature_K: float) -> Estimate:
    """Largest |L - L(0)| / sqrt(kT sum m r^2); only without periods is L conserved."""
    change = np.linalg.norm(series.angular_momentum - series.angular_momentum[:1], axis=1).max(initial=0.0)
    relative = atoms.positions - atoms.get_center_of_mass()
    inertia = float((atoms.get_masses()[:, None] * relative**2).sum())
    return take_one(change / np.sqrt(units.kB * temperature_K * inertia))


def measure_reversal(series: Series) -> Estimate:
    """Rms distance in Å from the start after a run forward and, with velocities reversed, back."""
    if len(series.positions) < 2:
        return UNKNOWN
    return take_one(np.sqrt(((series.positions[-1] - series.positions[0]) ** 2).sum(axis=1).mean()))
