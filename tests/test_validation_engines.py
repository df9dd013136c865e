"""Both engines end to end: the same start gives the same energies, files can be used again, failures are verdicts."""

import base64
import dataclasses
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
from validation_artifacts import cluster, crystal, execute_here, save_morse, skewed_slab

import mdplugin
from mdplugin import potentials
from mdplugin.cli import main
from mdplugin.validation import study
from mdplugin.validation.case import Case
from mdplugin.validation.chain import execute_run, load_run
from mdplugin.validation.comparison import Outcome
from mdplugin.validation.lammps_input import write_segment
from mdplugin.validation.plan import RunPlan, Segment, plan_runs
from mdplugin.validation.potential import hash_file, load_potential
from mdplugin.validation.report import read_report
from mdplugin.validation.runner_lammps import place
from mdplugin.validation.statistics import estimate_mean, subtract
from mdplugin.validation.study import validate
from mdplugin.validation.suite import write_suite
from mdplugin.validation.systems import draw_velocities
from mdplugin.validation.workspace import make_engine

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Runs in this process; what is made in processes of their own: `lammps_report`, test_validation_survival.py."""
    monkeypatch.setattr(study, "execute_runs", execute_here)


def run_engine(directory, atoms, artifact, segments, **changes):
    """The series of segments in one engine."""
    settings = {"temperature_K": 100, "timestep_fs": 0.5, "frame_fs": 5.0, "sample_fs": 5.0}
    case = Case("nve", (str(artifact),), "x", **{**settings, **changes})
    plan = RunPlan("x", 0, "main", 3, segments)
    start = draw_velocities(atoms, case.temperature_K, 3)
    engine = make_engine(case, start, {"x": load_potential(artifact, 1)}, plan)
    execute_run(engine, plan, directory / case.engine, lambda step: None)
    return load_run(directory / case.engine, plan)[0]


def cut(phase, *steps, timestep_fs=0.5):
    return tuple(
        Segment(number, phase, "x", n, sum(steps[:number]), timestep_fs, 10 + number)
        for number, n in enumerate(steps)
    )


def largest_difference(first, second):
    """Of E_pot and E_kin per atom, eV, over all steps."""
    assert first.failure is None and second.failure is None
    assert first.steps == second.steps and np.max(np.abs(first.time_ps - second.time_ps)) <= 1e-12
    return max(
        np.max(np.abs(getattr(first, name) - getattr(second, name))) / first.n_atoms
        for name in ("potential_eV", "kinetic_eV")
    )


@pytest.mark.parametrize("structure", ["water-hexamer", "water-64"])
def test_ase_and_lammps_agree_for_100_steps_of_water_in_fp64(tmp_path, artifacts, structure):
    atoms = ase.io.read(potentials.find_structure(structure)).copy()
    runs = [
        run_engine(
            tmp_path, atoms, artifacts["water", "fp64"], cut("nve", 60, 40), engine=engine, temperature_K=300
        )
        for engine in ("ase", "lammps")
    ]
    assert runs[0].steps == 100
    # LAMMPS's constant for the kinetic energy has 8 digits: 6e-8 of 0.04 eV/atom is 2e-9
    assert largest_difference(*runs) <= 1e-8
    for name in ("momentum", "angular_momentum"):
        first, second = (getattr(run, name) for run in runs)
        assert first.shape == second.shape == (11, 3)
        norms = np.linalg.norm([first, second], axis=2)
        assert np.max(np.abs(norms[0] - norms[1])) <= 1e-6 * max(1, norms.max())


@pytest.mark.parametrize("make", [crystal, skewed_slab, cluster], ids=lambda make: make.__name__)
def test_ase_and_lammps_agree_for_any_cell(tmp_path, make):
    artifact = save_morse(tmp_path / "morse.pt")
    runs = [
        run_engine(tmp_path, make(), artifact, cut("nve", 12, 8), engine=engine)
        for engine in ("ase", "lammps")
    ]
    assert largest_difference(*runs) <= 1e-8
    distances = [np.linalg.norm(run.positions - run.positions[:, :1], axis=2) for run in runs]
    assert np.max(np.abs(distances[0] - distances[1])) <= 1e-6  # the frames are the same up to a rotation
    if make is crystal:
        # LAMMPS's conversion to bar has 8 digits
        assert np.max(np.abs(runs[0].pressure_bar / runs[1].pressure_bar - 1)) <= 1e-6
        assert np.max(np.abs(runs[0].volume_A3 / runs[1].volume_A3 - 1)) <= 1e-12
    else:
        assert np.isnan(runs[0].pressure_bar).all() and np.isnan(runs[1].pressure_bar).all()


@pytest.mark.parametrize("engine", ["ase", "lammps"])
def test_segments_lead_where_one_run_does(tmp_path, engine):
    artifact = save_morse(tmp_path / "morse.pt")
    whole, parts = (
        run_engine(tmp_path / str(len(steps)), crystal(), artifact, cut("nve", *steps), engine=engine)
        for steps in ((20,), (10, 10))
    )
    assert len(parts.positions) == 3 and np.max(np.abs(parts.frame_time_ps - whole.frame_time_ps)) <= 1e-12
    assert np.max(np.abs(parts.positions - whole.positions)) <= 1e-10
    assert largest_difference(whole, parts) <= 1e-12
    assert np.all(np.diff(parts.time_ps) > 0)


@pytest.mark.parametrize("engine", ["ase", "lammps"])
def test_time_reversal_leads_back(tmp_path, engine):
    artifact = save_morse(tmp_path / "morse.pt")
    series = run_engine(tmp_path, crystal(), artifact, cut("reversal", 100), engine=engine)
    assert series.steps == 200 and len(series.positions) == 2
    there = series.potential_eV[:101]
    assert np.max(np.abs(there - series.potential_eV[100:][::-1])) <= 1e-10
    # rounding of 200 steps; the atoms themselves move by 0.1 Å in 50 fs
    assert np.max(np.abs(series.positions[0] - series.positions[1])) <= 1e-10


@pytest.mark.parametrize("engine", ["ase", "lammps"])
def test_the_conserved_quantity_of_the_thermostat_is_conserved_over_segments(tmp_path, engine):
    artifact = save_morse(tmp_path / "morse.pt")
    series = run_engine(
        tmp_path, crystal(), artifact, cut("nvt", 300, 300, timestep_fs=4.0), engine=engine, timestep_fs=4.0
    )
    total, conserved = series.total_meV_per_atom, series.conserved_meV_per_atom
    assert np.ptp(total) > 20 * np.ptp(conserved)  # heat flows, and is accounted for
    assert np.max(np.abs(np.diff(conserved))) <= 5 * np.max(
        np.abs(np.diff(conserved[:300]))
    )  # also between segments


@pytest.mark.slow
def test_ase_and_lammps_agree_in_temperature_and_density_at_constant_pressure(tmp_path):
    artifact = save_morse(tmp_path / "morse.pt")
    runs = [
        run_engine(
            tmp_path,
            crystal(),
            artifact,
            cut("npt", 4000, 16000, timestep_fs=4.0),
            engine=engine,
            timestep_fs=4.0,
        )
        for engine in ("ase", "lammps")
    ]
    for name, start in (("temperature_K", 4000), ("volume_A3", 3200)):
        first, second = (estimate_mean(getattr(run, name)[start:]) for run in runs)
        difference = subtract(first, second)
        assert abs(difference.value) <= 5 * difference.error
        assert difference.error <= 0.03 * second.value  # so that it says something


def test_npt_moves_the_volume_in_both_engines(tmp_path):
    artifact = save_morse(tmp_path / "morse.pt")
    for engine in ("ase", "lammps"):
        series = run_engine(
            tmp_path, crystal(), artifact, cut("npt", 100, timestep_fs=4.0), engine=engine, timestep_fs=4.0
        )
        assert np.ptp(series.volume_A3) > 0.1
        # the cell that is stored is the one whose volume was sampled
        volumes = np.abs(np.linalg.det(series.cells))
        assert (
            np.max(np.abs(volumes / series.volume_A3[:: len(series.volume_A3) // len(volumes)] - 1)) <= 1e-5
        )


def small_case(directory, ensemble="nve", engine="lammps", **changes):
    """A case of argon and neon that runs in seconds."""
    artifact = save_morse(
        directory / 'Modell "für" $\\x$ 氪.pt', "fp32"
    )  # LAMMPS mangles it, TeX chokes on it
    reference = save_morse(directory / "morse.pt")
    ase.io.write(directory / "crystal.xyz", crystal())
    settings = {
        "models": (str(artifact),),
        "reference": str(reference),
        "structure": str(directory / "crystal.xyz"),
        "timestep_fs": 4.0,
        "temperature_K": 100,
        "length_ps": 1.6,
        "equilibration_ps": 0.0,
        "frame_fs": 16.0,
        "sample_fs": 16.0,
        "velocity_fs": 4.0,
        "replicas": 2,
    }
    return Case(**{"ensemble": ensemble, "engine": engine, **settings, **changes})


@pytest.fixture(scope="module")
def lammps_report(tmp_path_factory):
    """A LAMMPS case with the pair potential: its report, in the directory it was run for."""
    directory = tmp_path_factory.mktemp("lammps")
    observables = ("energy_drift", "drift_ratio", "reversal", "shadow")
    case = small_case(directory, observables=observables, equilibration_ps=0.2, checkpoint_ps=0.8)
    threads = torch.get_num_threads()
    report = validate(case, directory / "Bericht 氪", quiet=True)
    assert torch.get_num_threads() == threads
    return report


def test_lammps_judges_a_potential_against_itself(lammps_report):
    findings = lammps_report.findings[0]
    assert lammps_report.exit_status in (0, 2)  # two short replicas need not decide everything
    assert findings.candidate["energy_drift"] == findings.reference["energy_drift"]
    assert all(estimate.value == 0 for estimate in findings.candidate["force_rmse"])
    assert all(speed > 0 for speed in lammps_report.speeds.values())


def test_a_report_has_its_files_and_says_where_it_comes_from(lammps_report):
    directory = lammps_report.directory
    names = {file.name for file in directory.iterdir()}
    assert {
        "case.json",
        "models",
        "runs",
        "structure.xyz",
        "report.json",
        "report.md",
        "report.html",
    } <= names
    assert (directory / "energy.png").read_bytes().startswith(b"\x89PNG")
    facts = json.loads((directory / "report.json").read_text())["provenance"]
    assert facts["seeds"] == [0, 1] and facts["versions"]["torch"] and facts["cpu"]
    assert len(facts["structure"]["sha256"]) == 64
    assert read_report(directory / "report.json").to_json() == (directory / "report.json").read_text()


def test_all_ensembles_stand_on_one_page(lammps_report, tmp_path, capsys):
    for name in ("nve", "nvt", "npt", "stability"):
        case = small_case(tmp_path, name, engine="ase", observables=("shadow",))
        validate(case, tmp_path / "all" / name, quiet=True)
    statuses = main(["validate", "--collect", "-o", str(tmp_path / "all")])
    assert statuses in (0, 2)
    assert capsys.readouterr().out.endswith(f"all of them: {tmp_path / 'all' / 'report.html'}\n")
    page = (tmp_path / "all" / "report.html").read_text()
    for name in ("nve", "nvt"):
        assert f'<a href="#{name}">' in page and f'<section id="{name}">' in page
        figures = sorted((tmp_path / "all" / name).glob("*.png"))
        assert figures and all(base64.b64encode(file.read_bytes()).decode() in page for file in figures)
        alone = (tmp_path / "all" / name / "report.md").read_text()
        assert alone in (tmp_path / "all" / "report.md").read_text()
    # the worst of all decides
    (verdict,) = lammps_report.verdicts
    failed = dataclasses.replace(
        lammps_report, verdicts=(dataclasses.replace(verdict, outcome=Outcome.FAIL),)
    )
    write_suite([lammps_report, failed], tmp_path / "two")
    assert (
        (tmp_path / "two" / "report.md")
        .read_text()
        .startswith(f"# Validation, nve, nve: {verdict.label} fail\n")
    )


def test_the_lammps_input_can_be_run_again_by_hand_and_gives_the_same_energies(tmp_path):
    artifact = save_morse(tmp_path / "x.pt")
    case = small_case(tmp_path)
    segment = Segment(0, "nvt", "x", 50, 0, 4.0, 7, velocity_every=2)
    energies = []
    for name in ("first", "second"):
        scratch = tmp_path / name
        scratch.mkdir()
        engine = make_engine(case, crystal(), {"x": load_potential(artifact, 1)}, plan_runs(case)[0])
        engine.write_start(scratch / "start.data")
        place(artifact, scratch / "x.pt")
        (scratch / "segment.in").write_text(
            write_segment(case, engine.atoms, segment, "x.pt", from_data=True)
        )
        command = [BIN / "lmp", "-in", "segment.in", "-screen", "none"]
        done = subprocess.run(command, cwd=scratch, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        energies.append(np.loadtxt(scratch / "energies.txt"))
    assert len(energies[0]) == 51
    assert np.array_equal(energies[0][:, :5], energies[1][:, :5])  # the last column is wall time


@pytest.mark.parametrize("ensemble", ["nvt", "npt", "stability"])
def test_every_ensemble_is_run_and_judged_in_lammps(tmp_path, ensemble):
    report = validate(small_case(tmp_path, ensemble), tmp_path / "report", quiet=True)
    assert report.exit_status in (0, 2), report.verdicts[0].sentence
    judged = {test.observable.partition(" ")[0] for test in report.verdicts[0].tests}
    wanted = {
        "nvt": {
            "temperature",
            "energy_drift",
            "rdf",
            "coordination",
            "diffusion",
            "vdos_shift",
            "force_rmse",
        },
        "npt": {"density", "pressure", "volume_fluctuation", "temperature"},
        "stability": {"peak_temperature", "bonds", "minimum_distance", "completed"},
    }
    assert wanted[ensemble] <= judged


@pytest.mark.parametrize("engine", ["ase", pytest.param("lammps", marks=pytest.mark.slow)])
def test_water_in_fp32_is_not_failed(tmp_path, artifacts, engine):
    case = Case(
        "nve", (str(artifacts["water", "fp32"]),), str(artifacts["water", "fp64"]), engine,
        structure="water-hexamer", length_ps=0.13, equilibration_ps=0.01, replicas=2,
        observables=("energy_drift", "gradient", "shadow"),
    )  # fmt: skip
    report = validate(case, tmp_path / "made", quiet=True)
    tests = {test.observable: test for test in report.verdicts[0].tests}
    assert not [name for name, test in tests.items() if test.outcome == "fail"]
    # fp32 against fp64: unit roundoff 6e-8 of forces of some eV/Å, some hundred additions
    assert 0 < tests["force_rmse"].candidate.value <= 0.1 and tests["force_rmse"].outcome == "pass"
    assert tests["gradient"].outcome == "pass"


@pytest.mark.parametrize("ranks", [2])
def test_several_ranks_give_the_energies_of_one(tmp_path, ranks):
    artifact = save_morse(tmp_path / "morse.pt")
    runs = [
        run_engine(tmp_path / str(n), crystal(), artifact, cut("nve", 12, 8), engine="lammps", ranks=n)
        for n in (1, ranks)
    ]
    assert largest_difference(*runs) <= 1e-10


def test_an_artifact_on_another_file_system_is_copied(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    artifact = save_morse(tmp_path / "morse.pt")
    place(artifact, tmp_path / "copy.pt")
    assert not (tmp_path / "copy.pt").samefile(artifact)
    assert (tmp_path / "copy.pt").read_bytes() == artifact.read_bytes()


def test_a_certificate_is_attached_to_the_file_that_was_judged(tmp_path, capsys):
    case = small_case(tmp_path, engine="ase", observables=("shadow",))
    validate(case, tmp_path / "report", quiet=True)
    collect = ["validate", "--collect", "--certify", "-o", str(tmp_path / "report")]
    assert main(collect) in (0, 2)
    (certificate,) = mdplugin.load(case.models[0]).certificates.valid
    assert certificate.line.startswith("nve ") and certificate.line.endswith(
        "on Ar21Ne11, 2 x 1.6 ps (1 of 9 observables)"
    )
    assert certificate.measured["run"]["replicas"] == 2
    assert certificate.structures["sha256"] == hash_file(tmp_path / "report" / "structure.xyz")
    # the content is what it was, so that the case can be judged and certified again
    assert main(collect) in (0, 2)
    assert len(mdplugin.load(case.models[0]).certificates.valid) == 1
    # another artifact under the same name was not judged
    save_morse(Path(case.models[0]), precision="fp32", spoiled=1.5)
    capsys.readouterr()
    assert main(collect) == 3
    assert "expected the artifact that was judged" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["0", "1"])
def test_an_artifact_of_another_checkpoint_fails_however_close_it_comes(tmp_path, source):
    """The same numbers in either case; what is told apart is where they come from."""
    case = small_case(tmp_path, engine="ase", observables=("shadow",))
    save_morse(Path(case.models[0]), precision="fp32", source=source)
    (verdict,) = validate(case, tmp_path / "case", quiet=True).verdicts
    failed = [test.observable for test in verdict.tests if test.outcome == "fail"]
    assert failed == ([] if source == "0" else ["origin"])
    if failed:
        origins = "it was exported from morse (1), the reference from morse (0)"
        assert verdict.sentence.startswith(f"fail: {origins}")
    assert read_report(tmp_path / "case" / "report.json").verdicts == (verdict,)
