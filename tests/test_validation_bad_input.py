"""Cases that cannot be run: one clear line, exit status 3, nothing written."""

import ase
import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms
from validation_artifacts import crystal, save_morse

from mdplugin.cli import main
from mdplugin.errors import CaseError, MDPluginError, StructureError
from mdplugin.validation.nve import NveCase, validate_nve
from mdplugin.validation.report import read_report
from mdplugin.validation.systems import find_structure

GOOD = {"model": "m.pt", "reference": "water", "engine": "ase", "steps": 1000}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "gromacs"}, "engine: expected one of ase, lammps, got 'gromacs'"),
        ({"steps": 100}, "steps: expected an integer of at least 256 .*, got 100"),
        ({"steps": 1e3}, "steps: expected an integer .*, got 1000.0"),
        ({"timestep_fs": 0}, "timestep_fs: expected a positive number, got 0"),
        ({"timestep_fs": float("nan")}, "timestep_fs: expected a positive number, got nan"),
        ({"temperature_K": -1.0}, "temperature_K: expected a positive number, got -1.0"),
        ({"equilibration_steps": -5}, "equilibration_steps: expected an integer of at least 0, got -5"),
        ({"trajectory_every": 0}, "trajectory_every: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"seed": 10**9}, "seed: expected at most 899999998, got 1000000000"),
        ({"threads": 0}, "threads: expected an integer of at least 1, got 0"),
    ],
    ids=str,
)
def test_a_case_that_cannot_be_run_is_refused_when_it_is_stated(changes, message):
    with pytest.raises(CaseError, match=f"^{message}$"):
        NveCase(**{**GOOD, **changes})


def write_text(path):
    path.write_text("not a structure\n")


def write_single_atom(path):
    ase.io.write(path, ase.Atoms("Ar", positions=[[0, 0, 0]]))


def write_constrained(path):
    atoms = crystal()
    atoms.set_constraint(FixAtoms([0]))
    ase.io.write(path, atoms)


def write_nan(path):
    atoms = crystal()
    atoms.positions[3, 1] = np.nan
    ase.io.write(path, atoms)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (write_text, "ASE cannot read it"),
        (write_single_atom, "expected at least 2 atoms, got 1"),
        (write_constrained, "expected no constraints"),
        (write_nan, "expected finite positions"),
        (lambda path: None, "no such file, nor a bundled structure"),
    ],
    ids=["text", "single-atom", "constrained", "nan", "missing"],
)
def test_a_structure_that_cannot_be_run_is_refused(tmp_path, write, message):
    path = tmp_path / "structure.xyz"
    write(path)
    with pytest.raises(StructureError, match=message) as caught:
        find_structure(path, "some.model")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_structure_only_a_bundled_reference_has_a_box_of_its_own():
    with pytest.raises(CaseError, match=r"some.model is not a bundled potential .* give --structure FILE"):
        find_structure(None, "some.model")
    assert find_structure(None, "water").path.name == "water-64.xyz"


def run_cli(capsys, directory, **changes):
    """Exit status and stderr of a small case with the given options."""
    save_morse(directory / "morse.pt")
    save_morse(directory / "low.pt", "fp32")
    ase.io.write(directory / "crystal.xyz", crystal())
    ase.io.write(directory / "xenon.xyz", ase.Atoms("ArXe", positions=[[0, 0, 0], [4, 0, 0]]))
    options = {
        "model": directory / "low.pt",
        "reference": directory / "morse.pt",
        "engine": "ase",
        "steps": 256,
        "structure": directory / "crystal.xyz",
        "output": directory / "report",
    }
    words = [str(word) for name, value in {**options, **changes}.items() for word in (f"--{name}", value)]
    try:
        status = main(["validate", "nve", *words])
    except SystemExit as stop:  # argparse
        status = stop.code
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "gromacs"}, "engine: expected one of ase, lammps, got 'gromacs'"),
        ({"steps": "many"}, "invalid int value"),
        ({"temperature-K": -3}, "temperature_K: expected a positive number"),
        ({"reference": "{}/low.pt"}, "got an artifact of precision fp32"),
        ({"structure": "{}/xenon.xyz"}, "elements Xe are not in low.pt; it knows Ne Ar"),
        ({"model": "{}/crystal.xyz"}, "expected an artifact"),
        ({"output": "{}/morse.pt/report"}, "choose a writable directory with -o"),
        ({"temperature": 300}, "unrecognized arguments"),
    ],
    ids=["engine", "steps", "temperature", "reference", "element", "model", "output", "option"],
)
def test_bad_options_end_in_one_line_and_exit_status_3(capsys, tmp_path, changes, message):
    changes = {name: str(value).format(tmp_path) for name, value in changes.items()}
    status, error = run_cli(capsys, tmp_path, **changes)
    assert status == 3
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "report").exists()


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    from mdplugin.validation import nve

    def work(*arguments, **options):
        raise AssertionError("work was done")

    for name in ("load_potential", "load_reference", "compare_potentials"):
        monkeypatch.setattr(nve, name, work)
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    artifact = save_morse(tmp_path / "morse.pt")
    case = NveCase(artifact, artifact, "ase", steps=256, structure=tmp_path / "crystal.xyz")
    with pytest.raises(CaseError, match="cannot write"):
        validate_nve(case, artifact)


def test_a_file_that_is_no_report_is_refused(tmp_path):
    for text in ("{}", "no json", '{"schema": 1, "kind": "nvt"}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(MDPluginError, match="expected a"):
            read_report(tmp_path / "report.json")
