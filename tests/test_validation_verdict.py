"""What the verdict says, from numbers made by hand."""

import pytest

from mdplugin.validation.drift import Slope, combined_half_width
from mdplugin.validation.observables import NveMeasures, RunMeasures, Shadow
from mdplugin.validation.verdict import judge

FLOOR = 0.01  # meV/atom/ps, limits.py


def make_measures(drift, error):
    """A sound case whose candidate drifts by `drift` against a reference at rest, both known to `error`."""

    def run(value):
        slope = Slope(value, error, 10)
        return RunMeasures(1000, 1.0, None, slope, 0.01, 0.02, 300.0, 1.0)

    return NveMeasures(run(drift), run(0.0), Shadow(20, 0.1, 0.5, 900.0, 0.01, 0.02), None)


def resolution(error):
    return combined_half_width(Slope(0, error, 10), Slope(0, error, 10), 3)


def test_conservation_as_in_float64_is_said_only_of_a_run_that_resolves_the_floor():
    assert resolution(1e-3) <= FLOOR
    sentence = judge(make_measures(drift=0.002, error=1e-3)).sentence
    assert sentence.startswith("pass: energy is conserved as in float64, to 0.01 meV/atom/ps (drift 0.002 ")


@pytest.mark.parametrize("error", [0.003, 0.07])
def test_a_short_run_says_what_it_resolves_instead(error):
    assert resolution(error) > FLOOR
    verdict = judge(make_measures(drift=error, error=error))
    assert verdict.outcome == "pass"
    assert verdict.sentence.startswith(
        f"pass: no drift away from float64 within the {resolution(error):.2g} meV/atom/ps that this run "
        "resolves; it is too short to resolve 0.01 (drift "
    )
    assert "conserved as in float64" not in verdict.sentence


def test_a_failure_says_what_is_too_large_and_what_the_run_resolves():
    verdict = judge(make_measures(drift=1.0, error=0.07))
    assert verdict.outcome == "fail"
    assert verdict.sentence.startswith("fail: drift against reference is 1 meV/atom/ps, allowed ")
    assert verdict.sentence.endswith(f"; the run resolves differences above {resolution(0.07):.2g})")
