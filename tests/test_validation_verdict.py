"""What the verdict says, from numbers made by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from mdplugin.errors import CaseError
from mdplugin.validation.case import Case
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.statistics import Estimate
from mdplugin.validation.verdict import Findings, format_estimate, judge, require_sound_reference

FLOOR = LIMITS["drift_meV_per_atom_per_ps"].value
CASE = Case("nvt", ("m.pt",), "water")


def make_findings(drift, error, failures=(), **more):
    """Three replicas whose candidate drifts by `drift` against a reference at rest, both known to `error`."""

    def replicas(value):
        return [Estimate(value, error, 10)] * 3

    candidate = {"energy_drift": replicas(drift), "force_rmse": [Estimate(0.1, 0.01, 9)] * 3, **more}
    return Findings("low", candidate, {"energy_drift": replicas(0.0)}, tuple(failures), 3)


def test_a_pass_says_of_how_many_tests():
    verdict = judge(make_findings(drift=0.1 * FLOOR, error=0.05 * FLOOR), LIMITS)
    assert verdict.outcome == "pass"
    assert verdict.sentence.startswith(
        "pass: within the stated limits of float64 in all 3 tests (drift 0.00100 ± "
    )


def test_short_runs_are_inconclusive_and_say_how_much_longer():
    verdict = judge(make_findings(drift=0.0, error=5 * FLOOR), LIMITS)
    assert verdict.outcome == "inconclusive"
    assert verdict.sentence.startswith(
        "inconclusive: 2 of 3 tests pass and none fails; to decide the others: drift of the conserved energy: about "
    )


def test_a_failure_says_what_is_too_large_against_what():
    verdict = judge(make_findings(drift=10 * FLOOR, error=0.1 * FLOOR), LIMITS)
    assert verdict.outcome == "fail"
    assert verdict.sentence.startswith("fail: drift of the conserved energy is 0.10000 ± ")
    assert verdict.sentence.endswith(", allowed 0.01")


def test_a_failure_outweighs_what_is_not_decided():
    broad = [Estimate(0.0, 1e3, 2)] * 3
    verdict = judge(make_findings(10 * FLOOR, 0.1 * FLOOR, force_slope=broad), LIMITS)
    assert verdict.outcome == "fail"


def test_runs_that_broke_off_fail_without_other_numbers():
    verdict = judge(
        make_findings(math.nan, math.nan, failures=["replica 1: run fails at step 7: NaN"]), LIMITS
    )
    assert verdict.outcome == "fail" and [test.observable for test in verdict.tests] == ["completed"]
    assert verdict.sentence == "fail: replicas broke off: 1 of 3 (replica 1: run fails at step 7: NaN)"


@pytest.mark.parametrize(("p_value", "outcome"), [(0.3, "pass"), (1e-6, "fail")])
def test_the_distribution_of_the_kinetic_energy_can_only_be_refuted(p_value, outcome):
    findings = make_findings(0.0, 0.05 * FLOOR, kinetic_p_value=[Estimate(p_value)] * 3)
    findings.reference["kinetic_p_value"] = [Estimate(0.5)] * 3
    assert judge(findings, LIMITS).outcome == outcome


def test_too_few_samples_for_a_distribution_decide_nothing():
    findings = make_findings(0.0, 0.05 * FLOOR, kinetic_p_value=[Estimate(math.nan)] * 3)
    verdict = judge(findings, LIMITS)
    assert verdict.outcome == "inconclusive" and "chi-square p): too few samples" in verdict.sentence


SOUND = {"drift_ratio": [Estimate(0.1)] * 3, "temperature": [Estimate(1.0, 0.01, 10)] * 3}


@pytest.mark.parametrize(
    ("changes", "failures", "message"),
    [
        (
            {},
            ("replica 0: run fails at step 3",),
            r"itself fails \(replica 0: run fails at step 3\): the case is at fault",
        ),
        (
            {"drift_ratio": [Estimate(3.0)] * 3},
            (),
            "itself drifts by 3 times what its kinetic energy fluctuates",
        ),
        (
            {"energy_drift": [Estimate(0.5, 0.1, 9)] * 3},
            (),
            "drifts by 0.500 ± 0.056 meV/atom/ps, allowed 0.01",
        ),
        (
            {"gradient": [Estimate(1.001, 1e-5, 9)] * 3},
            (),
            "has forces that are 1.0010000 ± .* the gradient of its energy",
        ),
        ({"kinetic_p_value": [Estimate(1e-3)] * 3}, (), "has kinetic energies that are not canonical"),
        (
            {"timestep_exponent": [Estimate(0.5, 0.1, 9)] * 3},
            (),
            r"as dt\^0.5 ± 0.06, velocity Verlet's as dt\^2",
        ),
        (
            {"volume_trend": [Estimate(0.55, 0.05, 9)] * 3},
            (),
            "is not in equilibrium: its volume changes by 55.0 ± .* % during the runs; choose the pressure",
        ),
        ({"temperature": [Estimate(1.3, 0.01, 9)] * 3}, (), "is at 390.0 ± 1.7 K, the thermostat at 300 K"),
        (
            {"bonds_share": [Estimate(0.4, 0.02)] * 3},
            (),
            "not hold together: 40.0 ± 1.2 % of the bonds .* change, allowed 10 %",
        ),
    ],
    ids=[
        "failure",
        "ratio",
        "drift",
        "gradient",
        "distribution",
        "exponent",
        "volume",
        "temperature",
        "bonds",
    ],
)
def test_a_reference_that_is_not_sound_fails_the_case(changes, failures, message):
    require_sound_reference(CASE, SOUND, ())
    with pytest.raises(CaseError, match=message):
        require_sound_reference(CASE, {**SOUND, **changes}, failures)


def test_a_reference_is_not_blamed_for_what_two_short_runs_cannot_show():
    """As `--quick` found it: a drift 4 standard errors from zero, of which 5 degrees of freedom know the size."""
    drift = {"energy_drift": [Estimate(0.138, 0.048, 2)] * 2}
    require_sound_reference(CASE, {**SOUND, **drift}, ())
    with pytest.raises(CaseError, match="drifts by"):
        require_sound_reference(CASE, {**SOUND, "energy_drift": [Estimate(0.138, 0.048, 50)] * 2}, ())


def test_a_reference_all_of_whose_runs_heat_is_blamed_however_they_scatter():
    """As int8 states do to water: 22 errors of a scatter of three would be needed."""
    heats = [Estimate(value, 0.002, 9) for value in (0.14, 0.15, 0.19)]
    with pytest.raises(CaseError, match=r"drifts by 0\.160"):
        require_sound_reference(CASE, {**SOUND, "energy_drift": heats}, ())
    require_sound_reference(CASE, {**SOUND, "energy_drift": [*heats[:2], Estimate(0.005, 0.002, 9)]}, ())


@pytest.mark.parametrize("dof", [2, 10])
@pytest.mark.parametrize("n_runs", [2, 3, 10, 20])
def test_a_sound_reference_of_any_number_of_noisy_runs_is_not_blamed(n_runs, dof):
    """Drifts of zero with errors twenty times the limit, drawn as block means would give them."""
    rng, trials, error = np.random.default_rng(n_runs), 500, 20 * FLOOR
    blamed = 0
    for _ in range(trials):
        runs = [
            Estimate(rng.normal(0, error), error * math.sqrt(rng.chisquare(dof) / dof), dof)
            for _ in range(n_runs)
        ]
        try:
            require_sound_reference(CASE, {**SOUND, "energy_drift": runs}, ())
        except CaseError:
            blamed += 1
    # the mean's 0.1 %, twice since either sign is asked with a quantile of one, and that of each run
    assert blamed <= stats.binom.ppf(0.999, trials, 3 * LIMITS["blamed"].value)


def test_what_a_reference_could_not_be_judged_by_is_said():
    energies = {
        "energy_drift": [Estimate(0.0, 1e-3, 9)] * 3,
        "kinetic_distribution": [Estimate(1.0, 0.1, 9)] * 3,
        "gradient": [Estimate(1.0, 1e-6, 9)] * 3,
    }
    known = {**SOUND, **energies, "kinetic_p_value": [Estimate(0.5)] * 3}
    assert require_sound_reference(CASE, known, ()) == ()
    (note,) = require_sound_reference(CASE, {**known, "kinetic_p_value": [Estimate(math.nan)] * 3}, ())
    assert note == "float64 itself could not be judged by its chi-square test"
    nve = CASE.replace(
        ensemble="nve", observables=("energy_drift",)
    )  # shorter than a run with another timestep
    values = {**SOUND, **energies, "gradient": [Estimate(1.0, 1e-6, 9)] * 3}
    (note,) = require_sound_reference(nve, values, ())
    assert note == "float64 itself could not be judged by exponent of the fluctuation with dt"


def test_numbers_are_printed_with_their_errors():
    assert format_estimate(Estimate(1.23456, 0.0123)) == "1.235 ± 0.012"
    assert format_estimate(Estimate(-7.698e-05, 1.61e-4)) == "-0.00008 ± 0.00016"
    assert format_estimate(Estimate(1234.5, 67.8)) == "1234 ± 68"
    assert format_estimate(Estimate(0.5, 1.5e-12)) == "0.5 ± 1.5e-12"
    assert format_estimate(Estimate(1.00000321, 4.7e-7)) == "1.00000321 ± 0.00000047"
    assert format_estimate(Estimate(0.2459, 2.8e-17)) == "0.2459"
    assert format_estimate(Estimate(3.0)) == "3"
    assert format_estimate(Estimate(math.nan, math.nan)) == format_estimate(None) == "-"
