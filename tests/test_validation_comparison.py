"""Tests of difference and of equivalence: closed forms, three outcomes, and how often they are wrong."""

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy import stats

from mdplugin.errors import CaseError
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
    allowed = LIMITS["pressure_bar"].value
    test = compare_observable("pressure", exact(2 * allowed, allowed), exact(0.0, 0.0), LIMITS)
    # one error above the limit, three above its negative
    assert abs(test.p_fail - (stats.norm.sf(1) + stats.norm.sf(3))) <= 1e-12
    assert abs(test.p_pass - stats.norm.cdf(1)) <= 1e-12


def test_there_are_three_outcomes_and_the_middle_one_says_how_much_more():
    assert judge_drift(0.2 * DRIFT, 0.1 * DRIFT).outcome is Outcome.PASS
    assert judge_drift(5 * DRIFT, 0.1 * DRIFT).outcome is Outcome.FAIL
    unsure = judge_drift(0.2 * DRIFT, 2 * DRIFT)
    assert unsure.outcome is Outcome.INCONCLUSIVE
    # passes when 1.645 errors fit into the 0.8 limits that are left: (2 1.645 / 0.8)^2 = 16.9 times
    assert unsure.advice == "about 18 times the replicas, or the length"
    fixed = compare_observable("force_rmse", exact(8.0, 2.0), [], LIMITS)  # 20 frames of a run of any length
    advice = judge_tests([fixed], LIMITS)[0].advice
    assert advice == "about 3 times the replicas (longer runs say no more)"


@pytest.mark.parametrize("dof", [2.0, 8.0, math.inf])
@pytest.mark.parametrize("position", [-3.0, -0.5, 0.2, 0.9, 1.2, 3.0])
@pytest.mark.parametrize("name", ["energy_drift", "force_rmse"])
def test_as_much_more_as_advised_decides(name, position, dof):
    """Seen from one side too: far below a bound is no distance from it."""
    allowed = LIMITS[CRITERIA[name].limit].value
    value = position * allowed

    def judge(factor, dof=dof):
        mine = exact(value, 1.3 * allowed / math.sqrt(factor), dof)
        return judge_tests([compare_observable(name, mine, exact(0.0, 0.0), LIMITS)], LIMITS)[0]

    first = judge(1)
    if first.outcome is Outcome.INCONCLUSIVE:
        replicas, *length = map(int, re.findall(r"\d+", first.advice))
        assert judge(replicas, dof * replicas).outcome is not Outcome.INCONCLUSIVE
        fewer = 0.8 * replicas - 1
        assert replicas == 2 or judge(fewer, dof * fewer).outcome is Outcome.INCONCLUSIVE
        # longer runs whose error is the scatter of runs have no more degrees of freedom
        if first.advice.endswith("length"):
            assert judge(length[0] if length else replicas).outcome is not Outcome.INCONCLUSIVE
    else:
        assert name == "force_rmse" and position == -3.0


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


def draw(rng, true, n_replicas=3, dof=10, scatter=1.0):
    """Replicas that scatter about the truth, with errors of 1 drawn as block means would give them."""
    return [
        Estimate(rng.normal(true, scatter), math.sqrt(rng.chisquare(dof) / dof), dof)
        for _ in range(n_replicas)
    ]


def count_outcomes(truths, limit, trials, scatter=1.0, n_replicas=3):
    """Outcomes of cases whose tests have these true differences."""
    rng, options = np.random.default_rng(1), {"n_replicas": n_replicas, "scatter": scatter}
    limits = set_limits({"drift_meV_per_atom_per_ps": limit})
    outcomes = []
    for _ in range(trials):
        tests = [
            compare_observable("energy_drift", draw(rng, true, **options), draw(rng, 0.0, **options), limits)
            for true in truths
        ]
        outcomes.append({test.outcome for test in judge_tests(tests, limits)})
    return outcomes


def test_a_sound_candidate_fails_a_case_of_ten_tests_no_more_often_than_stated():
    trials = 400
    # the hardest sound case: every true difference is as large as its limit
    alarms = sum(Outcome.FAIL in outcomes for outcomes in count_outcomes([2.0] * 10, 2.0, trials))
    assert alarms <= stats.binom.ppf(0.9995, trials, LIMITS["false_alarm"].value)


@pytest.mark.parametrize("n_others", [0, 9])
def test_a_candidate_at_a_limit_passes_no_more_often_than_stated(n_others):
    trials = 1000
    # the others are so far within that they pass always: what is at the limit decides alone
    passes = sum(
        outcomes == {Outcome.PASS} for outcomes in count_outcomes([9.0, *[0.0] * n_others], 9.0, trials)
    )
    level = LIMITS["false_pass"].value
    assert stats.binom.ppf(0.0005, trials, level / 2) <= passes <= stats.binom.ppf(0.9995, trials, level)


