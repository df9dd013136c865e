"""Slopes and their error bars, against closed forms and synthetic series with known answers."""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from mdplugin.validation.drift import (
    MIN_SAMPLES,
    Slope,
    block_means,
    combined_half_width,
    fit_slope,
    integrated_autocorrelation,
)

TRIALS = 400


def covers(slope, truth):
    """Whether the two-sided 95 % interval of the slope holds the truth."""
    return abs(slope.value - truth) <= stats.t.ppf(0.975, slope.dof) * slope.error


def make_ar1(n, rho, seed):
    """AR(1) noise x_k = rho x_(k-1) + e_k that is stationary from its first sample on."""
    noise = np.random.default_rng(seed).normal(size=n)
    noise[0] /= np.sqrt(1 - rho**2)
    return lfilter([1], [1, -rho], noise)


def make_vibration(n, period, seed):
    """Damped oscillation driven by noise, as bond vibrations make in the total energy."""
    noise = np.random.default_rng(seed).normal(size=n + 1000)
    return lfilter([1], [1, -2 * 0.98 * np.cos(2 * np.pi / period), 0.98**2], noise)[1000:]


def test_the_slope_of_a_line_is_exact():
    time = np.linspace(0, 3, 1000)
    slope = fit_slope(time, 5 - 0.7 * time)
    assert abs(slope.value + 0.7) <= 1e-12
    assert slope.error <= 1e-12


@pytest.mark.parametrize(
    ("n", "rho"), [(400, 0.0), (1000, 0.9), (1000, 0.97), (4000, 0.5), (4000, 0.97)], ids=str
)
def test_the_95_percent_interval_covers_the_trend_of_ar1_noise(n, rho):
    time = np.arange(n) / 1000
    covered = 0
    for seed in range(TRIALS):
        slope = fit_slope(time, 3 * time + make_ar1(n, rho, seed))
        covered += covers(slope, 3)
    # what an exact interval does in 400 trials, 99.9 % of the time
    low, high = stats.binom.ppf([0.0005, 0.9995], TRIALS, 0.95)
    assert low <= covered <= high


@pytest.mark.parametrize("n", [400, 2000])
def test_the_95_percent_interval_covers_the_trend_under_vibrations(n):
    time = np.arange(n) / 1000
    covered = 0
    for seed in range(TRIALS):
        slope = fit_slope(time, 3 * time + make_vibration(n, 20, seed))
        covered += covers(slope, 3)
    # vibrations cancel within blocks, so the interval may be wider than needed but not narrower
    assert covered >= stats.binom.ppf(0.0005, TRIALS, 0.95)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_two_equal_drifts_are_called_different_as_rarely_as_stated(rho):
    n, trials = 1000, 1000
    time = np.arange(n) / 1000
    alarms = 0
    for seed in range(trials):
        first, second = (fit_slope(time, make_ar1(n, rho, (seed, which))) for which in (0, 1))
        alarms += abs(first.value - second.value) > combined_half_width(first, second, 3)
    assert alarms <= stats.binom.ppf(0.9995, trials, 0.0027)


def test_many_degrees_of_freedom_give_the_normal_three_sigma():
    width = combined_half_width(Slope(0, 3e-3, 10**6), Slope(0, 4e-3, 10**6), 3)
    assert abs(width - 15e-3) <= 1e-6


def test_few_degrees_of_freedom_give_students_t():
    # equal errors: Welch's dof is the sum, 4; t.isf(0.00135, 4) = 6.6201 from tables
    width = combined_half_width(Slope(0, 1.0, 2), Slope(0, 1.0, 2), 3)
    assert abs(width / np.sqrt(2) - 6.6201) <= 1e-3


def test_series_without_any_noise_leave_no_room_for_chance():
    assert combined_half_width(Slope(1.0, 0.0, 10), Slope(1.0, 0.0, 10), 3) == 0


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.8])
def test_the_autocorrelation_time_of_ar1_noise_is_its_closed_form(rho):
    times = [integrated_autocorrelation(make_ar1(4000, rho, seed)) for seed in range(50)]
    exact = (1 + rho) / (1 - rho)
    # Sokal: relative standard deviation sqrt(2 (2 M + 1) / n) with M = 5 tau, over 50 series; and a bias of
    # order e^-5 from the window, tau / n from the mean
    spread = np.sqrt(2 * (2 * 5 * exact + 1) / 4000 / 50)
    assert abs(np.mean(times) / exact - 1) <= 4 * spread + 0.02


def test_block_means_use_every_sample_once():
    values = np.arange(103.0)
    means = block_means(values, 10)
    lengths = np.diff(np.linspace(0, 103, 11).astype(int))
    assert lengths.max() - lengths.min() <= 1
    assert abs(means @ lengths - values.sum()) <= 1e-9


@pytest.mark.parametrize("values", [np.zeros(MIN_SAMPLES - 1), np.full(1000, np.nan)], ids=["short", "nan"])
def test_a_series_that_has_no_slope_is_refused(values):
    with pytest.raises(ValueError, match="finite values"):
        fit_slope(np.arange(len(values)), values)
