"""Bad input on the command line: one clear line, exit status 3, no traceback, nothing left half-written."""

import os
import subprocess
import sys
from pathlib import Path

import ase.io
import pytest
import torch

from mdplugin.cli import main

MDPLUGIN = str(Path(sys.executable).with_name("mdplugin"))


def run(capsys, *arguments):
    """(exit status, stderr) of a command line, run in this process."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse
        status = stop.code
    return status, capsys.readouterr().err


def make_text(path, artifact):
    path.write_text("this is not a model\n")


def make_truncated(path, artifact):
    path.write_bytes(artifact.read_bytes()[:20000])


def make_torchscript(path, artifact):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)


def make_lammps_export(path, artifact):
    """What `mace_create_lammps_model` writes: the case that gave NaN from step 1 when cast (ACEsuit/mace#990)."""
    from mdplugin.checkpoint import _mace, read_checkpoint

    with _mace():
        from e3nn.util import jit
        from mace.calculators import LAMMPS_MACE

        jit.compile(LAMMPS_MACE(read_checkpoint("water").network)).save(str(path))


def make_artifact(path, artifact):
    path.write_bytes(artifact.read_bytes())


def make_other_network(path, artifact):
    torch.save(torch.nn.Linear(2, 2), path)


def make_state(path, artifact):
    torch.save({"model": {}, "optimizer": {}, "epoch": 3}, path)


NO_MODELS = [
    (make_text, "expected a MACE checkpoint"),
    (make_truncated, "expected a MACE checkpoint"),
    (make_torchscript, "got a compiled TorchScript network"),
    (make_lammps_export, "a MACE exported for LAMMPS?"),
    (make_artifact, "got an artifact of mdplugin export"),
    (make_other_network, "expected a network of class MACE or ScaleShiftMACE, got Linear"),
    (make_state, "a training checkpoint or state_dict"),
]


@pytest.mark.parametrize(("make", "message"), NO_MODELS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_file_that_is_no_mace_checkpoint_is_refused(tmp_path, capsys, artifacts, make, message):
    source = tmp_path / "source.model"
    make(source, artifacts["water", "fp32"])
    status, error = run(capsys, "export", source, "-o", tmp_path / "out.pt")
    assert status == 3
    assert message in error and error.count("\n") == 1 and "Traceback" not in error
    assert os.listdir(tmp_path) == ["source.model"]


EXPORTS = [
    (["nowhere.model", "-o", "w.pt"], "no such file, nor a bundled potential"),
    (["water", "-o", "w.pt", "--precision", "fp8"], "w8a8, fp32,ROLE=FORMAT, got 'fp8'"),
    (["water", "-o", "w.pt", "--head", "dft"], "expected a head among Default, got 'dft'"),
    (["water", "-o", "w.pt", "--backend", "cueq"], "backend: expected one of auto, native, e3nn, got 'cueq'"),
    (["water", "-o", "w.pt", "--precison", "fp32"], "unrecognized arguments: --precison"),
    (["water", "-o", "w.pt", "--prec", "fp32"], "unrecognized arguments: --prec"),
    (["water", "-o", "nowhere/w.pt"], "nowhere: No such file or directory"),
    (["water"], "required: -o/--output"),
    (
        ["water", "-o", "w.pt", "--structures", "silicon.xyz"],
        "elements Si are not in water.json; it knows H O",
    ),
    (["water", "-o", "w.pt", "--structures", "nowhere.xyz"], "nowhere.xyz: no such file"),
    (["water", "-o", "w.pt", "--structures", "text.xyz"], "ASE cannot read it"),
]


@pytest.mark.parametrize(("arguments", "message"), EXPORTS)
def test_export_refuses_before_it_works(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    ase.io.write("silicon.xyz", ase.Atoms("Si2", positions=[[0, 0, 0], [2.3, 0, 0]]))
    Path("text.xyz").write_text("not\nxyz\n")
    status, error = run(capsys, "export", *arguments)
    assert status == 3
    assert message in error and error.count("\n") == 1
    assert sorted(os.listdir(tmp_path)) == ["silicon.xyz", "text.xyz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_refused(tmp_path, capsys):
    tmp_path.chmod(0o500)
    status, error = run(capsys, "export", "water", "-o", tmp_path / "w.pt")
    assert status == 3 and "Permission denied" in error


def test_an_output_that_cannot_be_written_is_refused(capsys):
    status, error = run(capsys, "export", "water", "-o", "/proc/w.pt")  # not writable for root either
    assert status == 3
    assert "cannot write /proc/w.pt" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_text, "got a file that is none"),
        (make_torchscript, "not made by `mdplugin export`"),
        (make_other_network, "a checkpoint, not an artifact: run `mdplugin export"),
    ],
)
def test_inspect_says_what_a_file_is_instead(tmp_path, capsys, artifacts, make, message):
    make(tmp_path / "x.pt", artifacts["water", "fp32"])
    status, error = run(capsys, "inspect", tmp_path / "x.pt")
    assert status == 3 and message in error and error.count("\n") == 1


def test_compare_names_the_element_that_the_model_does_not_know(tmp_path, capsys, artifacts):
    ase.io.write(tmp_path / "silicon.xyz", ase.Atoms("Si2", positions=[[0, 0, 0], [2.3, 0, 0]]))
    status, error = run(
        capsys,
        "compare",
        artifacts["water", "fp32"],
        "--reference",
        "water",
        "--structures",
        tmp_path / "silicon.xyz",
    )
    assert status == 3
    assert "frame 0: elements Si are not in water.json; it knows H O" in error and error.count("\n") == 1


def test_a_surprise_is_one_line_and_never_a_verdict(monkeypatch, capsys):
    def fail(path):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("mdplugin.artifact.read_manifest", fail)
    status, error = run(capsys, "inspect", "x.pt")
    assert status == 3  # 1 would say that a validation failed
    assert error == "mdplugin: ZeroDivisionError: a bug; `mdplugin --debug ...` shows where\n"
    with pytest.raises(ZeroDivisionError):
        main(["--debug", "inspect", "x.pt"])


@pytest.mark.parametrize("verb", ["export", "inspect", "compare", "validate", "lmp", "doctor"])
def test_every_verb_has_help(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"usage: mdplugin {verb}" in capsys.readouterr().out


def test_the_installed_command_prints_no_traceback(tmp_path):
    done = subprocess.run([MDPLUGIN, "inspect", "nowhere.pt"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3
    assert (
        done.stderr
        == "mdplugin: nowhere.pt: no such file; make one with `mdplugin export MODEL -o nowhere.pt`\n"
    )
    assert done.stdout == ""


def test_inspect_prints_the_manifest_as_json(capsys, artifacts):
    import json

    assert main(["inspect", str(artifacts["water", "fp32"]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["precision"] == "fp32"
