"""The validator judged: planted faults that it must catch, harmless changes that it must pass, in cheap potentials."""

import json

import ase
import ase.io
import numpy as np
import pytest
from scipy import stats
from validation_toys import (
    Argon,
    Faulty,
    Spring,
    SPRING_eV_PER_A2,
    add_curl,
    add_friction,
    add_noise,
    break_at,
)

from mdplugin.errors import CaseError
from mdplugin.validation.case import Case
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.potential import Potential
from mdplugin.validation.report import read_report
from mdplugin.validation.runner_ase import AseEngine
from mdplugin.validation.study import compare_potentials
from mdplugin.validation.systems import Structure


def argon_case(ensemble="nve", **changes):
    settings = {
        "engine": "ase",
        "timestep_fs": 8.0,
        "temperature_K": 120,
        "length_ps": 4.8,
        "equilibration_ps": 0.5,
        "checkpoint_ps": 10.0,
        "frame_fs": 80.0,
        "sample_fs": 80.0,
    }
    return Case(
        **{"ensemble": ensemble, "models": ("candidate.pt",), "reference": "argon", **settings, **changes}
    )


def judge_argon(box, directory, candidate, reference=None, **changes):
    potentials = {
        "candidate": Potential("candidate", candidate),
        "reference": Potential("reference", reference or Argon()),
    }
    return compare_potentials(argon_case(**changes), box, potentials, directory)


def outcomes(report):
    """Observable -> outcome of the only candidate."""
    return {test.observable: str(test.outcome) for test in report.verdicts[0].tests}


def failed(report):
    return {name for name, outcome in outcomes(report).items() if outcome == "fail"}


def round_to_float32(results, atoms, call):
    results["forces"] = results["forces"].astype(np.float32).astype(np.float64)


def scale_forces(factor):
    def spoil(results, atoms, call):
        results["forces"] *= factor

    return spoil


class Truncated(Argon):
    """Without the shift that makes energy and force vanish at the cutoff: the energy jumps there."""

    def _pair(self, distances):
        energies, slopes = super()._pair(distances)
        at_the_edge = len(np.atleast_1d(distances)) == 1  # the one number from which the shift is made
        return (0 * energies, 0 * slopes) if at_the_edge else (energies, slopes)


class Larger(Argon):
    sigma = 3.7


HARMLESS = {"itself": Argon, "float32": lambda: Faulty(Argon(), round_to_float32)}
# fault -> one of these observables must see it (others may)
FAULTS = {
    "noise-1": (lambda: Faulty(Argon(), add_noise(1, seed=1)), {"timestep_exponent"}),
    "noise-5": (lambda: Faulty(Argon(), add_noise(5, seed=1)), {"reversal"}),
    "noise-20": (lambda: Faulty(Argon(), add_noise(20, seed=1)), {"force_rmse"}),
    "curl": (lambda: Faulty(Argon(), add_curl(3)), {"energy_fluctuation"}),
    "friction": (lambda: Faulty(Argon(), add_friction(0.02)), {"energy_drift", "timestep_exponent"}),
    "driving": (lambda: Faulty(Argon(), add_friction(-0.02)), {"energy_drift", "timestep_exponent"}),
    "forces-times-1.001": (lambda: Faulty(Argon(), scale_forces(1.001)), {"gradient"}),
    "truncated": (Truncated, {"energy_fluctuation", "timestep_exponent"}),
    "explosion": (lambda: Faulty(Argon(), scale_forces(1e4)), {"completed"}),
    "another-model": (Larger, {"force_rmse"}),
}


@pytest.fixture(scope="module")
def nve_report(box, tmp_path_factory):
    """One case with every fault as a candidate: they share the runs of the reference."""
    makers = {**HARMLESS, **{fault: make for fault, (make, _) in FAULTS.items()}}
    # replicas that decay or heat scatter: Student's t of three has 2 degrees of freedom, too few for p < 0.01 / 13
    case = argon_case(models=tuple(f"{label}.pt" for label in makers), replicas=4)
    potentials = {label: Potential(label, make()) for label, make in makers.items()}
    directory = tmp_path_factory.mktemp("nve")
    return compare_potentials(
        case, box, {**potentials, "reference": Potential("reference", Argon())}, directory
    )


def verdict_on(report, label):
    return next(verdict for verdict in report.verdicts if verdict.label == label)


