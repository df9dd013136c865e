"""The validator judged: closed forms, planted faults that it must catch, harmless changes that it must pass."""

import json

import ase
import ase.io
import numpy as np
import pytest
from ase import units
from validation_toys import (
    Argon,
    Faulty,
    Spring,
    SPRING_eV_PER_A2,
    add_curl,
    add_friction,
    add_noise,
    argon_box,
    break_at,
)

from mdplugin.errors import CaseError
from mdplugin.validation.nve import NveCase, Potential, compare_potentials, open_stage
from mdplugin.validation.observables import measure_run
from mdplugin.validation.progress import show_progress
from mdplugin.validation.report import read_report
from mdplugin.validation.runner_ase import AseEngine
from mdplugin.validation.series import Run
from mdplugin.validation.systems import Structure


@pytest.fixture(scope="module")
def box(tmp_path_factory):
    path = tmp_path_factory.mktemp("argon") / "argon.xyz"
    ase.io.write(path, argon_box())
    return Structure(path, argon_box())


def argon_case(**changes):
    settings = {
        "model": "candidate",
        "reference": "reference",
        "engine": "ase",
        "steps": 600,
        "timestep_fs": 8.0,
        "temperature_K": 120,
        "equilibration_steps": 60,
    }
    return NveCase(**{**settings, **changes})


def judge_argon(box, directory, candidate, reference=None, **changes):
    case = argon_case(**changes)
    with open_stage(directory) as stage:
        return compare_potentials(
            case,
            box,
            Potential("candidate", candidate),
            Potential("reference", reference or Argon()),
            stage,
            command=["pytest"],
        )


def failed_checks(report):
    return [check.name for check in report.verdict.checks if check.outcome == "fail"]


def run_spring(directory, timestep_fs):
    """A vibrating H2 of energy 0.1 eV in velocity Verlet: its run."""
    atoms = ase.Atoms("H2", positions=[[0, 0, 0], [0.74, 0, 0]])
    momentum = np.sqrt(0.1 * atoms.get_masses()[0])
    atoms.set_momenta([[momentum, 0, 0], [-momentum, 0, 0]])
    case = argon_case(timestep_fs=timestep_fs, steps=2000, equilibration_steps=0)
    with show_progress(0, quiet=True) as progress:
        engine = AseEngine(case, atoms, {"spring": Potential("spring", Spring())}, directory, progress)
        return engine.run("spring")


def test_velocity_verlet_on_a_spring_has_no_drift_and_the_fluctuation_of_its_closed_form(tmp_path):
    omega_squared = 2 * SPRING_eV_PER_A2 / ase.Atoms("H").get_masses()[0]
    rms = {}
    for timestep_fs in (0.2, 0.4):
        measures = measure_run(run_spring(tmp_path, timestep_fs))
        # velocity Verlet conserves p^2/2m + k x^2/2 (1 - w^2 dt^2/4) exactly, so that E oscillates by
        # E0 w^2 dt^2/4 cos^2(wt), whose standard deviation is E0 w^2 dt^2/4 / sqrt(8); next order: w^2 dt^2/4
        half_phase = omega_squared * (timestep_fs * units.fs) ** 2 / 4
        expected = 1000 * 0.1 / 2 * half_phase / np.sqrt(8)
        rms[timestep_fs] = measures.rms_meV_per_atom
        assert abs(rms[timestep_fs] / expected - 1) <= 1.5 * half_phase
        # the slope of an oscillation A cos(2wt) over a length L: at most 24 A / (2w L^2) from 4 blocks or more
        frequency_per_ps = 2 * np.sqrt(omega_squared) * 1000 * units.fs
        bound = 24 * np.sqrt(2) * rms[timestep_fs] / (frequency_per_ps * measures.length_ps**2) / (1 - 1 / 16)
        assert abs(measures.drift.value) <= bound
        assert abs(measures.drift_ratio) <= 1e-3
    assert abs(rms[0.4] / rms[0.2] - 4) <= 0.1


def test_a_potential_judged_against_itself_passes(box, tmp_path):
    report = judge_argon(box, tmp_path, Argon())
    assert report.verdict.outcome == "pass"
    assert report.measures.candidate.drift == report.measures.reference.drift
    assert report.measures.shadow.force_max_meV_per_A == 0


def round_to_float32(results, atoms, call):
    results["forces"] = results["forces"].astype(np.float32).astype(np.float64)


def test_forces_rounded_to_float32_pass(box, tmp_path):
    report = judge_argon(box, tmp_path, Faulty(Argon(), round_to_float32))
    assert report.verdict.outcome == "pass"


def soften(results, atoms, call):
    results["forces"] *= 0.98


def kick(results, atoms, call):
    results["forces"] *= 1e4


