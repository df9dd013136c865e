"""Cases that cannot be run: one clear line, exit status 3, nothing written."""

import ase
import ase.io
import numpy as np
import pytest
from ase.constraints import FixAtoms
from validation_artifacts import crystal, save_morse

from mdplugin.cli import main
from mdplugin.errors import CaseError, MDPluginError, StructureError
from mdplugin.validation.case import ENSEMBLES, OBSERVABLES, Case
from mdplugin.validation.case_file import bundled_cases, describe_case, parse_case, read_case
from mdplugin.validation.criteria import find_limits
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.report import read_report
from mdplugin.validation.study import validate
from mdplugin.validation.systems import find_structure

GOOD = {"ensemble": "nve", "models": ["m.pt"], "reference": "water", "engine": "ase"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ensemble": "nph"}, "ensemble: expected one of nve, nvt, npt, stability, got 'nph'"),
        ({"engine": "gromacs"}, "engine: expected one of ase, lammps, got 'gromacs'"),
        ({"length_ps": 0.1}, "length_ps: expected at least 256 steps .*, got 0.1 ps, 200 steps of 0.5 fs"),
        ({"length_ps": "long"}, "length_ps: expected a positive number, got 'long'"),
        ({"timestep_fs": 0}, "timestep_fs: expected a positive number, got 0"),
        ({"timestep_fs": float("nan")}, "timestep_fs: expected a positive number, got nan"),
        ({"temperature_K": -1.0}, "temperature_K: expected a positive number, got -1.0"),
        ({"equilibration_ps": -5}, "equilibration_ps: expected a number of zero or more, got -5"),
        ({"pressure_bar": float("inf")}, "pressure_bar: expected a finite number, got inf"),
        ({"replicas": 1}, "replicas: expected an integer of at least 2, got 1"),
        ({"replicas": True}, "replicas: expected an integer of at least 2, got True"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"seed": 10**9}, "seed: expected at most 400000000, got 1000000000"),
        ({"threads": 0}, "threads: expected an integer of at least 1, got 0"),
        ({"ranks": 2}, "ranks: expected 1 with engine ase, got 2: use engine lammps"),
        ({"repeat": [2, 2]}, r"repeat: expected three whole numbers, got \(2, 2\)"),
        ({"repeat": [2, 2, 0]}, "repeat: expected an integer of at least 1, got 0"),
        ({"observables": ["density"]}, "observables: expected one of energy_drift, .*, got 'density'"),
        ({"observables": "rdf"}, "observables: expected a list, got 'rdf'"),
        ({"limits": {"density": -1}}, "limits: density: expected a number of zero or more, got -1"),
        ({"limits": {"speed": 1}}, "limits: expected one of .*, got 'speed'"),
        (
            {"limits": {"fluctuation_factor": 0.5}},
            "limits: fluctuation_factor: expected a factor of 1 or more, got 0.5.*",
        ),
        (
            {"observables": ["reversal", "gradient", "reversal"]},
            "observables: expected each once, got 'reversal' again: remove one",
        ),
        (
            {"sample_fs": 900},
            "sample_fs: expected at least 4 in length_ps, 2 ps .*, got 900 fs, 2: shorten it",
        ),
        (
            {"frame_fs": 5000},
            "frame_fs: expected at least 4 in length_ps, 2 ps .*, got 5000 fs, 0: shorten it",
        ),
        ({"limits": [1]}, r"limits: expected names and numbers, got \[1\]"),
        ({"models": []}, "expected a value for models, got none"),
        (
            {"models": ["a/m.pt", "b/m.pt"]},
            "models: expected files with names of their own, got a/m.pt twice, hidden, or .*",
        ),
        ({"models": ["reference.pt"]}, "models: expected files with names of their own, got reference.pt .*"),
        ({"temperature": 300}, "unknown key 'temperature'; did you mean 'temperature_K'.*"),
        ({"zzz": 300}, "unknown key 'zzz'; the keys are ensemble, .*"),
        ({"structure": 3}, "structure: expected a text, got 3"),
        pytest.param({"length_ps": 10**309}, "length_ps: expected a positive number, got 10+", id="1e309"),
        (
            {"temperature_K": 10_000},
            "temperature_K: expected less than the limit explosion_K, 10000 K, at which a run is ended, got 10000",
        ),
        (
            {"limits": {"explosion_K": 300}},
            "temperature_K: expected less than the limit explosion_K, 300 K, .*, got 300",
        ),
        (
            {"timestep_fs": 1e-320},
            r"length_ps: expected fewer than 2147483648 steps \(LAMMPS counts no further\), got 2 ps in steps of .* fs",
        ),
        ({"length_ps": 2e6}, "length_ps: expected fewer than 2147483648 steps .*, got 2e.06 ps in steps .*"),
        ({"equilibration_ps": 1e300}, "equilibration_ps: expected fewer than 2147483648 steps .*"),
        ({"checkpoint_ps": 1e308}, "checkpoint_ps: expected fewer than 2147483648 steps .*"),
        ({"frame_fs": 1e300}, "frame_fs: expected fewer than 2147483648 steps .*, got 1e.300 fs in .*"),
        ({"frame_fs": 1e-9}, "frame_fs: expected at least timestep_fs, 0.5 fs, got 1e-09 fs"),
        ({"checkpoint_ps": 1e-9}, "checkpoint_ps: expected at least timestep_fs, 0.0005 ps, got 1e-09 ps"),
        ({"length_ps": 1e4, "checkpoint_ps": 0.01}, "checkpoint_ps: .* 100000 .*, got 0.01 ps, 1000000: .*"),
        ({"replicas": 3000000}, "replicas: expected at most 1000, got 3000000"),
    ],
    ids=str,
)
def test_a_case_that_cannot_be_run_is_refused_when_it_is_stated(changes, message):
    with pytest.raises(CaseError, match=f"^here: {message}$"):
        parse_case({**GOOD, **changes}, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"velocity_fs": 4.4},
            r"at most 4.17 fs .*O-H stretch .*, got 4.5 fs in steps of 0.5 fs: shorten it, or .*",
        ),
        (dict.fromkeys(("timestep_fs", "sample_fs", "frame_fs"), 5.0), "at most 4.17 fs .*, got 5 fs in .*"),
        (
            {"timestep_fs": 0.01, "length_ps": 0.01},
            "at least 8 velocities .*, got 5: shorten it, or leave vdos out .*",
        ),
        ({"checkpoint_ps": 0.01}, "at least 8 velocities in length_ps and in checkpoint_ps .*, got 5: .*"),
    ],
    ids=str,
)
def test_velocities_that_make_no_spectrum_are_refused_where_one_is_asked_for(changes, message):
    changes = {"length_ps": 3.0, "sample_fs": 1.0, "frame_fs": 1.0, **changes}
    with pytest.raises(CaseError, match=f"^here: velocity_fs: expected {message}$"):
        parse_case({**GOOD, "ensemble": "nvt", "observables": ["vdos"], **changes}, "here")
    for other in ({"ensemble": "nve"}, {"ensemble": "nvt", "observables": ["rdf"]}):
        parse_case({**GOOD, **other, **changes}, "here")
    parse_case({**GOOD, "ensemble": "nvt", "observables": ["vdos"], "velocity_fs": 4.0}, "here")


