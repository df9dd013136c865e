"""A case's directory holds one case: another reference, model or structure is refused, and copies are what was prepared."""

import json
import shutil

import ase.io
import pytest
from test_validation_survival import read_case_of, write_case
from validation_artifacts import crystal, save_morse

import mdplugin
from mdplugin import potentials
from mdplugin.cli import main
from mdplugin.errors import CaseError, MDPluginError
from mdplugin.validation import provenance, workspace
from mdplugin.validation.case import Case
from mdplugin.validation.potential import export_reference, hash_checkpoint
from mdplugin.validation.stage import open_stage
from mdplugin.validation.workspace import execute_one, prepare, read_prepared


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature_K": 90.0}, r"another case \(temperature_K: 100.0 there, 90.0 asked for\)"),
        ({"length_ps": 1.1}, r"another case \(length_ps: 1.2 there, 1.1 asked for\)"),
        (
            {"limits": {"explosion_K": 500.0}},
            r"another case \(limits: \{\} there, \{'explosion_K': 500.0\} asked for\)",
        ),
    ],
    ids=["temperature", "shorter", "explosion"],
)
def test_a_directory_is_not_given_to_another_case(tmp_path, changes, message):
    case = read_case_of(write_case(tmp_path, "ase"))
    prepare(case, tmp_path / "report")
    with pytest.raises(CaseError, match=message):
        prepare(case.replace(**changes), tmp_path / "report")
    save_morse(tmp_path / "morse.pt", break_at=1)  # another artifact under the same name
    placed = (tmp_path / "report" / "models" / "morse.pt").read_bytes()
    with pytest.raises(CaseError, match=r"another case \(morse: another file there, .*morse.pt asked for\)"):
        prepare(case, tmp_path / "report")
    assert (
        tmp_path / "report" / "models" / "morse.pt"
    ).read_bytes() == placed  # refused before anything is touched


