"""Time series -> slope with a standard error that holds for correlated data.

Regression on block means: the series is cut into B blocks longer than its correlation time tau; their
means are nearly independent, so ordinary least squares and Student's t with B - 2 degrees of freedom apply
(blocking: Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989); batch means: Law and Kelton).

Newey-West errors were tried first and cover too little on series this short: with AR(1) noise of
rho = 0.97 and 1000 samples a nominal 95 % interval covered 72 to 86 %, block means 93 to 95 %.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

N_COARSE = 64  # averaging to so many points removes bond vibrations, whose anticorrelation hides slow modes
BLOCK_TAUS = 5  # neighbouring means of blocks of 5 tau correlate by less than 0.1
MIN_BLOCKS, MAX_BLOCKS = 4, 12
MIN_SAMPLES = 4 * N_COARSE


@dataclass(frozen=True)
class Slope:
    """A slope and its standard error, in units of values per unit of time.

    Attributes:
        value: least-squares slope of the block means.
        error: its standard error.
        dof: degrees of freedom of the error, number of blocks - 2.
    """

    value: float
    error: float
    dof: int


def fit_slope(time: np.ndarray, values: np.ndarray) -> Slope:
    """Slope of `values` (n,) against `time` (n,), equally spaced.

    Raises:
        ValueError: fewer than MIN_SAMPLES values, or one is not finite.
    """
    if len(values) < MIN_SAMPLES or not np.isfinite(values).all():
        raise ValueError(f"expected at least {MIN_SAMPLES} finite values, got {len(values)}")
    coarse_time, coarse = block_means(time, N_COARSE), block_means(values, N_COARSE)
    tau = integrated_autocorrelation(detrend(coarse_time, coarse))
    n_blocks = int(np.clip(N_COARSE / (BLOCK_TAUS * tau), MIN_BLOCKS, MAX_BLOCKS))
    fit = stats.linregress(block_means(time, n_blocks), block_means(values, n_blocks))
    return Slope(float(fit.slope), float(fit.stderr), n_blocks - 2)


def block_means(values: np.ndarray, n_blocks: int) -> np.ndarray:
    """(n_blocks,) means of consecutive blocks whose lengths differ by one at most."""
    edges = np.linspace(0, len(values), n_blocks + 1).astype(int)
    return np.add.reduceat(np.asarray(values, dtype=np.float64), edges[:-1]) / np.diff(edges)


def detrend(time: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(n,) residuals of the least-squares line."""
    centred = time - time.mean()
    slope = centred @ (values - values.mean()) / (centred @ centred)
    return values - values.mean() - slope * centred


def integrated_autocorrelation(values: np.ndarray, window: float = 5.0) -> float:
    """tau = 1 + 2 sum_k rho(k) in samples, at least 1; 1 for a constant series.

    The sum ends at the first lag above `window` times tau (Sokal's self-consistent window).
    """
    n = len(values)
    centred = values - values.mean()
    covariance = np.correlate(centred, centred, mode="full")[n - 1 :]
    if not covariance[0] > 0:
        return 1.0
    tau = 2 * np.cumsum(covariance / covariance[0]) - 1
    closed = np.arange(n) >= window * tau
    return max(1.0, float(tau[np.argmax(closed) if closed.any() else n - 1]))


def combined_half_width(first: Slope, second: Slope, sigma: float) -> float:
    """How far two slopes may differ by chance: `sigma` combined errors, widened for few degrees of freedom.

    Welch's test: the quantile is Student's t at the probability that a normal variable exceeds `sigma`.
    """
    variance = first.error**2 + second.error**2
    if variance == 0:
        return 0.0
    dof = variance**2 / (first.error**4 / first.dof + second.error**4 / second.dof)
    return float(stats.t.isf(stats.norm.sf(sigma), dof)) * variance**0.5
