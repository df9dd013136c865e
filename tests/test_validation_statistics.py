"""Slopes, means and their error bars, against closed forms and synthetic series with known answers."""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from mdplugin.validation.statistics import (
    MIN_SAMPLES,
    UNKNOWN,
    Estimate,
    block_means,
    combine_replicas,
    estimate_mean,
    estimate_mean_of_few,
    estimate_variance_of_few,
    fit_slope,
    fit_slope_to_few,
    integrated_autocorrelation,
    subtract,
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


@pytest.mark.parametrize(("n", "rho"), [(64, 0.0), (1000, 0.9), (4000, 0.97)], ids=str)
def test_the_95_percent_interval_covers_the_mean_of_ar1_noise(n, rho):
    covered = sum(covers(estimate_mean(7 + make_ar1(n, rho, seed)), 7) for seed in range(TRIALS))
    # block means of 5 tau still correlate by a tenth: an interval of 95 % may cover 1 to 2 % less
    assert covered >= stats.binom.ppf(0.0005, TRIALS, 0.93)
    assert covered <= stats.binom.ppf(0.9995, TRIALS, 0.97)


@pytest.mark.parametrize(
    ("make", "coverage"),
    [
        # a walk has no correlation time: 92 % by the level of the pooling, 87 % if replicas were pooled more often
        (lambda seed: np.cumsum(np.random.default_rng(seed).normal(size=4000)), 0.92),
        (lambda seed: make_ar1(4000, 0.97, seed), 0.95),
    ],
    ids=["walk", "ar1"],
)
def test_the_95_percent_interval_of_three_replicas_covers_the_slope(make, coverage):
    trials, time = 1000, np.arange(4000) / 1000
    covered = sum(
        covers(combine_replicas([fit_slope(time, make(3 * trial + replica)) for replica in range(3)]), 0)
        for trial in range(trials)
    )
    assert covered >= stats.binom.ppf(0.0005, trials, coverage)


@pytest.mark.parametrize("rho", [0.0, 0.5])
@pytest.mark.parametrize(
    "estimate",
    [estimate_mean_of_few, lambda values: fit_slope_to_few(np.arange(40.0), values)],
    ids=["mean", "slope"],
)
def test_the_95_percent_interval_of_40_samples_covers_mean_and_slope_of_ar1_noise(estimate, rho):
    trials = 1000
    covered = sum(covers(estimate(make_ar1(40, rho, seed)), 0) for seed in range(trials))
    # 13 independent samples of rho = 0.5 do not tell tau well: 92 % and more; of independent samples 95 %, and tau is
    # never below 1, which makes the interval too wide now and then
    low, high = stats.binom.ppf([0.0005, 0.9995], trials, [0.95, 0.97] if rho == 0 else [0.92, 0.95])
    assert low <= covered <= high


def test_welch_s_difference_has_its_degrees_of_freedom():
    # equal errors: Welch's dof is the sum
    difference = subtract(Estimate(3.0, 1.0, 2), Estimate(1.0, 1.0, 2))
    assert (
        difference.value == 2
        and abs(difference.error - np.sqrt(2)) <= 1e-12
        and abs(difference.dof - 4) <= 1e-12
    )
    assert subtract(Estimate(3.0, 1.0, 5), Estimate(1.0)).dof == 5
    assert np.isinf(subtract(Estimate(3.0), Estimate(1.0)).dof)


def test_replicas_that_agree_are_pooled_and_replicas_that_do_not_are_judged_by_their_scatter():
    alike = combine_replicas([Estimate(1.0, 0.1, 10), Estimate(1.1, 0.1, 10), Estimate(0.9, 0.1, 10)])
    # scatter 0.1 with 2 dof and errors 0.1 with 30: pooled variance 0.01, 32 dof
    assert abs(alike.value - 1) <= 1e-12 and abs(alike.error - 0.1 / np.sqrt(3)) <= 1e-12 and alike.dof == 32
    apart = combine_replicas([Estimate(1.0, 0.1, 10), Estimate(6.0, 0.1, 10), Estimate(-4.0, 0.1, 10)])
    assert abs(apart.error - 5 / np.sqrt(3)) <= 1e-12 and apart.dof == 2


def test_replicas_without_errors_of_their_own_have_their_scatter():
    combined = combine_replicas([Estimate(value, np.nan, 1) for value in (1.0, 2.0, 3.0)])
    assert combined.value == 2 and abs(combined.error - 1 / np.sqrt(3)) <= 1e-12 and combined.dof == 2


@pytest.mark.parametrize("estimates", [[], [UNKNOWN], [UNKNOWN, Estimate(1.0, 0.1, 3)]], ids=len)
def test_a_replica_that_is_not_known_leaves_nothing_known(estimates):
    assert not combine_replicas(estimates).is_known


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


@pytest.mark.parametrize(("correlated", "most"), [(20, 0.14), (5, 0.12), (0, 0.08)])
def test_a_variance_about_its_own_mean_is_not_found_below_the_true_one(correlated, most):
    """Three runs of 100 samples of variance 1, the limit; without what their own means take 18 % and more pass at 5 %."""
    rng, n_trials, r = np.random.default_rng(8), 400, np.exp(-1 / correlated) if correlated else 0.0
    noise = rng.normal(size=(n_trials, 3, 100)) * np.sqrt(1 - r * r)
    noise[..., 0] = rng.normal(size=(n_trials, 3))
    passes, mean = 0, []
    for runs in lfilter([1], [1, -r], noise, axis=-1):
        found = combine_replicas([estimate_variance_of_few(run) for run in runs])
        passes += stats.t.sf((1 - found.value) / found.error, found.dof) < 0.05
        mean.append(found.value)
    assert passes <= stats.binom.isf(1e-3, n_trials, most)
    assert abs(np.mean(mean) - 1) <= (0.25 if correlated == 20 else 0.1)


def test_the_variance_of_too_few_is_unknown():
    assert not estimate_variance_of_few(np.array([1.0, 2.0, 3.0])).is_known


def test_swings_do_not_hide_what_is_slow():
    """A tenth of the variance has a correlation time of 200 samples, the rest swings with a period of 5."""
    slow, fast, lag = 0.1, 0.9, np.arange(4096)
    rng = np.random.default_rng(9)
    decay = np.exp(-1 / 100)
    noise = lfilter([1], [1, -decay], rng.normal(size=4096 + 2000))[2000:] * np.sqrt(1 - decay**2)
    swing = lfilter([1], [1, -2 * 0.98 * np.cos(2 * np.pi / 5), 0.98**2], rng.normal(size=4096 + 2000))[2000:]
    values = np.sqrt(slow) * noise + np.sqrt(fast) * swing / swing.std()
    assert integrated_autocorrelation(values) < 5 and lag[-1] > 100
    # 2 sum rho^2: of the slow part 0.01 * 100, of the swing 0.81 / 2 * 50
    assert 15 < integrated_autocorrelation(values, power=2) < 30
