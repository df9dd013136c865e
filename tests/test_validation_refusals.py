"""What no run can do, or a damaged directory holds, is one line that says what to do."""

import json
from pathlib import Path

import ase
import ase.io
import numpy as np
import pytest
from validation_artifacts import crystal, save_morse

from mdplugin.cli import main
from mdplugin.errors import CaseError, StructureError
from mdplugin.validation.case import Case
from mdplugin.validation.case_file import read_case
from mdplugin.validation.report import read_report
from mdplugin.validation.systems import find_structure
from mdplugin.validation.workspace import prepare


def without_cell():
    atoms = crystal()
    atoms.cell = np.zeros((3, 3))
    return atoms


def flat():
    atoms = crystal()
    atoms.cell[2] = atoms.cell[0] + [0, 1e-4, 0]
    return atoms


def squeezed():
    return ase.Atoms(crystal().symbols, crystal().positions, cell=0.3 * np.eye(3), pbc=True)


def on_top():
    atoms = crystal()
    atoms.positions[5] = atoms.positions[4] + [0, 0, 0.05]
    return atoms


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (without_cell, "expected a cell vector of its own for each of its 3 periods"),
        (flat, "expected a cell vector of its own for each of its 3 periods"),
        (squeezed, "expected atoms at least 0.2 Å apart"),
        (on_top, r"got atoms [45] and [45] at 0\.05 Å: is the cell right"),
    ],
)
def test_a_box_that_is_flat_or_full_is_refused(tmp_path, make, message):
    ase.io.write(tmp_path / "box.extxyz", make())
    with pytest.raises(StructureError, match=message) as caught:
        find_structure(tmp_path / "box.extxyz", "some.model")
    assert "box.extxyz" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", [(0, 0, 0), (9, 0, 0), (9, 8, 0)], ids=str)
def test_directions_without_a_period_need_no_cell_vector(tmp_path, cell):
    atoms = ase.Atoms("ArNe", positions=[[0, 0, 0], [0, 0, 3]], cell=cell, pbc=np.array(cell) > 0)
    ase.io.write(tmp_path / "few.extxyz", atoms)
    assert len(find_structure(tmp_path / "few.extxyz", "some.model").atoms) == 2


@pytest.mark.parametrize("name", ["threads", "ranks"])
def test_more_cores_than_a_run_can_have_are_refused(name):
    with pytest.raises(CaseError, match=f"{name}: expected at most 1024, got 100000"):
        Case("nve", ("m.pt",), "water", **{name: 100_000})


def test_a_hidden_model_is_refused():
    """Its copy would be called as what is being written beside it."""
    with pytest.raises(CaseError, match=r"got \.reference\.pt twice, hidden, or"):
        Case("nve", (".reference.pt",), "water")


def test_endless_nesting_is_no_case(tmp_path):
    (tmp_path / "deep.yaml").write_text("[" * 5000)
    with pytest.raises(CaseError, match=r"deep.yaml: not a case: .* nested too deeply"):
        read_case(str(tmp_path / "deep.yaml"))


@pytest.fixture
def planned(tmp_path):
    """A prepared directory, and the command line that made it."""
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    words = ["validate", "nve", "--model", save_morse(tmp_path / "low.pt", "fp32"), "--engine", "ase"]
    words += ["--reference", save_morse(tmp_path / "morse.pt"), "--structure", tmp_path / "crystal.xyz"]
    words = [*map(str, words), "--plan", "-o", str(tmp_path / "report")]
    return tmp_path / "report", words


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: record.update(case={}), "expected a value for ensemble, models, reference, got none"),
        (lambda record: record["case"].update(limits=[1]), "limits: expected names and numbers"),
        (
            lambda record: record["case"].update(length_ps="x"),
            "length_ps: expected a positive number, got 'x'",
        ),
        (lambda record: record["sha256"].update(low=5), "hashes that are no texts"),
    ],
    ids=["case", "limits", "length", "hash"],
)
@pytest.mark.parametrize("again", [True, False], ids=["again", "collect"])
def test_a_damaged_case_file_is_named(planned, capsys, change, message, again):
    directory, words = planned
    assert main(words) == 0
    file = directory / "case.json"
    record = json.loads(file.read_text())
    change(record)
    file.write_text(json.dumps(record))
    capsys.readouterr()
    assert main(words if again else ["validate", "--collect", "-o", str(directory)]) == 3
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line and str(directory) in line


def test_a_directory_in_the_place_of_the_commands_is_named(planned, capsys):
    directory, words = planned
    (directory / "commands.txt").mkdir(parents=True)
    assert main(words) == 3
    assert "commands.txt: expected a file or nothing, got a directory" in capsys.readouterr().err


def test_a_report_without_its_numbers_is_no_report(tmp_path):
    for text in ('{"schema": 2}', '{"schema": 2, "case": {}}', '{"schema": 2, "case": null}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(CaseError, match=r"report.json: expected"):
            read_report(tmp_path / "report.json")


def test_a_report_without_one_side_of_its_numbers_passes_nothing(tmp_path):
    content = json.loads(
        (Path(__file__).parents[1] / "docs" / "policies" / "silicon-64-nve.json").read_text()
    )
    del content["findings"][0]["candidate"]
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(CaseError, match=r"report.json: expected a whole report.json .*'candidate'"):
        read_report(tmp_path / "report.json")


def test_a_case_says_what_it_was_not_asked_for(tmp_path):
    from mdplugin.validation.study import validate

    ase.io.write(tmp_path / "crystal.xyz", crystal())
    case = Case(
        "nve", (str(save_morse(tmp_path / "low.pt", "fp32")),), str(save_morse(tmp_path / "morse.pt")), "ase",
        structure=str(tmp_path / "crystal.xyz"), length_ps=0.2, equilibration_ps=0.0, observables=("shadow",),
    )  # fmt: skip
    prepare(case, tmp_path / "report")
    sentence = validate(case, tmp_path / "report", quiet=True).verdicts[0].sentence
    assert "it was not asked for energy_drift, drift_ratio, " in sentence and "shadow" not in sentence
    assert "runs of 0.2 ps conclude nothing on drifts" in sentence


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("length_ps: 1:30", "length_ps: expected a positive number, got '1:30'"),
        ("seed: 010", "seed: expected an integer of at least 0, got '010'"),
        ("seed: 1_000", "seed: expected an integer of at least 0, got '1_000'"),
    ],
)
def test_a_number_that_yaml_1_1_reads_as_another_is_refused(tmp_path, text, message):
    """Of which PyYAML makes 90, 8 and 1000."""
    path = tmp_path / "case.yaml"
    path.write_text(f"ensemble: nve\nmodels: [m.pt]\nreference: water\n{text}\n")
    with pytest.raises(CaseError, match=message):
        read_case(str(path))


@pytest.mark.parametrize(
    ("text", "value"), [("2e0", 2.0), ("2.5e+0", 2.5), ("+2", 2), (".5", 0.5), ("3.", 3.0)]
)
def test_a_number_with_an_exponent_is_one(tmp_path, text, value):
    path = tmp_path / "case.yaml"
    path.write_text(f"ensemble: nve\nmodels: [m.pt]\nreference: water\nlength_ps: {text}\n")
    assert read_case(str(path)).length_ps == value