@pytest.mark.parametrize("label", HARMLESS)
def test_a_harmless_change_passes(nve_report, label):
    verdict = verdict_on(nve_report, label)
    assert {str(test.outcome) for test in verdict.tests} == {"pass"}
    assert verdict.sentence.startswith("pass: within the stated limits of float64 in all 12 tests")


def test_a_potential_judged_against_itself_has_no_error(nve_report):
    (findings,) = (each for each in nve_report.findings if each.label == "itself")
    assert findings.candidate["energy_drift"] == findings.reference["energy_drift"]
    assert [each.value for each in findings.candidate["force_rmse"]] == [0, 0, 0, 0]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(nve_report, fault):
    _, observables = FAULTS[fault]
    verdict = verdict_on(nve_report, fault)
    failed = {test.observable for test in verdict.tests if test.outcome == "fail"}
    assert observables & failed, [
        (test.observable, str(test.outcome), test.p_corrected) for test in verdict.tests
    ]
    assert verdict.outcome == "fail" and verdict.sentence.startswith("fail: ")


def test_another_model_conserves_its_own_energy(nve_report):
    decided = {test.observable: str(test.outcome) for test in verdict_on(nve_report, "another-model").tests}
    assert decided["gradient"] == decided["energy_drift"] == "pass"


def test_one_bad_candidate_fails_the_case(nve_report):
    assert nve_report.exit_status == 1


def test_a_wrong_timestep_of_the_candidate_is_caught(box, tmp_path, monkeypatch):
    make_dynamics = AseEngine._make_dynamics

    def make_slow(engine, atoms, segment, barostat):
        dynamics = make_dynamics(engine, atoms, segment, barostat)
        dynamics.dt *= 2 if segment.potential == "candidate" else 1
        return dynamics

    monkeypatch.setattr(AseEngine, "_make_dynamics", make_slow)
    limits = {"fluctuation_floor_meV_per_atom": 0.001}  # argon's fluctuation is below the default one
    report = judge_argon(
        box, tmp_path, Argon(), limits=limits, observables=["energy_fluctuation"], length_ps=9.6
    )
    assert failed(report) == {"energy_fluctuation"}  # four times as large


def test_a_drift_hidden_by_a_thermostat_is_caught(box, tmp_path):
    cold = Faulty(Argon(), add_friction(-0.05))
    report = judge_argon(
        box, tmp_path, cold, ensemble="nvt", observables=["temperature", "energy_drift"], replicas=4
    )
    assert outcomes(report)["energy_drift"] == "fail"
    assert outcomes(report)["temperature"] != "fail"  # the thermostat hides it there


class Smaller(Argon):
    sigma = 3.1


def test_nvt_passes_what_is_sound_and_catches_another_structure(box, tmp_path):
    observables = ("energy_drift", "kinetic_distribution", "rdf", "coordination", "shadow")
    case = argon_case("nvt", observables=observables, length_ps=12.0, models=("float32.pt", "smaller.pt"))
    calculators = {"float32": Faulty(Argon(), round_to_float32), "smaller": Smaller(), "reference": Argon()}
    potentials = {label: Potential(label, calculator) for label, calculator in calculators.items()}
    report = compare_potentials(case, box, potentials, tmp_path)
    sound = {test.observable: str(test.outcome) for test in verdict_on(report, "float32").tests}
    assert "fail" not in sound.values() and sound["energy_drift"] == "pass"
    other = {test.observable: str(test.outcome) for test in verdict_on(report, "smaller").tests}
    assert other["rdf Ar-Ar"] == "fail"


def test_a_softer_bond_and_a_wrong_mass_are_caught(tmp_path, monkeypatch):
    """H2 on a spring: 1 % softer shows in the forces, deuterium's mass, with the right forces, in the spectrum."""
    make_dynamics = AseEngine._make_dynamics

    def make_heavy(engine, atoms, segment, barostat):
        if segment.potential == "heavy":
            atoms.set_masses([2.014, 2.014])
        return make_dynamics(engine, atoms, segment, barostat)

    monkeypatch.setattr(AseEngine, "_make_dynamics", make_heavy)
    atoms = ase.Atoms("H2", positions=[[0, 0, 0], [0.76, 0, 0]])
    ase.io.write(tmp_path / "h2.xyz", atoms)
    case = Case(
        "nvt", ("softer.pt", "heavy.pt"), "spring", "ase", temperature_K=300, length_ps=2.0, checkpoint_ps=0.5,
        equilibration_ps=0.0, observables=("vdos", "shadow"),
    )  # fmt: skip
    calculators = {
        "softer": Spring(constant=0.99 * SPRING_eV_PER_A2),
        "heavy": Spring(),
        "reference": Spring(),
    }
    potentials = {label: Potential(label, calculator) for label, calculator in calculators.items()}
    report = compare_potentials(case, Structure(tmp_path / "h2.xyz", atoms), potentials, tmp_path)
    failed = {
        v.label: {test.observable for test in v.tests if test.outcome == "fail"} for v in report.verdicts
    }
    assert "force_slope" in failed["softer"]
    assert "vdos_shift" in failed["heavy"] and "force_slope" not in failed["heavy"]