def test_of_all_observables_the_spectrum_is_left_out_where_steps_are_too_long_for_one():
    argon = parse_case({**GOOD, "ensemble": "nvt", "timestep_fs": 5.0, "length_ps": 3.0}, "here")
    assert set(OBSERVABLES["nvt"]) - set(argon.chosen_observables) == {"vdos"}
    assert "vdos" in parse_case({**GOOD, "ensemble": "nvt"}, "here").chosen_observables


def test_a_case_survives_its_description():
    case = parse_case(
        {**GOOD, "limits": {"density": 0.1}, "repeat": [2, 1, 1], "observables": ["shadow"]}, "here"
    )
    assert parse_case(describe_case(case), "again") == case


@pytest.mark.parametrize("name", bundled_cases())
def test_a_bundled_case_is_valid_and_comes_with_its_structure(name):
    case = read_case(name, models=["m.pt"], reference="water")
    assert case.ensemble in ENSEMBLES and case.steps >= 256
    assert find_structure(case.structure, case.reference, case.repeat).atoms.get_chemical_formula()


def test_water_1536_is_eight_copies_of_the_bundled_box():
    case = read_case("water-1536-nvt", models=["m.pt"])
    structure = find_structure(case.structure, case.reference, case.repeat)
    assert len(structure.atoms) == 1536


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ensemble: [", "not a YAML file"),
        ("- nve", "expected keys and values, got list"),
        ("ensemble: nve\nmodels: [m.pt]\nreference: water\nsteps: 5", "unknown key 'steps'"),
        ("ensemble: nve", "expected a value for models, reference, got none"),
        (
            "ensemble: nve\nlength_ps: 1\nmodels: [m.pt]\nlength_ps: 2",
            "line 4: expected every key once, got 'length_ps' again: remove one",
        ),
        ("limits: {rdf_rms: 1, rdf_rms: 2}", "line 1: expected every key once, got 'rdf_rms' again"),
    ],
)
def test_a_file_that_is_no_case_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "case.yaml"
    path.write_text(text)
    with pytest.raises(CaseError, match=message) as caught:
        read_case(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_case_that_is_no_file_names_the_bundled_ones():
    with pytest.raises(CaseError, match=r"nev: expected a YAML file or one of .*nve.*; no such file"):
        read_case("nev")


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


def test_a_structure_is_repeated_along_periods_only_and_not_without_end(tmp_path):
    atoms = crystal()
    atoms.pbc = (True, True, False)
    ase.io.write(tmp_path / "slab.xyz", atoms)
    assert len(find_structure(tmp_path / "slab.xyz", "x", (2, 1, 1)).atoms) == 2 * len(atoms)
    with pytest.raises(StructureError, match="expected periods along the directions to repeat"):
        find_structure(tmp_path / "slab.xyz", "x", (1, 1, 2))
    with pytest.raises(CaseError, match="repeat: expected at most 10,000,000 atoms, got 192,000,000,000 "):
        find_structure("water-64", "x", (1000, 1000, 1000))


def run_cli(capsys, directory, *more, **changes):
    """Exit status and stderr of a small case with the given options."""
    save_morse(directory / "morse.pt")
    save_morse(directory / "low.pt", "fp32")
    ase.io.write(directory / "crystal.xyz", crystal())
    ase.io.write(directory / "xenon.xyz", ase.Atoms("ArXe", positions=[[0, 0, 0], [4, 0, 0]]))
    options = {
        "model": directory / "low.pt",
        "reference": directory / "morse.pt",
        "engine": "ase",
        "structure": directory / "crystal.xyz",
        "output": directory / "report",
    }
    words = [str(word) for name, value in {**options, **changes}.items() for word in (f"--{name}", value)]
    try:
        status = main(["validate", "nve", *words, *more])
    except SystemExit as stop:  # argparse
        status = stop.code
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "gromacs"}, "engine: expected one of ase, lammps, got 'gromacs'"),
        ({"length-ps": "long"}, "invalid float value"),
        ({"temperature-K": -3}, "temperature_K: expected a positive number"),
        ({"reference": "{}/low.pt"}, "got an artifact of precision fp32"),
        ({"structure": "{}/xenon.xyz"}, "elements Xe are not in low.pt; it knows Ne Ar"),
        ({"model": "{}/crystal.xyz"}, "expected an artifact"),
        ({"model": ""}, "models: expected a file, got an empty name"),
        ({"model": "{}"}, "models: expected a file, got the directory /"),
        ({"reference": "{}"}, "reference: expected a file, got the directory /"),
        ({"jobs": 0}, "jobs: expected an integer of at least 1, got 0"),
        ({"jobs": -1}, "jobs: expected an integer of at least 1, got -1"),
        ({"output": "{}/morse.pt/report"}, "choose a writable directory with -o"),
        ({"temperature": 300}, "unrecognized arguments"),
    ],
    ids=str,
)
def test_bad_options_end_in_one_line_and_exit_status_3(capsys, tmp_path, changes, message):
    changes = {name: str(value).format(tmp_path) for name, value in changes.items()}
    status, error = run_cli(capsys, tmp_path, **changes)
    assert status == 3
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a CASE, --run NAME or --collect"),
        (["--collect"], "expected a directory that `mdplugin validate ... -o DIR` made"),
        (["--run", "reference-0"], "expected a directory that `mdplugin validate ... -o DIR` made"),
    ],
    ids=["nothing", "collect", "run"],
)
def test_a_directory_that_holds_no_case_is_refused(capsys, tmp_path, arguments, message):
    assert main(["validate", *arguments, "-o", str(tmp_path / "nowhere")]) == 3
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "nowhere").exists()


