"""Temperature, its distribution, pressure and volume."""

import numpy as np
from ase import units
from scipy import stats

from mdplugin.validation.observables.conservation import root
from mdplugin.validation.series import Series
from mdplugin.validation.statistics import (
    UNKNOWN,
    Estimate,
    estimate_mean,
    fit_slope_to_few,
    integrated_autocorrelation,
    scale,
    take_one,
)

MAX_SAMPLES = 4096  # for the correlation time
MIN_PER_BIN, MAX_BINS = 5, 12  # expected counts of a chi-square test (Cochran)
AMU_PER_A3_IN_G_PER_CM3 = 1.66053906660


def measure_temperature(series: Series) -> Estimate:
    """Mean kinetic temperature, K."""
    return estimate_mean(series.temperature_K)


def measure_peak_temperature(series: Series) -> Estimate:
    """Highest kinetic temperature of the run, K."""
    return take_one(series.temperature_K.max())


def measure_kinetic_variance(series: Series, temperature_K: float) -> Estimate:
    """<(K - <K>)^2> over the canonical f/2 (kT)^2, with <K> = f/2 kT of the thermostat's temperature."""
    half, thermal = series.degrees_of_freedom / 2, units.kB * temperature_K
    return estimate_mean((series.kinetic_eV / thermal - half) ** 2 / half)


def test_kinetic_distribution(series: Series, temperature_K: float) -> float:
    """p-value of the chi-square test that K / kT follows the gamma distribution of shape f/2; NaN of few samples.

    Every second correlation time a sample is taken; bins have equal probability.
    """
    samples = decorrelate(series.kinetic_eV) / (units.kB * temperature_K)
    n_bins = min(MAX_BINS, len(samples) // MIN_PER_BIN)
    if n_bins < 4:
        return np.nan
    shape = series.degrees_of_freedom / 2
    edges = stats.gamma.ppf(np.linspace(0, 1, n_bins + 1), shape)
    counts, _ = np.histogram(np.clip(samples, edges[0], 1e300), edges)
    return float(stats.chisquare(counts).pvalue)


def decorrelate(values: np.ndarray) -> np.ndarray:
    """Values two correlation times apart: of themselves, and of their squares, where an oscillation hides what is slow."""
    stride = max(1, len(values) // MAX_SAMPLES)
    thinned = values[::stride]
    times = (integrated_autocorrelation(thinned, power=power) for power in (1, 2))
    return thinned[:: int(np.ceil(2 * max(times)))]


def measure_density(series: Series, mass_amu: float) -> Estimate:
    """Mean mass density, g/cm^3."""
    return scale(estimate_mean(mass_amu / series.volume_A3), AMU_PER_A3_IN_G_PER_CM3)


def measure_pressure(series: Series) -> Estimate:
    """Mean pressure, bar."""
    return estimate_mean(series.pressure_bar)


def measure_volume_trend(series: Series) -> Estimate:
    """Change of the volume along the run's least-squares line, over its mean."""
    volume, time = series.volume_A3, series.sample_time_ps
    return scale(fit_slope_to_few(time, volume), float((time[-1] - time[0]) / volume.mean()))


def measure_volume_fluctuation(series: Series) -> Estimate:
    """std(V), Å^3."""
    volume = series.volume_A3
    if not np.isfinite(volume).all() or len(volume) < 2:
        return UNKNOWN
    return root(estimate_mean((volume - volume.mean()) ** 2))
