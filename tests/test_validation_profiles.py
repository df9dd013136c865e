"""Distances of noisy profiles: unbiased, and decided as often as is stated."""

import numpy as np
import pytest
from scipy import stats

from mdplugin.validation.comparison import compare_observable
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.profiles import estimate_distance, measure_own_distances
from mdplugin.validation.statistics import UNKNOWN


def test_the_distance_of_two_noisy_samples_of_one_profile_is_zero_within_its_error():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        first, second = (1 + rng.normal(size=(10, 80)) for _ in range(2))
        distance = estimate_distance(first, second)
        inside += distance.value <= stats.t.isf(0.05, distance.dof) * distance.error
    assert inside >= stats.binom.ppf(0.0005, 200, 0.95)


def test_the_distance_of_two_profiles_is_their_rms_difference():
    rng = np.random.default_rng(3)
    values = [
        estimate_distance(1.5 + rng.normal(size=(10, 80)), 1 + rng.normal(size=(10, 80))) for _ in range(100)
    ]
    # D^2 is unbiased: its mean over 100 trials is known to a tenth of one trial's error
    squares = np.array([each.value**2 for each in values])
    assert abs(squares.mean() - 0.25) <= 4 * squares.std() / np.sqrt(len(squares))


def test_a_distance_has_its_size_in_errors_and_in_the_scatter_of_the_reference_s_runs():
    mine, theirs = (np.outer(values, np.ones(80)) for values in ((2.0, 2.1, 2.2), (1.0, 1.1, 1.2)))
    distance, own = estimate_distance(mine, theirs), measure_own_distances(theirs)
    for name in ("rdf O-O", "vdos_distance"):
        test = compare_observable(name, [distance], own, LIMITS)
        # one constant profile from another: 1, less the variances 0.1^2 / 3 of either mean
        assert abs(test.effect - np.sqrt(1 - 2 * 0.01 / 3) / 0.1) <= 1e-9
        assert abs(test.sigma - distance.value / distance.error) <= 1e-9
        assert np.isnan(compare_observable(name, [UNKNOWN], own, LIMITS).sigma)


def count_decided(true_distance, limit, noise, more=1.0, n_trials=1000):
    """(passes at 5 %, fails at 1 %) of three runs against three that differ by `true_distance`.

    Noise is one slow mode, as of g(r), in which peak and minimum move together, and little else; the difference is
    along it. The first side's noise is `more` times as large.
    """
    rng = np.random.default_rng(5)
    mode = np.sqrt(2) * np.sin(np.linspace(0, 4 * np.pi, 80, endpoint=False))

    def draw(shift, noise):
        slow, fast = rng.normal(size=(3, 1)), rng.normal(size=(3, 80))
        return 1 + shift * mode + noise * (0.9 * slow * mode + 0.4 * fast)

    passes = fails = 0
    for _ in range(n_trials):
        distance = estimate_distance(draw(true_distance, more * noise), draw(0.0, noise))
        sigmas = (distance.value - limit) / distance.error
        passes += sigmas < stats.t.ppf(0.05, distance.dof)
        fails += sigmas > stats.t.isf(0.01, distance.dof)
    return passes, fails


@pytest.mark.parametrize(("noise", "more"), [(0.003, 1), (0.01, 1), (0.03, 1), (0.003, 3), (0.01, 3)])
def test_of_profiles_at_the_limit_few_pass_and_fewer_fail(noise, more):
    passes, fails = count_decided(0.03, 0.03, noise, more)
    # 5 and 1 % to first order; where the difference is not along the noise up to 10 % pass
    assert passes <= stats.binom.ppf(0.9995, 1000, 0.06)
    assert fails <= stats.binom.ppf(0.9995, 1000, 0.012)


def test_profiles_that_are_clearly_apart_or_together_are_decided():
    assert count_decided(0.06, 0.03, 0.004)[1] >= 950
    assert count_decided(0.0, 0.03, 0.004)[0] >= 950