def test_replicas_that_scatter_more_than_their_errors_say_cost_little():
    """Twice as much: the F test lets some be pooled (statistics.py), stated rates are met within a factor of three."""
    trials = 1000
    outcomes = count_outcomes([9.0], 9.0, trials, scatter=2.0)
    for outcome, level in ((Outcome.PASS, "false_pass"), (Outcome.FAIL, "false_alarm")):
        assert sum(each == {outcome} for each in outcomes) <= 3 * LIMITS[level].value * trials


def test_runs_that_all_exceed_a_limit_of_every_run_fail_though_their_scatter_decides_nothing():
    """As int8 states heat water, in 26 tests: the mean is 14 limits, its error of 2 degrees of freedom one and a half."""
    calm = exact(0.0, 0.06 * DRIFT, 3) * 3
    heats = [Estimate(value * DRIFT, 1.6 * DRIFT, 2) for value in (15.8, 11.8, 17.4)]
    one_does_not = [*heats[:2], Estimate(2 * DRIFT, 1.6 * DRIFT, 2)]
    others = [compare_observable("force_rmse", exact(1.0, 0.1), [], LIMITS)] * 25
    for runs, outcome in ((heats, Outcome.FAIL), (one_does_not, Outcome.INCONCLUSIVE)):
        test = compare_observable("energy_drift", runs, calm, LIMITS)
        assert judge_tests([test, *others], LIMITS)[0].outcome is outcome
        # of a pressure the mean alone counts, and is as uncertain
        of_mean = [Estimate(each.value / DRIFT * 270, each.error / DRIFT * 270, 2) for each in runs]
        test = compare_observable("pressure", of_mean, exact(0.0, 0.0) * 3, LIMITS)
        assert judge_tests([test, *others], LIMITS)[0].outcome is Outcome.INCONCLUSIVE


def test_a_number_judged_by_itself_is_shown_beside_float64_s():
    mine, theirs = ([Estimate(value, 0.01, 9)] * 3 for value in (1.02, 1.01))
    test = compare_observable("temperature", mine, theirs, LIMITS)
    assert test.reference.value == 1.01
    difference = combine_pairs(mine, theirs)
    assert abs(test.sigma - 0.01 / difference.error) <= 1e-9
    alone = compare_observable("force_rmse", mine, [], LIMITS)
    assert alone.reference is None and math.isnan(alone.sigma)
    # what scatters by orders: the geometric means, and the difference of the logarithms
    sides = ([Estimate(value, math.nan, 1) for value in values] for values in ((1e-6, 1e-4), (1e-7, 1e-5)))
    test = compare_observable("reversal", *sides, LIMITS)
    assert abs(test.candidate.value / 1e-5 - 1) <= 1e-9 and abs(test.reference.value / 1e-6 - 1) <= 1e-9


@pytest.mark.parametrize(
    ("n_replicas", "scatter"),
    [(2, 1.0), (3, 1.0), (6, 1.0), (12, 1.0), (3, 2.0), (6, 2.0), (12, 2.0)],
    ids=str,
)
def test_runs_without_a_drift_do_not_fail_together_by_a_limit_far_below_their_errors(n_replicas, scatter):
    trials = 1000
    alarms = sum(
        Outcome.FAIL in outcomes for outcomes in count_outcomes([0.0], 0.01, trials, scatter, n_replicas)
    )
    level = LIMITS["false_alarm"].value * (1 if scatter == 1 else 3)
    assert alarms <= stats.binom.ppf(0.9995, trials, level)


def test_a_candidate_far_beyond_a_limit_fails_and_one_far_within_passes():
    assert all(Outcome.FAIL in outcomes for outcomes in count_outcomes([12.0] * 10, 2.0, 50))
    assert all(outcomes == {Outcome.PASS} for outcomes in count_outcomes([0.0] * 10, 10.0, 50))


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
        assert not criterion.floor or criterion.floor in LIMITS
        assert not criterion.floor or criterion.kind in (Kind.RATIO, Kind.RELATIVE)
    used = {name for criterion in CRITERIA.values() for name in (criterion.limit, criterion.floor)}
    assert set(LIMITS) - (used - {""}) == {
        "false_alarm", "false_pass", "each_run", "blamed", "explosion_K"
    }  # fmt: skip
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
        ("diffusion", 0.01, 0.001, Outcome.PASS),  # neither flows
        ("diffusion", 2.4, 2.0, Outcome.PASS),
        ("diffusion", 2.6, 2.0, Outcome.FAIL),
        ("diffusion", 1.5, 2.0, Outcome.FAIL),
    ],
)
def test_each_kind_of_criterion_decides_what_is_plain(name, candidate, reference, outcome):
    test = compare_observable(name, exact(candidate, 1e-6), exact(reference, 1e-6), LIMITS)
    assert judge_tests([test], LIMITS)[0].outcome is outcome


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ((2e-4, 3e-4, 3e-3), Outcome.INCONCLUSIVE),  # one is over 1e-3, but they scatter by orders
        ((1e-6, 2e-6, 8e-6), Outcome.PASS),
        ((1e-9, 3e-9), Outcome.PASS),
        ((0.02, 0.03, 0.04), Outcome.FAIL),
        ((0.0, 0.0, 0.0), Outcome.PASS),
        ((0.0, 1e-5, 1e-5), Outcome.PASS),
    ],
)
def test_what_scatters_by_orders_of_magnitude_is_judged_by_the_scatter_of_its_runs(values, outcome):
    test = compare_observable("reversal", [Estimate(value, math.nan, 1) for value in values], [], LIMITS)
    assert judge_tests([test], LIMITS)[0].outcome is outcome


