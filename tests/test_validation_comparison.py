"""Tests of difference and of equivalence: closed forms, three outcomes, and how often they are wrong."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from mdplugin.validation.comparison import Outcome, combine_pairs, compare_observable, judge_tests
from mdplugin.validation.criteria import CRITERIA, Kind, find_criterion
from mdplugin.validation.limits import LIMITS, set_limits
from mdplugin.validation.statistics import Estimate

DRIFT = LIMITS["drift_meV_per_atom_per_ps"].value


def exact(value, error, dof=math.inf):
    return [Estimate(value, error, dof)]


def judge_drift(difference, error):
    """The test of one drift whose difference has the given error."""
    test = compare_observable("energy_drift", exact(difference, error), exact(0.0, 0.0), LIMITS)
    return judge_tests([test], LIMITS)[0]


def test_the_p_values_are_those_of_the_normal_distribution():
    test = compare_observable("energy_drift", exact(2 * DRIFT, DRIFT), exact(0.0, 0.0), LIMITS)
    # one error above the limit, three above its negative
    assert abs(test.p_fail - (stats.norm.sf(1) + stats.norm.sf(3))) <= 1e-12
    assert abs(test.p_pass - stats.norm.cdf(1)) <= 1e-12


def test_there_are_three_outcomes_and_the_middle_one_says_how_much_more():
    assert judge_drift(0.2 * DRIFT, 0.1 * DRIFT).outcome is Outcome.PASS
    assert judge_drift(5 * DRIFT, 0.1 * DRIFT).outcome is Outcome.FAIL
    unsure = judge_drift(0.2 * DRIFT, 2 * DRIFT)
    assert unsure.outcome is Outcome.INCONCLUSIVE
    # passes when 1.645 errors fit into the 0.8 limits that are left: (2 1.645 / 0.8)^2 = 16.9 times
    # a slope's variance falls with the third power of the length: 16.9^(1/3) = 2.6
    assert unsure.advice == "about 2.6 times the length, or 17 times the replicas"
    mean = compare_observable("density", exact(1.0, 0.02), exact(1.0, 0.0), LIMITS)
    # limit 0.02: (1.645)^2 = 2.7
    assert judge_tests([mean], LIMITS)[0].advice == "about 3 times the length, or the replicas"


def test_more_data_by_the_advice_decide():
    factor = 17
    assert judge_drift(0.2 * DRIFT, 2 * DRIFT / math.sqrt(factor)).outcome is Outcome.PASS


def test_a_difference_at_the_limit_is_never_decided():
    assert judge_drift(DRIFT, 0.01 * DRIFT).advice.startswith("the difference is as large as the limit")


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_a_number_that_is_none_never_passes(value):
    assert judge_drift(value, DRIFT).outcome is not Outcome.PASS
    assert judge_drift(0.0, value).outcome is Outcome.INCONCLUSIVE


def test_one_small_p_among_many_is_corrected():
    # uncorrected 0.005 would fail at the level of 0.01; twenty tests make one such likely
    lone = compare_observable("energy_drift", exact(1.0, 0.1), exact(0.0, 0.0), LIMITS)
    lone = dataclasses.replace(lone, p_fail=0.005)
    others = [dataclasses.replace(lone, p_fail=0.5) for _ in range(19)]
    assert judge_tests([lone], LIMITS)[0].outcome is Outcome.FAIL
    assert judge_tests([lone, *others], LIMITS)[0].outcome is not Outcome.FAIL


def draw(rng, true, n_replicas=3, dof=10):
    """Replicas that scatter by 1 about the truth, with errors drawn as block means would give them."""
    return [Estimate(rng.normal(true), math.sqrt(rng.chisquare(dof) / dof), dof) for _ in range(n_replicas)]


def count_outcomes(true, limit, trials):
    rng = np.random.default_rng(1)
    limits = set_limits({"drift_meV_per_atom_per_ps": limit})
    outcomes = []
    for _ in range(trials):
        tests = [
            compare_observable("energy_drift", draw(rng, true), draw(rng, 0.0), limits) for _ in range(10)
        ]
        outcomes.append({test.outcome for test in judge_tests(tests, limits)})
    return outcomes


def test_a_sound_candidate_fails_a_case_of_ten_tests_no_more_often_than_stated():
    trials = 400
    # the hardest sound case: every true difference is as large as its limit
    alarms = sum(Outcome.FAIL in outcomes for outcomes in count_outcomes(2.0, 2.0, trials))
    assert alarms <= stats.binom.ppf(0.9995, trials, LIMITS["false_alarm"].value)


def test_a_candidate_at_a_limit_passes_no_more_often_than_stated():
    trials = 400
    passes = sum(outcomes == {Outcome.PASS} for outcomes in count_outcomes(2.0, 2.0, trials))
    assert passes <= stats.binom.ppf(0.9995, trials, LIMITS["false_pass"].value)


def test_a_candidate_far_beyond_a_limit_fails_and_one_far_within_passes():
    assert all(Outcome.FAIL in outcomes for outcomes in count_outcomes(12.0, 2.0, 50))
    assert all(outcomes == {Outcome.PASS} for outcomes in count_outcomes(0.0, 10.0, 50))


def test_pairs_cancel_what_replicas_have_in_common():
    # two replicas of very different energy, in both of which the candidate fluctuates four times as much
    reference = [Estimate(0.02, 1e-3, 10), Estimate(0.2, 1e-3, 10)]
    candidate = [Estimate(0.08, 1e-3, 10), Estimate(0.8, 1e-3, 10)]
    same = [Estimate(0.021, 1e-3, 10), Estimate(0.201, 1e-3, 10)]
    for estimates, outcome in ((candidate, Outcome.FAIL), (same, Outcome.PASS)):
        test = compare_observable("energy_fluctuation", estimates, reference, LIMITS)
        assert judge_tests([test], LIMITS)[0].outcome is outcome
        assert abs(test.limit - math.sqrt(2) * 0.11) <= 1e-12
    assert abs(combine_pairs(candidate, reference).value - 0.33) <= 1e-12


def test_every_criterion_names_limits_that_exist_and_every_limit_has_a_reason():
    for criterion in CRITERIA.values():
        assert criterion.limit in LIMITS
        assert (criterion.floor in LIMITS) == (criterion.kind is Kind.RATIO)
    used = {name for criterion in CRITERIA.values() for name in (criterion.limit, criterion.floor)}
    assert set(LIMITS) - used == {"false_alarm", "false_pass", "explosion_K"}
    assert all(len(limit.reason) > 20 for limit in LIMITS.values())


def test_a_pair_s_observable_is_judged_like_its_kind():
    assert find_criterion("rdf O-H") is CRITERIA["rdf"]


@pytest.mark.parametrize(
    ("name", "candidate", "reference", "outcome"),
    [
        ("force_rmse", 1.0, 0.0, Outcome.PASS),
        ("force_rmse", 20.0, 0.0, Outcome.FAIL),
        ("gradient", 1.001, 1.0, Outcome.FAIL),
        ("gradient", 0.999, 1.0, Outcome.FAIL),
        ("gradient", 1.0001, 1.0, Outcome.PASS),
        ("energy_fluctuation", 0.009, 0.001, Outcome.PASS),  # below the floor
        ("energy_fluctuation", 0.03, 0.01, Outcome.FAIL),
        ("energy_fluctuation", 0.012, 0.01, Outcome.PASS),
        ("density", 1.01, 1.0, Outcome.PASS),
        ("density", 0.97, 1.0, Outcome.FAIL),
        ("minimum_distance", 0.7, 0.9, Outcome.FAIL),
        ("minimum_distance", 1.1, 0.9, Outcome.PASS),  # farther is no fault
        ("bonds", 0.0, 0.0, Outcome.PASS),
        ("bonds", 3.0, 0.0, Outcome.FAIL),
        ("bonds", 0.0, 3.0, Outcome.PASS),
    ],
)
def test_each_kind_of_criterion_decides_what_is_plain(name, candidate, reference, outcome):
    test = compare_observable(name, exact(candidate, 1e-6), exact(reference, 1e-6), LIMITS)
    assert judge_tests([test], LIMITS)[0].outcome is outcome
