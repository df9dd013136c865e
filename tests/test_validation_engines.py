"""Both engines end to end: the same start gives the same energies, files can be used again, failures are verdicts."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from validation_artifacts import cluster, crystal, save_morse, skewed_slab

import mdplugin
from mdplugin import potentials
from mdplugin.cli import main
from mdplugin.validation.nve import NveCase, load_potential, validate_nve
from mdplugin.validation.progress import show_progress
from mdplugin.validation.report import read_report
from mdplugin.validation.runner_ase import AseEngine
from mdplugin.validation.runner_lammps import LammpsEngine
from mdplugin.validation.systems import draw_velocities

BIN = Path(sys.executable).parent


def compare_engines(directory, atoms, artifact, temperature_K):
    """Largest difference of E_pot and E_kin per atom between the engines in 20 steps from one start, eV."""
    case = NveCase(artifact, artifact, "ase", steps=256, temperature_K=temperature_K, threads=1)
    object.__setattr__(case, "steps", 20)  # too few for a verdict, enough to compare
    start = draw_velocities(atoms, temperature_K, seed=3)
    runs = []
    with show_progress(0, quiet=True) as progress:
        for engine in (AseEngine, LammpsEngine):
            runs.append(engine(case, start, {"x": load_potential(artifact, 1)}, directory, progress).run("x"))
    first, second = runs
    assert first.failure is None and second.failure is None
    assert len(first.time_ps) == len(second.time_ps) == 21
    return max(
        np.max(np.abs(first.potential_eV - second.potential_eV)) / len(atoms),
        np.max(np.abs(first.kinetic_eV - second.kinetic_eV)) / len(atoms),
        np.max(np.abs(first.time_ps - second.time_ps)),
    )


def test_ase_and_lammps_agree_for_20_steps_of_water_in_fp64(tmp_path, artifacts):
    atoms = ase.io.read(potentials.find_structure("water-hexamer")).copy()
    # LAMMPS's constant for the kinetic energy has 8 digits: 6e-8 of 0.04 eV/atom is 2e-9
    assert compare_engines(tmp_path, atoms, artifacts["water", "fp64"], 300) <= 1e-8


@pytest.mark.parametrize("make", [crystal, skewed_slab, cluster], ids=lambda make: make.__name__)
def test_ase_and_lammps_agree_for_any_cell(tmp_path, make):
    artifact = save_morse(tmp_path / "morse.pt")
    assert compare_engines(tmp_path, make(), artifact, 100) <= 1e-8


@pytest.fixture(scope="module")
def lammps_report(tmp_path_factory):
    """A passing LAMMPS case with the pair potential: its report, in the directory it was run for."""
    directory = tmp_path_factory.mktemp("lammps")
    artifact = save_morse(directory / 'Modell "für" $\\x$ 氪.pt')  # LAMMPS mangles it, TeX chokes on it
    ase.io.write(directory / "crystal.xyz", crystal())
    case = NveCase(
        model=artifact,
        reference=artifact,
        engine="lammps",
        steps=400,
        timestep_fs=4.0,
        temperature_K=100,
        equilibration_steps=100,
        structure=directory / "crystal.xyz",
        threads=1,
    )
    threads = torch.get_num_threads()
    report = validate_nve(case, directory / "Bericht 氪", quiet=True)
    assert torch.get_num_threads() == threads
    artifact.unlink()  # the report's directory needs nothing from outside
    return report


def test_lammps_judges_a_potential_against_itself(lammps_report):
    measures = lammps_report.measures
    assert lammps_report.verdict.outcome == "pass"
    assert measures.candidate.drift == measures.reference.drift
    assert measures.candidate.ms_per_step > 0
    # equilibrated at 100 K; the lattice takes half of the kinetic energy, so between 50 and 150 K in 32 atoms
    assert 50 <= measures.candidate.temperature_K <= 150


def test_the_lammps_input_can_be_run_again_by_hand_and_gives_the_same_energies(lammps_report):
    energies = lammps_report.directory / "candidate.energies"
    before = np.loadtxt(energies)
    done = subprocess.run(
        [BIN / "lmp", "-in", "candidate.in", "-screen", "none", "-log", "again.log"],
        cwd=lammps_report.directory,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert np.array_equal(np.loadtxt(energies)[:, :4], before[:, :4])  # the last column is wall time


def test_the_lammps_trajectory_is_read_by_mdanalysis(lammps_report):
    import MDAnalysis

    path = lammps_report.directory / "candidate.lammpstrj"
    universe = MDAnalysis.Universe(path, format="LAMMPSDUMP", topology_format="LAMMPSDUMP", dt=0.08)
    assert len(universe.atoms) == 32 and len(universe.trajectory) == 21
    expected = ase.io.read(path, "-1", format="lammps-dump-text").positions
    universe.trajectory[-1]
    assert np.max(np.abs(universe.atoms.positions - expected)) <= 1e-4  # MDAnalysis stores float32


def judge_broken(directory, spoiled, equilibration_steps):
    artifact = save_morse(directory / "broken.pt", "fp32", break_at=30, spoiled=spoiled)
    reference = save_morse(directory / "morse.pt")
    ase.io.write(directory / "crystal.xyz", crystal())
    command = ["validate", "nve", "--model", artifact, "--reference", reference, "--engine", "lammps"]
    command += [
        "--steps",
        256,
        "--timestep-fs",
        4,
        "--temperature-K",
        100,
        "--threads",
        1,
        "-o",
        directory / "r",
    ]
    command += ["--structure", directory / "crystal.xyz", "--equilibration-steps", equilibration_steps]
    status = main([str(word) for word in command])
    return status, read_report(directory / "r" / "report.json")


def test_forces_that_become_nan_in_lammps_give_a_verdict_with_the_step(tmp_path, capsys):
    status, report = judge_broken(tmp_path, float("nan"), equilibration_steps=0)
    assert status == 1
    assert report.measures.candidate.failure.step == 30
    assert "NVE run fails at step 30: " in capsys.readouterr().out


def test_an_explosion_in_lammps_stops_and_gives_a_verdict(tmp_path, capsys):
    status, report = judge_broken(tmp_path, -1e4, equilibration_steps=60)
    assert status == 1
    assert 30 <= report.measures.equilibration_failure.step <= 35
    assert 30 <= report.measures.candidate.failure.step <= 35
    assert "above 10000 K: the system explodes" in report.verdict.sentence


def validate_water(directory, artifacts, engine, reference):
    dimer = ase.io.read(potentials.find_structure("water-hexamer"))[:6]  # its first two molecules: fast
    ase.io.write(directory.parent / "dimer.xyz", dimer)
    arguments = ["validate", "nve", "--model", artifacts["water", "fp32"], "--reference", reference]
    arguments += ["--engine", engine, "--steps", 256, "--timestep-fs", "0.5", "--temperature-K", 300]
    arguments += [
        "--structure",
        "water-hexamer",
        "--equilibration-steps",
        20,
        "--threads",
        1,
        "-o",
        directory,
    ]
    return main([str(word) for word in arguments])


def test_water_in_fp32_passes_in_ase_against_an_fp64_artifact(tmp_path, artifacts, capsys):
    directory = tmp_path / "made"
    assert validate_water(directory, artifacts, "ase", artifacts["water", "fp64"]) == 0
    output = capsys.readouterr()
    assert "pass: no drift away from float64 within the " in output.out and output.err == ""
    report = read_report(directory / "report.json")
    # fp32 against fp64: unit roundoff 6e-8 of forces of some eV/Å, some hundred additions
    assert 0 < report.measures.shadow.force_max_meV_per_A <= 0.1
    assert "| drift against reference |" in (directory / "report.md").read_text()
    assert json.loads((directory / "report.json").read_text())["verdict"]["outcome"] == "pass"


def test_water_in_fp32_passes_in_lammps_against_the_bundled_checkpoint(tmp_path, artifacts):
    directory = tmp_path / "made"
    assert validate_water(directory, artifacts, "lammps", "water") == 0
    report = read_report(directory / "report.json")
    assert 0 < report.measures.shadow.force_max_meV_per_A <= 0.1
    assert report.potentials["reference"]["precision"] == "fp64"
    assert report.potentials["reference"]["source"]["name"] == "water.json"
    # the artifacts lie beside the inputs that name them
    assert (directory / "candidate.pt").samefile(artifacts["water", "fp32"])
    assert mdplugin.read_manifest(directory / "reference.pt").precision == "fp64"
    assert '* * "reference.pt" H O' in (directory / "reference.in").read_text()


def test_an_artifact_on_another_file_system_is_copied_beside_the_input(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    artifact = save_morse(tmp_path / "morse.pt")
    case = NveCase(artifact, artifact, "lammps", steps=256, threads=1)
    with show_progress(0, quiet=True) as progress:
        LammpsEngine(case, crystal(), {"candidate": load_potential(artifact, 1)}, tmp_path, progress)
    copy = tmp_path / "candidate.pt"
    assert not copy.samefile(artifact) and copy.read_bytes() == artifact.read_bytes()
