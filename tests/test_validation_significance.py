"""How often counts, and runs that are looked at again, are wrong: simulated."""

import json

import numpy as np
import pytest
from scipy import stats

from mdplugin.validation.case import Case
from mdplugin.validation.comparison import Outcome, compare_observable, judge_tests
from mdplugin.validation.criteria import find_criterion
from mdplugin.validation.limits import LIMITS, tighten_levels
from mdplugin.validation.report import REPORT_JSON, find_look
from mdplugin.validation.statistics import Estimate


def test_counts_of_one_rate_fail_no_more_often_than_stated():
    rng, trials = np.random.default_rng(0), 2000
    for rate in (0.2, 2.0, 20.0):
        alarms = 0
        for counts in rng.poisson(rate, (trials, 2, 3)):
            mine, theirs = ([Estimate(float(count)) for count in side] for side in counts)
            (test,) = judge_tests([compare_observable("bonds", mine, theirs, LIMITS)], LIMITS)
            alarms += test.outcome is Outcome.FAIL
        assert alarms <= stats.binom.ppf(0.9995, trials, LIMITS["false_alarm"].value)


@pytest.mark.parametrize("clump", [3, 10])
@pytest.mark.parametrize("n_runs", [3, 6])
def test_bonds_that_break_together_are_no_evidence_of_many_events(clump, n_runs):
    """All bonds of a molecule, a defect: single bonds of the same number would fail in a tenth of the cases."""
    rng, trials = np.random.default_rng(0), 1000
    for rate in (0.3, 1.0):
        alarms = 0
        for counts in clump * rng.poisson(rate, (trials, 2, n_runs)):
            mine, theirs = ([Estimate(float(count)) for count in side] for side in counts)
            alarms += (
                compare_observable("bonds", mine, theirs, LIMITS).p_fail < LIMITS["false_alarm"].value / 8
            )
        assert alarms <= stats.binom.ppf(0.9995, trials, LIMITS["false_alarm"].value)


def test_runs_that_are_looked_at_until_they_pass_do_so_no_more_often_than_stated():
    """A candidate at the limit, looked at with 3, 6, 12 and 24 replicas; at one level it would pass in a tenth."""
    rng, trials, looks = np.random.default_rng(0), 1500, (3, 6, 12, 24)
    limit, ended = LIMITS["pressure_bar"].value, {Outcome.PASS: 0, Outcome.FAIL: 0}
    for _ in range(trials):
        values = limit * np.array([1.0, 0.0])[:, None] + rng.normal(0, 150, (2, looks[-1]))
        for look, n in enumerate(looks, 1):
            mine, theirs = ([Estimate(value, 150, 5) for value in side[:n]] for side in values)
            limits = tighten_levels(LIMITS, look)
            (test,) = judge_tests([compare_observable("pressure", mine, theirs, limits)], limits)
            if test.outcome is not Outcome.INCONCLUSIVE:
                ended[test.outcome] += 1
                break
    for outcome, name in ((Outcome.PASS, "false_pass"), (Outcome.FAIL, "false_alarm")):
        assert ended[outcome] <= stats.binom.ppf(0.9995, trials, 2 * LIMITS[name].value)
    assert ended[Outcome.PASS] > LIMITS["false_pass"].value * trials / 3


def test_counts_of_a_rate_at_the_limit_pass_no_more_often_than_stated():
    rng, trials, more = np.random.default_rng(0), 2000, LIMITS[find_criterion("bonds").limit].value
    for rate in (0.0, 0.3, 2.0, 20.0):
        passes = 0
        for counts in zip(rng.poisson(rate + more, (trials, 3)), rng.poisson(rate, (trials, 3)), strict=True):
            mine, theirs = ([Estimate(float(count)) for count in side] for side in counts)
            passes += compare_observable("bonds", mine, theirs, LIMITS).p_pass < LIMITS["false_pass"].value
        assert passes <= stats.binom.ppf(0.9995, trials, LIMITS["false_pass"].value)
    assert passes > 0.02 * trials  # where there is much to count it is not far from that


def test_a_look_is_counted_where_runs_have_grown(tmp_path):
    case = Case("nve", ("m.pt",), "water", length_ps=2.0, replicas=3)
    assert find_look(tmp_path, case) == 1
    report = {"case": {"length_ps": 2.0, "replicas": 3}}
    for text, look in ((json.dumps(report), 1), (json.dumps({**report, "look": 2}), 2), ("{", 0), ("[]", 0)):
        (tmp_path / REPORT_JSON).write_text(text)
        assert find_look(tmp_path, case) == (look or 1)  # the same command again is no new look
        assert find_look(tmp_path, case.replace(replicas=6)) == look + 1
        assert find_look(tmp_path, case.replace(length_ps=4.0)) == look + 1