def test_another_head_is_another_potential(tmp_path):
    case = read_case_of(write_case(tmp_path, "ase"))
    other = save_morse(tmp_path / "other.pt", head="other")
    for changes in ({"models": (*case.models, str(other))}, {"reference": str(other)}):
        with pytest.raises(
            CaseError, match=r"other.pt: expected the head of .*, 'Default', got 'other': export both"
        ):
            prepare(case.replace(**changes), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_npt_of_a_cluster_is_refused(tmp_path):
    case = read_case_of(write_case(tmp_path, "ase")).replace(
        ensemble="npt", structure="water-hexamer", observables=()
    )
    with pytest.raises(
        CaseError, match=r"npt: expected .* three directions, got water-hexamer\S* with 0: it has no"
    ):
        prepare(case, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.fixture
def checkpoint_case(tmp_path, monkeypatch):
    """A case with a checkpoint as reference, whose export is an artifact that is there already."""
    fp64 = save_morse(tmp_path / "fp64.pt")

    def export(source, target, head, trust):
        shutil.copyfile(fp64, target) if source.endswith(".model") else export_reference(
            source, target, head, trust
        )

    monkeypatch.setattr(workspace, "export_reference", export)
    checkpoint = tmp_path / "some.model"
    checkpoint.write_bytes(b"weights")
    return read_case_of(write_case(tmp_path, "ase", reference=str(checkpoint)))


def test_another_checkpoint_as_reference_is_refused(tmp_path, checkpoint_case):
    report, other = tmp_path / "report", tmp_path / "other.model"
    prepare(checkpoint_case, report)
    moved = tmp_path / "moved.model"
    shutil.copyfile(checkpoint_case.reference, moved)
    prepare(checkpoint_case.replace(reference=str(moved)), report)  # the same file in another place
    prepare(checkpoint_case.replace(reference=str(tmp_path / "fp64.pt")), report)  # what was exported of it
    other.write_bytes(b"other weights")
    with pytest.raises(CaseError, match=rf"\(reference: another file there, {other} asked for\)"):
        prepare(checkpoint_case.replace(reference=str(other)), report)
    with open(checkpoint_case.reference, "ab") as file:
        file.write(b", trained on")  # in its place
    with pytest.raises(CaseError, match=r"\(reference: another file there, .*some.model asked for\)"):
        prepare(checkpoint_case, report)


def test_a_checkpoint_is_no_artifact_that_was_the_reference(tmp_path, checkpoint_case):
    prepare(checkpoint_case.replace(reference=str(tmp_path / "fp64.pt")), tmp_path / "report")
    with pytest.raises(CaseError, match=r"\(reference: another file there, .*some.model asked for\)"):
        prepare(checkpoint_case, tmp_path / "report")


def test_a_directory_without_the_checkpoint_s_hash_is_resumed_with_a_reference_of_the_same_name(
    tmp_path, checkpoint_case
):
    report, path = tmp_path / "report", tmp_path / "report" / "case.json"
    prepare(checkpoint_case, report)
    new = json.loads(path.read_text())
    path.write_text(json.dumps({name: new[name] for name in ("schema", "case", "sha256")}))
    other = tmp_path / "other.model"
    other.write_bytes(b"weights")
    with pytest.raises(CaseError, match=rf"\(reference: another file there, {other} asked for\)"):
        prepare(checkpoint_case.replace(reference=str(other)), report)
    prepare(checkpoint_case, report)
    assert json.loads(path.read_text()) == new


def test_a_reference_whose_case_was_never_prepared_is_exported_anew(tmp_path):
    case = read_case_of(write_case(tmp_path, "ase"))
    stale = tmp_path / "report" / "models" / "reference.pt"
    stale.parent.mkdir(parents=True)
    save_morse(stale, spoiled=2.0)
    prepare(case, tmp_path / "report")
    assert stale.read_bytes() == (tmp_path / "morse.pt").read_bytes()


def test_a_model_that_left_the_case_does_not_come_back_as_another(tmp_path):
    case = read_case_of(write_case(tmp_path, "ase"))
    prepare(case, tmp_path / "report")
    second = save_morse(tmp_path / "second.pt", "fp32")
    prepare(case.replace(models=(str(second),)), tmp_path / "report")
    save_morse(tmp_path / "morse.pt", "fp32")
    with pytest.raises(CaseError, match=r"\(morse: another file there"):
        prepare(case.replace(reference=str(tmp_path / "report/models/reference.pt")), tmp_path / "report")


def test_the_hash_of_a_bundled_checkpoint_is_the_one_that_its_exports_carry(tmp_path, water_checkpoint):
    assert hash_checkpoint("water") == hash_checkpoint(potentials.path("water")) == water_checkpoint.sha256
    assert hash_checkpoint(save_morse(tmp_path / "morse.pt")) is None
    assert hash_checkpoint(tmp_path / "nowhere.model") is None


def test_who_writes_into_a_model_does_not_change_a_prepared_case(tmp_path):
    case = read_case_of(write_case(tmp_path, "ase"))
    prepare(case, tmp_path / "report")
    models = tmp_path / "report" / "models"
    before = (models / "morse.pt").read_bytes()
    other = save_morse(tmp_path / "other.pt", spoiled=2.0)
    shutil.copyfile(other, tmp_path / "morse.pt")  # into the same inode, as cp does
    assert (models / "morse.pt").read_bytes() == (models / "reference.pt").read_bytes() == before
    read_prepared(tmp_path / "report")


@pytest.mark.parametrize("name", ["models/morse.pt", "models/reference.pt", "structure.xyz"])
def test_a_run_and_a_verdict_need_the_files_that_were_prepared(tmp_path, capsys, name):
    case = read_case_of(write_case(tmp_path, "ase"))
    report = tmp_path / "report"
    prepare(case, report)
    if name == "structure.xyz":
        ase.io.write(report / name, crystal()[::-1])
    else:
        save_morse(report / name, spoiled=2.0)
    with pytest.raises(
        CaseError, match=rf"{report / name}: expected the file that the case was prepared with"
    ):
        execute_one(report, "reference-0")
    assert main(["validate", "--collect", "-o", str(report)]) == 3
    error = capsys.readouterr().err
    assert "restore it, or remove it and give the case's `mdplugin validate` command again" in error
    assert error.count("\n") == 1
    (report / name).unlink()
    with pytest.raises(MDPluginError):
        execute_one(report, "reference-0")
    prepare(case, report)
    read_prepared(report)


def test_a_directory_whose_models_are_links_is_resumed(tmp_path):
    case = read_case_of(write_case(tmp_path, "ase"))
    report, source = tmp_path / "report", tmp_path / "morse.pt"
    prepare(case, report)
    placed = report / "models" / "morse.pt"
    placed.unlink()
    placed.hardlink_to(source)
    execute_one(report, "reference-0")
    prepare(case, report)
    assert not placed.samefile(source) and placed.read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    "text",
    [
        '{"schema": 1, "ca',
        '{"schema": 1, "case": 3, "sha256": {}}',
        '{"schema": 1, "case": {}, "sha256": []}',
    ],
)
def test_a_case_file_that_is_torn_or_damaged_is_an_error_of_one_line(tmp_path, text):
    case = read_case_of(write_case(tmp_path, "ase"))
    prepare(case, tmp_path / "report")
    (tmp_path / "report" / "case.json").write_text(text)
    with pytest.raises(CaseError, match=r"expected a directory that `mdplugin validate .* made, got"):
        prepare(case, tmp_path / "report")


def test_a_second_structure_is_refused_by_its_name(tmp_path):
    prepare(read_case_of(write_case(tmp_path, "ase")), tmp_path / "report")
    (tmp_path / "report" / "structure.old").write_text("")
    with pytest.raises(CaseError, match=r"expected one file structure.*, got structure.old, structure.xyz$"):
        read_prepared(tmp_path / "report")


def test_damaged_lines_of_machines_are_passed_over(tmp_path):
    run = tmp_path / "reference-0"
    run.mkdir()
    (run / provenance.MACHINES).write_text('{"cpu": "a"}\n{"cpu"\n{torn}\n[1]\n')
    assert provenance._read_machines(tmp_path) == [{"runs": 1, "cpu": "a"}]


def test_a_directory_in_the_place_of_a_report_moves_no_file_of_it(tmp_path):
    (tmp_path / "b.html").mkdir()
    message = r"b\.html: expected a file or nothing, got a directory: move it away"
    with pytest.raises(CaseError, match=message), open_stage(tmp_path, last="c.json") as stage:
        for name in ("a.md", "b.html", "c.json"):
            (stage / name).write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["b.html"]


def test_a_model_is_not_called_as_the_structure(tmp_path):
    case = read_case_of(write_case(tmp_path, "ase"))
    shutil.copyfile(tmp_path / "morse.pt", tmp_path / "structure.pt")
    with pytest.raises(CaseError, match="expected files of other names than 'structure', got one: rename it"):
        prepare(case.replace(models=(str(tmp_path / "structure.pt"),)), tmp_path / "report")


def test_the_bundled_checkpoint_is_exported_as_the_reference_once(tmp_path, artifacts):
    case = Case("nve", (str(artifacts["water", "fp32"]),), "water", structure="water-hexamer")
    prepare(case, tmp_path)
    reference = tmp_path / "models" / "reference.pt"
    assert mdplugin.read_manifest(reference).precision == "fp64"
    before = reference.stat().st_mtime_ns
    prepare(case, tmp_path)
    assert reference.stat().st_mtime_ns == before