def test_nan_gives_a_verdict_that_names_the_step(box, tmp_path):
    report = judge_argon(
        box, tmp_path, Faulty(Argon(), break_at(1000)), length_ps=12.0, observables=["energy_drift"]
    )
    assert failed(report) == {"completed"}
    sentence = report.verdicts[0].sentence
    assert (
        "replicas broke off: 3 of 3 (replica 0: run fails at step 1000 (8 ps): energy is not finite"
        in sentence
    )


def test_a_reference_that_drifts_makes_the_case_fail_not_the_candidate(box, tmp_path):
    with pytest.raises(CaseError, match=r"reference itself drifts by .* times what .* the case is at fault"):
        reference = Faulty(Argon(), add_friction(-0.3))
        judge_argon(box, tmp_path, Argon(), reference, observables=["drift_ratio", "energy_drift"])
    page = (tmp_path / "reference.html").read_text()  # shows why
    assert "The float64 reference itself drifts by" in page and 'data-name="energy"' in page
    assert json.loads((tmp_path / "report.json").read_text())["outcome"] == "error"
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(CaseError, match=r"expected verdicts, got none: float64 itself was not sound"):
        read_report(tmp_path / "report.json")


def test_a_reference_whose_fluctuation_is_no_integrator_s_is_refused(box, tmp_path):
    with pytest.raises(
        CaseError, match=r"reference itself has a fluctuation of E that goes as dt\^.*case is at fault"
    ):
        judge_argon(
            box, tmp_path, Argon(), Faulty(Argon(), add_noise(1, seed=1)), observables=["timestep_exponent"]
        )


def test_a_timestep_too_long_for_the_reference_is_the_cases_fault(box, tmp_path):
    with pytest.raises(CaseError, match=r"reference itself fails .*the case is at fault"):
        judge_argon(box, tmp_path, Argon(), timestep_fs=2000.0, length_ps=600.0, equilibration_ps=0)
    with pytest.raises(CaseError, match=r"reference itself fails \(replica 0: preparation fails at step \d+"):
        judge_argon(box, tmp_path / "hot", Argon(), timestep_fs=2000.0, length_ps=600.0, equilibration_ps=400)


@pytest.mark.parametrize(
    "spoil", [round_to_float32, add_noise(5, 1), break_at(300)], ids=["pass", "fail", "nan"]
)
def test_the_verdict_is_made_again_from_the_json(box, tmp_path, spoil):
    report = judge_argon(
        box, tmp_path, Faulty(Argon(), spoil), length_ps=2.4, observables=["energy_drift", "shadow"]
    )
    text = (tmp_path / "report.json").read_text()
    again = read_report(tmp_path / "report.json")
    assert again.to_json() == text == report.to_json()
    stored = json.loads(text)
    assert stored["outcome"] == again.outcome == report.outcome
    assert stored["verdicts"][0]["sentence"] == again.verdicts[0].sentence


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(box, tmp_path):
    first, again, other = (
        judge_argon(box, tmp_path / name, Argon(), length_ps=2.1, observables=["energy_drift"], seed=seed)
        .findings[0].candidate["energy_drift"]
        for name, seed in (("a", 1), ("b", 1), ("c", 20))
    )  # fmt: skip
    assert first == again != other


@pytest.mark.slow
def test_float64_against_itself_fails_in_no_more_cases_than_stated(box, tmp_path):
    """40 trials with thermostats of different seeds, so that candidate and reference share nothing but the ensemble."""
    trials = 40
    observables = ["energy_drift", "temperature", "kinetic_distribution", "rdf", "coordination"]
    alarms = 0
    for trial in range(trials):
        report = judge_argon(
            box,
            tmp_path / str(trial),
            Argon(),
            ensemble="nvt",
            observables=observables,
            seed=10 * trial,
            length_ps=12.0,
        )
        alarms += report.exit_status == 1
    assert alarms <= stats.binom.ppf(0.9, trials, LIMITS["false_alarm"].value)  # one