def test_an_output_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    from mdplugin.validation import study

    def work(*arguments, **options):
        raise AssertionError("work was done")

    monkeypatch.setattr(study, "execute_runs", work)
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    artifact = save_morse(tmp_path / "morse.pt")
    case = Case("nve", (str(artifact),), str(artifact), "ase", structure=str(tmp_path / "crystal.xyz"))
    with pytest.raises(CaseError, match="cannot write"):
        validate(case, artifact)


def test_a_file_that_is_no_report_is_refused(tmp_path):
    for text in ("{}", "[]", "no json", '{"schema": 1}'):
        (tmp_path / "report.json").write_text(text)
        with pytest.raises(MDPluginError, match="expected a"):
            read_report(tmp_path / "report.json")


@pytest.mark.parametrize(
    ("changes", "pressure_bar"),
    [
        ({"reference": "water"}, 9_800),
        ({"reference": "water", "structure": "water-64"}, 9_800),
        ({"reference": "water", "structure": "water-64", "pressure_bar": 1}, 1),
        ({"reference": "water", "structure": "mine.xyz"}, 1),
        ({"reference": "silicon"}, 1),
        ({"reference": "mine.model", "structure": "water-64"}, 1),
    ],
)
def test_bundled_water_runs_at_the_pressure_that_it_has_in_its_box(changes, pressure_bar):
    assert read_case("npt", models=["m.pt"], **changes).pressure_bar == pressure_bar
    if "pressure_bar" not in changes:
        assert read_case("nvt", models=["m.pt"], **changes).pressure_bar == 1


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "nve",
            {"pressure_bar": 5},
            "nve: pressure_bar: expected none in nve, which has no barostat, got 5: .*",
        ),
        ("stability", {"pressure_bar": 0}, "stability: pressure_bar: expected none in stability, .*"),
        (
            "nve",
            {"limits": {"rdf_rms": 0.1}},
            "nve: limits: expected one that nve .*drift_ratio, .*, got 'rdf_rms': .*",
        ),
        (
            "nvt",
            {"limits": {"diffusion_floor": 0.1}, "observables": ["rdf"]},
            "nvt: limits: expected one .*rdf_peak_height.*, got 'diffusion_floor': remove it",
        ),
    ],
    ids=str,
)
def test_what_a_case_would_ignore_is_refused(name, changes, message):
    with pytest.raises(CaseError, match=f"^{message}$"):
        read_case(name, models=["m.pt"], reference="water", **changes)


def test_every_limit_can_be_set_in_the_ensembles_that_it_decides():
    used = {name: find_limits(Case(name, ("m.pt",), "water").sound_observables) for name in ENSEMBLES}
    assert set().union(*used.values()) == set(LIMITS)
    for ensemble, names in used.items():
        limits = {name: LIMITS[name].value for name in names}
        assert read_case(ensemble, models=["m.pt"], reference="water", limits=limits).limits == limits


def test_in_all_the_pressure_is_that_of_npt(tmp_path, capsys):
    assert (
        main(
            [
                "validate",
                "all",
                "--plan",
                "--model",
                "m.pt",
                "--reference",
                "x",
                "--pressure-bar",
                "inf",
                "-o",
                str(tmp_path / "a"),
            ]
        )
        == 3
    )
    assert capsys.readouterr().err.startswith(
        "mdplugin: npt: pressure_bar: expected a finite number, got inf"
    )


def test_an_artifact_of_bundled_water_as_reference_has_its_pressure_too(artifacts):
    case = read_case("npt", models=["m.pt"], reference=str(artifacts["water", "fp64"]))
    assert case.pressure_bar == 9_800
