"""Tests of difference and of equivalence: closed forms, three outcomes, and how often they are wrong."""

import dataclasses
import math
import re

import numpy as np
import pytest
from scipy import stats

from mdplugin.errors import CaseError
from mdplugin.validation.comparison import (
    Outcome,
    compare_observable,
    judge_tests,
    reweigh_test,
    subtract_sides,
)
from mdplugin.validation.criteria import CRITERIA, Kind, find_criterion
from mdplugin.validation.limits import LIMITS, set_limits
from mdplugin.validation.statistics import Estimate, combine_replicas, subtract

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
    # nothing says that it differs: passes nine times of ten at a second look when 1.960 + 1.282 errors fit into the limit,
    # (2 3.24)^2 = 42
    assert unsure.advice == "about 43 times the replicas, or the length"
    fixed = compare_observable("force_rmse", exact(8.0, 2.0), [], LIMITS)  # 20 frames of a run of any length
    advice = judge_tests([fixed], LIMITS)[0].advice
    assert advice == "about 3 times the replicas (longer runs say no more)"


@pytest.mark.parametrize("dof", [4.0, 12.0, math.inf])
@pytest.mark.parametrize("position", [-4.0, -0.5, 0.2, 0.9, 2.0, 4.0])
@pytest.mark.parametrize("name", ["energy_drift", "force_rmse"])
def test_as_much_more_as_advised_decides_in_four_of_five_cases(name, position, dof):
    """If the true difference is a standard error nearer to zero than what was seen, and within half the limit unless what
    was seen is surely beyond; a third of it does so less often."""
    allowed, one_sided = LIMITS[CRITERIA[name].limit].value, name == "force_rmse"
    seen, error = position * allowed, 1.3 * allowed
    (first,) = judge_tests(
        [compare_observable(name, exact(seen, error, dof), exact(0.0, 0.0), LIMITS)], LIMITS
    )
    if first.outcome is not Outcome.INCONCLUSIVE:
        assert one_sided and position == -4.0
        return
    size = seen if one_sided else abs(seen)
    near = size - error if one_sided else max(0.0, size - error)
    true = near if size > allowed + 1.645 * error else min(near, allowed / 2)

    def share_decided(factor, grown):
        rng, trials, less = np.random.default_rng(1), 400, error / math.sqrt(factor)
        size = np.ones(trials) if math.isinf(grown) else np.sqrt(rng.chisquare(grown, trials) / grown)
        values = rng.normal(true, less, trials)
        tests = [
            judge_tests([compare_observable(name, exact(*drawn, grown), exact(0.0, 0.0), LIMITS)], LIMITS)[0]
            for drawn in zip(values, less * size, strict=True)
        ]
        return np.mean([test.outcome is not Outcome.INCONCLUSIVE for test in tests])

    replicas, *length = map(int, re.findall(r"\d+", first.advice))
    assert share_decided(replicas, dof * replicas) >= 0.75
    assert replicas <= 6 or share_decided(replicas / 3, dof * replicas / 3) < 0.75
    # longer runs whose error is the scatter of runs have no more degrees of freedom
    if first.advice.endswith("length"):
        assert share_decided(length[0] if length else replicas, dof) >= 0.75


@pytest.mark.parametrize("dof", [4.0, 20.0])
def test_advice_for_a_sound_candidate_does_not_hang_on_the_noise_of_what_was_seen(dof):
    """Of errors as large as the limit: nobody is told that no length will do, nor of hundreds of times as much."""
    rng, factors = np.random.default_rng(1), []
    for value in rng.normal(0, DRIFT, 200):
        test = judge_tests(
            [compare_observable("energy_drift", exact(value, DRIFT, dof), exact(0.0, 0.0), LIMITS)], LIMITS
        )[0]
        if test.outcome is Outcome.INCONCLUSIVE:
            factors.append(int(re.findall(r"\d+", test.advice)[0]))
    assert len(factors) > 150 and np.median(factors) <= 15 and np.quantile(factors, 0.9) <= 60


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
    """Twice as much: the F test lets some be pooled (statistics.py), stated rates are met within a factor of two."""
    trials = 1000
    outcomes = count_outcomes([9.0], 9.0, trials, scatter=2.0)
    for outcome, level in ((Outcome.PASS, "false_pass"), (Outcome.FAIL, "false_alarm")):
        assert sum(each == {outcome} for each in outcomes) <= 2 * LIMITS[level].value * trials


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
    difference = subtract(combine_replicas(mine), combine_replicas(theirs))
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
    criterion = CRITERIA["energy_fluctuation"]
    assert abs(subtract_sides(criterion, candidate, reference).value - 0.33) <= 1e-12


def test_runs_that_have_parted_are_compared_by_their_means():
    """Pairs that come close to each other by chance are no evidence that the means do."""
    values = (1.0, 1.2, 1.4)
    mine = [Estimate(270 * value, 1.0, 4) for value in values]
    theirs = [Estimate(270 * value + 1, 1.0, 4) for value in values]
    test = compare_observable("pressure", mine, theirs, LIMITS)
    scatter = 270 * np.std(values, ddof=1) / math.sqrt(3)
    assert abs(test.difference.error / (math.sqrt(2) * scatter) - 1) <= 1e-9
    assert abs(test.difference.dof - 4) <= 1e-9


def test_what_frames_of_the_candidate_say_passes_and_the_runs_fail():
    """Reweighting knows the difference a hundred times better; what the runs show to differ fails all the same."""
    unsure, apart = (
        compare_observable("coordination O-O", exact(value, 0.2, 8), exact(4.0, 0.02, 8), LIMITS)
        for value in (4.1, 6.0)
    )
    assert judge_tests([unsure], LIMITS)[0].outcome is Outcome.INCONCLUSIVE
    close = exact(0.001, 0.002, 9) * 3
    assert judge_tests([reweigh_test(unsure, close)], LIMITS)[0].outcome is Outcome.PASS
    assert judge_tests([reweigh_test(apart, close)], LIMITS)[0].outcome is Outcome.FAIL
    wide = judge_tests([reweigh_test(unsure, exact(0.03, 0.1, 9) * 3)], LIMITS)[0]
    assert wide.outcome is Outcome.INCONCLUSIVE and "times the replicas" in wide.advice
    nobody_knows = reweigh_test(unsure, exact(math.nan, math.nan))
    assert nobody_knows is unsure


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