@pytest.mark.parametrize("name", ["false_alarm", "false_pass", "each_run", "blamed"])
@pytest.mark.parametrize("level", [0, 0.2, 1.5])
def test_a_case_cannot_choose_levels_that_say_nothing(name, level):
    with pytest.raises(CaseError, match=f"limits: {name}: expected a probability above 0, at most 0.1, got"):
        set_limits({name: level})
    assert set_limits({name: 0.02})[name].value == 0.02


@pytest.mark.parametrize(
    ("candidate", "reference", "outcome"),
    [
        ((0, 0, 0), (0, 0, 0), Outcome.PASS),
        ((0, 0), (0, 0), Outcome.INCONCLUSIVE),  # exp(-2) is 14 %
        ((0, 1, 1), (0, 0, 0), Outcome.INCONCLUSIVE),  # one proton hops here, one there
        ((2, 3, 2), (0, 0, 0), Outcome.INCONCLUSIVE),
        ((20, 35, 18), (0, 0, 0), Outcome.FAIL),
        ((5, 6, 8), (0, 0, 0), Outcome.FAIL),
        ((0, 0, 0), (3, 1, 2), Outcome.PASS),
        ((20, 18, 25), (22, 17, 21), Outcome.INCONCLUSIVE),
    ],
    ids=str,
)
def test_rare_events_are_counted(candidate, reference, outcome):
    sides = ([Estimate(float(count)) for count in side] for side in (candidate, reference))
    assert judge_tests([compare_observable("bonds", *sides, LIMITS)], LIMITS)[0].outcome is outcome


def test_counts_of_one_rate_fail_no_more_often_than_stated():
    rng, trials = np.random.default_rng(0), 2000
    for rate in (0.2, 2.0, 20.0):
        alarms = 0
        for counts in rng.poisson(rate, (trials, 2, 3)):
            mine, theirs = ([Estimate(float(count)) for count in side] for side in counts)
            (test,) = judge_tests([compare_observable("bonds", mine, theirs, LIMITS)], LIMITS)
            alarms += test.outcome is Outcome.FAIL
        assert alarms <= stats.binom.ppf(0.9995, trials, LIMITS["false_alarm"].value)


def test_counts_of_a_rate_at_the_limit_pass_no_more_often_than_stated():
    rng, trials, more = np.random.default_rng(0), 2000, LIMITS[find_criterion("bonds").limit].value
    for rate in (0.0, 0.3, 2.0, 20.0):
        passes = 0
        for counts in zip(rng.poisson(rate + more, (trials, 3)), rng.poisson(rate, (trials, 3)), strict=True):
            mine, theirs = ([Estimate(float(count)) for count in side] for side in counts)
            passes += compare_observable("bonds", mine, theirs, LIMITS).p_pass < LIMITS["false_pass"].value
        assert passes <= stats.binom.ppf(0.9995, trials, LIMITS["false_pass"].value)
    assert passes > 0.02 * trials  # where there is much to count it is not far from that


def test_the_error_of_the_reference_counts_in_a_relative_limit():
    """A true ratio at the limit passes at the level that is stated, though the limit is measured too."""
    rng, trials = np.random.default_rng(0), 1500
    passes = 0
    for _ in range(trials):
        mine, theirs = (
            [Estimate(rng.normal(true, 0.04 * true), 0.04 * true) for _ in range(3)] for true in (2.5, 2.0)
        )
        (test,) = judge_tests([compare_observable("diffusion", mine, theirs, LIMITS)], LIMITS)
        passes += test.outcome is Outcome.PASS
    assert passes <= stats.binom.ppf(0.9995, trials, LIMITS["false_pass"].value)


def test_a_melted_candidate_of_a_reference_that_stays_solid_fails():
    solid = [Estimate(value, 0.3, 9) for value in (0.7, 0.5, -0.1)]
    melted = [Estimate(value, 0.3, 9) for value in (4.7, 4.5, 4.2)]
    (test,) = judge_tests([compare_observable("diffusion Ar", melted, solid, LIMITS)], LIMITS)
    assert test.outcome is Outcome.FAIL and abs(test.limit - 0.25 * 1.1 / 3) <= 1e-9


def test_the_effect_size_is_in_units_of_the_reference_s_scatter():
    mine = [Estimate(value, 0.01, 5) for value in (3.0, 3.2, 3.4)]
    theirs = [Estimate(value, 0.01, 5) for value in (1.0, 1.1, 1.2)]
    for name in ("energy_fluctuation", "diffusion", "density", "pressure"):
        assert abs(compare_observable(name, mine, theirs, LIMITS).effect - 2.1 / 0.1) <= 1e-9