# independent kicks and curls make the energy diffuse: a random walk, of which the slope is uncertain
FAULTS = {
    "noise": (add_noise(5, seed=1), "fluctuation of the total energy"),
    "curl": (add_curl(3), "fluctuation of the total energy"),
    "friction": (add_friction(0.02), "drift against reference"),
    "driving": (add_friction(-0.02), "drift against reference"),
    "forces-scaled": (soften, "fluctuation of the total energy"),
    "explosion": (kick, "failed runs"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(box, tmp_path, fault):
    spoil, check = FAULTS[fault]
    report = judge_argon(box, tmp_path, Faulty(Argon(), spoil))
    assert report.verdict.outcome == "fail"
    assert check in failed_checks(report)
    assert report.verdict.sentence.startswith("fail: ")


def test_another_model_is_caught_by_its_forces_though_it_conserves_energy(box, tmp_path):
    other = Argon()
    other.sigma = 3.5
    report = judge_argon(box, tmp_path, other)
    assert failed_checks(report) == ["force error (rms) against reference"]


def test_nan_gives_a_verdict_that_names_the_step(box, tmp_path):
    report = judge_argon(box, tmp_path, Faulty(Argon(), break_at(123)), equilibration_steps=0)
    assert report.measures.candidate.failure.step == 123
    assert "NVE run fails at step 123: energy is not finite" in report.verdict.sentence
    assert report.verdict.outcome == "fail"
    assert all(check.outcome == "fail" for check in report.verdict.checks)


def test_a_candidate_that_cannot_equilibrate_fails_and_the_reference_is_still_run(box, tmp_path):
    report = judge_argon(box, tmp_path, Faulty(Argon(), break_at(10)))
    assert report.measures.equilibration_failure.step == 10
    assert report.measures.reference.failure is None
    assert "equilibration fails at step 10" in report.verdict.sentence


def test_a_reference_that_drifts_makes_the_case_fail_not_the_candidate(box, tmp_path):
    with pytest.raises(CaseError, match=r"reference itself drifts .* ratio .* shorter --timestep-fs"):
        judge_argon(box, tmp_path, Argon(), Faulty(Argon(), add_friction(-0.3)))


def test_a_timestep_too_long_for_the_reference_is_the_cases_fault(box, tmp_path):
    with pytest.raises(CaseError, match=r"float64 reference itself fails at step .* the case is at fault"):
        judge_argon(box, tmp_path, Argon(), timestep_fs=2000.0, equilibration_steps=0)
    with pytest.raises(CaseError, match=r"equilibration fails with the candidate at step \d+ and with the"):
        judge_argon(box, tmp_path, Argon(), timestep_fs=2000.0)


@pytest.mark.parametrize(
    "spoil", [round_to_float32, add_friction(0.02), break_at(300)], ids=["pass", "fail", "nan"]
)
def test_the_verdict_is_made_again_from_the_json_and_the_numbers_from_the_series(box, tmp_path, spoil):
    report = judge_argon(box, tmp_path, Faulty(Argon(), spoil))
    text = (tmp_path / "report.json").read_text()
    again = read_report(tmp_path / "report.json")
    assert again.to_json() == text == report.to_json()
    stored = json.loads(text)["verdict"]
    assert stored["outcome"] == again.verdict.outcome == report.verdict.outcome
    with np.load(tmp_path / "energies.npz") as arrays:
        for label in ("candidate", "reference"):
            measured = getattr(again.measures, label)
            columns = (
                arrays[f"{label}_{name}"] for name in ("time_ps", "potential_eV", "kinetic_eV", "wall_s")
            )
            run = Run(*columns, int(arrays[f"{label}_n_atoms"]), measured.failure)
            assert repr(measure_run(run)) == repr(measured)  # repr: NaN equals NaN


def test_a_report_has_its_files_and_says_where_it_comes_from(box, tmp_path, capfd):
    report = judge_argon(box, tmp_path / "new" / "directory", Argon())
    names = {file.name for file in report.directory.iterdir()}
    assert names == {
        "report.json",
        "report.md",
        "energies.npz",
        "energy.png",
        "candidate.xyz",
        "reference.xyz",
    }
    assert (report.directory / "energy.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads((report.directory / "report.json").read_text())["provenance"]
    assert facts["seed"] == 0 and facts["command"] == ["pytest"] and facts["versions"]["torch"]
    assert len(facts["structure"]["sha256"]) == 64 and facts["cpu"] and facts["threads"] >= 1
    frames = ase.io.read(report.directory / "candidate.xyz", ":")
    assert len(frames) == 31 and frames[1].info["time_fs"] == 160
    assert capfd.readouterr().err == ""  # no progress bar where nobody watches


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(box, tmp_path):
    first, again, other = (
        judge_argon(
            box, tmp_path / name, Argon(), steps=256, equilibration_steps=10, seed=seed
        ).measures.candidate.drift
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


def test_a_case_that_ends_in_an_error_leaves_an_earlier_report_as_it_was(box, tmp_path):
    judge_argon(box, tmp_path, Argon(), steps=256)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(CaseError):
        judge_argon(box, tmp_path, Argon(), timestep_fs=2000.0)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
