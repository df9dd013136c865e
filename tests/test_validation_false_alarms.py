"""Float64 against itself with limits as small as the noise: fails in no more trials than the stated level."""

import numpy as np
import pytest
from scipy import stats
from test_validation_faults import argon_case
from validation_artifacts import crystal, save_morse
from validation_toys import Argon, MorseMolecules, argon_box, row_of_hydrogen

from mdplugin.validation.case import REFERENCE, Case
from mdplugin.validation.chain import execute_run
from mdplugin.validation.comparison import compare_observable
from mdplugin.validation.criteria import Kind, find_criterion
from mdplugin.validation.evidence import load_replicas
from mdplugin.validation.limits import LIMITS, set_limits
from mdplugin.validation.measurement import measure_replicas
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.potential import Potential, load_potential
from mdplugin.validation.profiles import add_profiles
from mdplugin.validation.verdict import P_VALUE, Findings, judge
from mdplugin.validation.workspace import RUNS, make_engine

TRIALS = 40
# from the true difference, 0, to the limit, in standard errors; a test whose difference is at its limit fails as often
# as it may
INSIDE_SIGMA = 0.5
NO_FLOORS = dict.fromkeys(("fluctuation_floor_meV_per_atom", "coordination_floor"), 0.0)

CASES = {
    "nve": argon_case(observables=("energy_drift", "energy_fluctuation", "timestep_exponent")),
    "nvt": argon_case(
        "nvt", observables=("temperature", "kinetic_distribution", "energy_drift", "rdf", "coordination"), length_ps=12.0
    ),
    "stability": Case(
        "stability", ("candidate.pt",), "x", "ase", temperature_K=1500, length_ps=0.4, equilibration_ps=0.1,
        observables=("peak_temperature", "bonds", "minimum_distance"),
    ),
    "npt": Case(
        "npt", ("candidate.pt",), "x", "ase", timestep_fs=4.0, temperature_K=100, length_ps=3.2, equilibration_ps=0.4,
        observables=("temperature", "density", "pressure", "volume_fluctuation", "rdf"),
    ),
}  # fmt: skip


def make_system(ensemble, directory):
    """Atoms and float64's potential: what is cheap, and for npt what has a stress."""
    if ensemble == "npt":
        directory.mkdir(parents=True, exist_ok=True)
        return crystal(), load_potential(save_morse(directory / "morse.pt"), 1)
    if ensemble == "stability":
        return row_of_hydrogen(), Potential(REFERENCE, MorseMolecules())
    return argon_box(), Potential(REFERENCE, Argon())


def measure_float64(case, directory):
    """What the runs of the reference alone measure."""
    atoms, potential = make_system(case.ensemble, directory)
    for plan in plan_runs(case):
        if plan.label == REFERENCE:
            engine = make_engine(case, atoms, {REFERENCE: potential}, plan)
            execute_run(engine, plan, directory / RUNS / plan.name, lambda step: None)
    replicas = load_replicas(case, REFERENCE, directory)
    return measure_replicas(case, atoms, replicas, case.chosen_observables)


def find_pair(case, trial, directory):
    """Findings of two measurements with seeds of their own."""
    sides = [
        measure_float64(case.replace(seed=20 * trial + first), directory / f"{trial}-{first}")
        for first in (0, 10)
    ]
    extra = add_profiles(*sides)
    values = [{**side.values, **more} for side, more in zip(sides, extra, strict=True)]
    return Findings("itself", *values, sides[0].failures, case.replicas)


def shrink_limits(trials):
    """Limits `INSIDE_SIGMA` standard errors wide; of counts of events zero."""
    errors = {}
    for findings in trials:
        for name, values in findings.candidate.items():
            if name != P_VALUE:
                test = compare_observable(
                    name, values, findings.reference.get(name, []), set_limits(NO_FLOORS)
                )
                errors.setdefault(find_criterion(name), []).append(test.difference.error)
    changes = {}
    for criterion, found in errors.items():
        width = INSIDE_SIGMA * float(np.median(found))
        match criterion.kind:
            case Kind.RATIO:
                width = float(np.exp(width))
            case Kind.RELATIVE:
                width = float(np.expm1(width))
            case Kind.COUNT:
                width = 0.0
        changes[criterion.limit] = width
    return set_limits({**NO_FLOORS, **changes})


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", CASES)
def test_float64_with_limits_like_the_noise_fails_in_no_more_trials_than_stated(ensemble, tmp_path):
    trials = [find_pair(CASES[ensemble], trial, tmp_path) for trial in range(TRIALS)]
    limits = shrink_limits(trials)
    verdicts = [judge(findings, limits) for findings in trials]
    assert "pass" not in {verdict.outcome for verdict in verdicts}  # nothing passes so near a limit
    alarms = sum(verdict.outcome == "fail" for verdict in verdicts)
    assert alarms <= stats.binom.ppf(0.9, TRIALS, LIMITS["false_alarm"].value)  # one
