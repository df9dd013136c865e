"""Potentials that break off: the candidate's a verdict with the step, the reference's the end of the case."""

import json

import pytest
from test_validation_engines import small_case
from validation_artifacts import execute_here, save_morse

from mdplugin.errors import CaseError
from mdplugin.validation import study
from mdplugin.validation.plan import plan_runs
from mdplugin.validation.study import collect, validate
from mdplugin.validation.suite import write_suite
from mdplugin.validation.verdict import UnsoundReferenceError
from mdplugin.validation.workspace import execute_one, prepare, read_prepared


def judge_broken(directory, spoiled):
    case = small_case(directory, observables=("energy_drift",))
    broken = save_morse(directory / "broken.pt", "fp32", break_at=30, spoiled=spoiled)
    report = validate(case.replace(models=(str(broken),)), directory / "report", quiet=True)
    assert report.exit_status == 1
    return report.verdicts[0].sentence


@pytest.fixture
def here(monkeypatch):
    """Runs in this process."""
    monkeypatch.setattr(study, "execute_runs", execute_here)


@pytest.mark.usefixtures("here")
def test_forces_that_become_nan_in_lammps_give_a_verdict_with_the_step(tmp_path):
    assert "replicas broke off: 2 of 2 (replica 0: run fails at step 30 (" in judge_broken(
        tmp_path, float("nan")
    )


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("ensemble", ["nve", "npt"])
def test_forces_that_are_nan_from_the_first_step_on_give_a_verdict_in_ase(tmp_path, ensemble):
    """BAOAB asks for them before its first step."""
    case = small_case(tmp_path, ensemble, "ase", observables=("gradient",))
    broken = save_morse(tmp_path / "broken.pt", "fp32", break_at=0, spoiled=float("nan"))
    report = validate(case.replace(models=(str(broken),)), tmp_path / "report", quiet=True)
    assert "replicas broke off: 2 of 2 (replica 0: run fails at step 0 (" in report.verdicts[0].sentence


def test_a_reference_that_breaks_ends_a_case_before_its_candidates_run(tmp_path):
    case = small_case(tmp_path, observables=("energy_drift", "reversal"))
    broken = save_morse(tmp_path / "broken.pt", break_at=30, spoiled=float("nan"))
    report = tmp_path / "report"
    with pytest.raises(CaseError, match=r"float64 reference itself fails .*reference\.html shows it"):
        validate(case.replace(reference=str(broken)), report, jobs=1, quiet=True)
    names = sorted(path.name for path in (report / "runs").iterdir())
    assert names[-2:] == ["reference-0", "reference-1"] and len(names) <= 3  # one more had started
    assert (report / "reference.html").is_file()


@pytest.mark.usefixtures("here")
def test_the_page_of_all_names_the_ensemble_in_which_float64_is_not_sound(tmp_path, capsys):
    broken = save_morse(tmp_path / "broken.pt", break_at=30, spoiled=float("nan"))
    for name, reference in (("nve", {"reference": str(broken)}), ("nvt", {})):
        prepare(small_case(tmp_path, name, observables=("gradient",), **reference), tmp_path / "all" / name)
        for plan in plan_runs(read_prepared(tmp_path / "all" / name)[0]):
            execute_one(tmp_path / "all" / name, plan.name)
    reports = []
    for name in ("nve", "nvt"):
        try:
            reports.append(collect(tmp_path / "all" / name))
        except UnsoundReferenceError as error:
            reports.append(error.report)
    write_suite(reports, tmp_path / "all")
    page = (tmp_path / "all" / "report.html").read_text()
    assert "Validation, nve, nvt: float64 is not sound in nve, Modell" in page
    assert '<td class="error">error</td><td class="' in page and "The float64 reference itself fails" in page
    assert "The float64 reference itself fails" in (tmp_path / "all" / "report.md").read_text()
    assert json.loads((tmp_path / "all" / "nve" / "report.json").read_text())["outcome"] == "error"


@pytest.mark.usefixtures("here")
def test_an_explosion_in_lammps_stops_and_gives_a_verdict(tmp_path):
    assert "above 10000 K: the system explodes" in judge_broken(tmp_path, -1e4)
