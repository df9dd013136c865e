"""mdplugin compare: every number is checked by planting a known one; the command refuses what makes no sense."""

import dataclasses
import json
import re

import ase
import numpy as np
import pytest
from validation_artifacts import cluster, crystal, save_morse

from mdplugin import compare
from mdplugin.artifact import load
from mdplugin.bounds import DEFAULTS, QUANTITIES, judge, parse_bounds, worst
from mdplugin.calculator import MACEQuantCalculator
from mdplugin.checkpoint import Evaluation
from mdplugin.cli import main
from mdplugin.compare import Effort
from mdplugin.compare_table import format_tables
from mdplugin.equivariance import measure_equivariance, random_rotations
from mdplugin.errors import BoundError
from mdplugin.smoothness import measure_smoothness
from mdplugin.structures import spread

QUICK = Effort(probe_frames=1, rotations=2, directions=2, rounds=1)


# ------------------------------------------------------------------------------------ errors


def shifted(evaluation, energy, force):
    return Evaluation(
        evaluation.energy + energy, evaluation.energies, evaluation.forces + force, evaluation.stress
    )


def test_planted_errors_are_measured():
    frames = [ase.Atoms("HO"), ase.Atoms("O4")]
    exact = [
        Evaluation(-3.0, np.zeros(2), np.zeros((2, 3)), np.zeros(6)),
        Evaluation(1.0, np.zeros(4), np.ones((4, 3)), None),
    ]
    errors = compare._errors([shifted(exact[0], 2e-3, 0.01), exact[1]], exact, frames)
    assert errors.energy_max_meV_per_atom == pytest.approx(1.0)
    assert errors.energy_rmse_meV_per_atom == pytest.approx(np.sqrt(0.5))
    assert errors.force_max_meV_per_A == pytest.approx(10.0)
    assert errors.force_rmse_meV_per_A == pytest.approx(10 * np.sqrt(6 / 18))  # 6 of 18 components are wrong
    assert errors.force_rmse_by_element_meV_per_A == pytest.approx({"H": 10.0, "O": 10 * np.sqrt(1 / 5)})
    assert errors.stress_max_meV_per_A3 == 0


def test_labels_of_some_frames_are_used():
    frames = [ase.Atoms("H"), ase.Atoms("H")]
    values = [Evaluation(0.0, np.zeros(1), np.zeros((1, 3)), None)] * 2
    labels = [None, Evaluation(0.0, np.zeros(1), np.full((1, 3), 0.05), None)]
    assert compare._label_errors(values, labels, frames).force_rmse_meV_per_A == pytest.approx(50.0)
    assert compare._label_errors(values, [None, None], frames) is None


def test_rows_tell_rounding_from_the_potentials_own_error(artifacts, water_checkpoint, water_frames):
    frames = water_frames[:3]
    paths = [artifacts["water", precision] for precision in ("fp64", "fp32")]
    steps = []
    reference, fp64, fp32 = rows = compare.compare_artifacts(
        [load(path) for path in paths], water_checkpoint, frames, QUICK, lambda: steps.append(1)
    )
    assert len(steps) == QUICK.count_evaluations(3, 2)
    assert fp64.float64.force_max_meV_per_A <= 1e-5  # the export bound for fp64
    assert 0 < fp32.float64.force_max_meV_per_A <= 0.1  # and for fp32
    # the potential misses DFT by some 50 meV/Å, and rounding leaves that as it is
    assert 30 <= reference.labels.force_rmse_meV_per_A <= 80
    assert abs(fp32.labels.force_rmse_meV_per_A - reference.labels.force_rmse_meV_per_A) <= 0.01
    # symmetric and smooth to rounding: tests/test_symmetry.py derives 1000 roundoffs of the largest force
    largest = max(np.abs(compare.read_labels(frame).forces).max() for frame in frames)
    for row, unit in ((fp64, 2.0**-53), (fp32, 2.0**-24)):
        bound = 1e6 * unit * max(1.0, largest)
        assert row.equivariance.force_max_meV_per_A <= np.sqrt(3) * bound
        assert not row.smoothness.is_noise_resolved
    assert fp64.smoothness.force_roughness_meV_per_A < fp32.smoothness.force_roughness_meV_per_A <= 0.05
    assert fp64.smoothness.energy_roughness_meV < fp32.smoothness.energy_roughness_meV <= 0.05
    text = format_tables(rows)
    own = reference.labels.force_rmse_meV_per_A
    assert f"fp32 adds {fp32.float64.force_rmse_meV_per_A:.3g} meV/Å to the {own:.3g} meV/Å" in text


# ------------------------------------------------------------------------------------ probes


@pytest.fixture(scope="module")
def morse(tmp_path_factory):
    """Energy and forces of a smooth pair potential in float64."""
    calculator = MACEQuantCalculator(load(save_morse(tmp_path_factory.mktemp("morse") / "morse.pt")), skin=0)

    def evaluate(atoms):
        calculator.calculate(atoms, ["forces"])
        return calculator.results["energy"], calculator.results["forces"].copy()

    return evaluate


def rattled(atoms):
    atoms.rattle(0.05, seed=1)
    return atoms


FRAMES = {"molecule": cluster, "periodic": crystal}


def disturbed(evaluate, change):
    """The potential with `change(atoms, energy, forces)` in place of its results."""

    def evaluate_wrongly(atoms):
        return change(atoms, *evaluate(atoms))

    return evaluate_wrongly


@pytest.mark.parametrize("kind", FRAMES)
def test_a_sound_potential_is_symmetric_and_smooth_to_rounding(morse, kind):
    frame = rattled(FRAMES[kind]())
    symmetry = measure_equivariance(morse, [frame], 4, 0)
    assert symmetry.force_max_meV_per_A <= 1e-9 and symmetry.energy_max_meV_per_atom <= 1e-9
    smooth = measure_smoothness(morse, [frame], 4, 0)
    assert smooth.force_roughness_meV_per_A <= 1e-6 and smooth.energy_roughness_meV <= 1e-6
    assert smooth.force_noise_resolution_meV_per_A <= 1e-5 and not smooth.is_noise_resolved


@pytest.mark.parametrize("kind", FRAMES)
def test_a_planted_force_that_does_not_turn_is_found(morse, kind):
    """A force a along the laboratory's z does not turn: the error is a |z - R z|."""
    frame, a = rattled(FRAMES[kind]()), np.array([0.0, 0.0, 0.02])
    found = measure_equivariance(disturbed(morse, lambda _, e, f: (e, f + a)), [frame], 8, 5)
    rotations = random_rotations(8, [5, 0])
    expected = 1000 * np.linalg.norm(a - rotations @ a, axis=1)
    assert found.force_max_meV_per_A == pytest.approx(expected.max(), rel=1e-9)
    assert found.force_rms_meV_per_A == pytest.approx(np.sqrt(np.mean(expected**2) / 3), rel=1e-9)


def test_a_planted_force_that_mirrors_wrongly_is_found(morse):
    """An axial vector turns as forces do but keeps its sign under inversion: only inversions find it."""

    def add_axial(atoms, energy, forces):
        first, second = (atoms.positions[i] - atoms.positions[0] for i in (1, 2))
        return energy, forces + 1e-3 * np.cross(first, second)

    found = measure_equivariance(disturbed(morse, add_axial), [rattled(cluster())], 2, 0)
    assert found.force_max_meV_per_A >= 1.0
    assert (
        measure_equivariance(disturbed(morse, add_axial), [rattled(cluster())], 1, 0).force_max_meV_per_A
        <= 1e-9
    )


def test_the_cell_turns_with_the_atoms(morse):
    along_cell = disturbed(morse, lambda atoms, e, f: (e, f + 0.01 * atoms.cell.array[0]))
    assert measure_equivariance(along_cell, [rattled(crystal())], 4, 0).force_max_meV_per_A <= 1e-9


def test_rotations_are_orthogonal_seeded_and_of_both_parities():
    R = random_rotations(6, 3)
    assert np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max() <= 1e-14
    assert np.linalg.det(R) == pytest.approx([1, -1] * 3)
    assert (random_rotations(6, 3) == R).all() and (random_rotations(6, 4) != R).all()


@pytest.mark.parametrize("kind", FRAMES)
def test_planted_force_noise_is_measured_within_its_error(morse, kind):
    random, sigma = np.random.default_rng(7), 1e-3
    noisy = disturbed(morse, lambda _, e, f: (e, f + sigma * random.normal(size=f.shape)))
    found = measure_smoothness(noisy, [rattled(FRAMES[kind]())], 16, 0)
    assert found.is_noise_resolved
    assert abs(found.force_noise_meV_per_A - 1.0) <= 3 * found.force_noise_error_meV_per_A <= 0.5
    # 16 paths x 9 degrees of freedom x 3N components: 5,600 squares or more, a relative error of 1 %
    assert found.force_roughness_meV_per_A == pytest.approx(1.0, rel=0.03)
    assert found.energy_roughness_meV <= 1e-6


def test_planted_smooth_force_that_is_no_gradient_is_noise_but_not_rough(morse):
    """Forces of 1.01 times the gradient miss it by 1 % of F.u, whose mean square is |F|²/3N."""
    frame = rattled(cluster())
    found = measure_smoothness(disturbed(morse, lambda _, e, f: (e, 1.01 * f)), [frame], 32, 0)
    expected = 1000 * 0.01 * np.sqrt(np.mean(morse(frame)[1] ** 2))
    assert found.is_noise_resolved and found.force_roughness_meV_per_A <= 1e-5
    assert abs(found.force_noise_meV_per_A - expected) <= 3 * found.force_noise_error_meV_per_A <= expected


def test_a_planted_rough_energy_is_measured_and_not_taken_for_force_noise(morse):
    random, delta = np.random.default_rng(8), 1e-4
    rough = disturbed(morse, lambda _, e, f: (e + delta * random.normal(), f))
    found = measure_smoothness(rough, [rattled(cluster())], 32, 0)
    # 32 paths x 9 degrees of freedom: 4 % standard error
    assert found.energy_roughness_meV == pytest.approx(0.1, rel=0.15)
    assert found.energy_roughness_meV_per_atom == pytest.approx(found.energy_roughness_meV / 13)
    assert not found.is_noise_resolved and found.force_roughness_meV_per_A <= 1e-6
    # 4.85 delta / L with L = 0.02 Å sqrt(39), and the delta that was found
    predicted = 4.85 * found.energy_roughness_meV / (0.02 * np.sqrt(39))
    assert found.force_noise_resolution_meV_per_A == pytest.approx(predicted, rel=0.01)


@pytest.mark.parametrize("degree", range(12, 17))
def test_what_the_polynomials_miss_is_not_taken_for_force_noise(degree):
    """A smooth energy of higher degree along every path, with its exact force."""

    def evaluate(atoms):
        x = (atoms.positions - start).ravel() / 0.1
        return float((x**degree).sum()), -(degree * x ** (degree - 1) / 0.1).reshape(-1, 3)

    start = np.zeros((3, 3))
    found = measure_smoothness(evaluate, [ase.Atoms("H3", start)], 8, 0)
    assert found.energy_roughness_meV > 0 and not found.is_noise_resolved


def test_probed_frames_are_spread_evenly():
    assert spread(range(20), 4) == [0, 6, 13, 19]
    assert spread(range(3), 8) == [0, 1, 2] and spread(range(3), 1) == [0] and spread(range(3), 0) == []


# ------------------------------------------------------------------------------------ bounds


def test_bounds_are_parsed_in_their_unit():
    assert parse_bounds("force-rmse=1meV/A, force-noise=2e-1 meV/Å,energy-rmse=.5") == {
        "force-rmse": 1.0,
        "force-noise": 0.2,
        "energy-rmse": 0.5,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("force-rms=1", "got 'force-rms=1'; did you mean force-rmse"),
        ("force-rmse", "expected a positive number in meV/Å"),
        ("force-rmse=1eV/A", "got '1eV/A'"),
        ("force-rmse=-1", "expected a positive number"),
        ("force-rmse=nan", "expected a positive number"),
        ("force-rmse=1.2.3", "expected a positive number"),
        ("force-rmse=0", "expected a positive number"),
        ("force-rmse=1,force-rmse=2", "got two"),
        ("", "got ''"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(text, message):
    with pytest.raises(BoundError, match=r"^bounds: ") as refusal:
        parse_bounds(text)
    assert message in str(refusal.value)


def row_with(noise, resolution, resolved):
    smooth = {
        "force_noise_meV_per_A": noise,
        "force_noise_resolution_meV_per_A": resolution,
        "is_noise_resolved": resolved,
    }
    float64 = {"force_rmse_meV_per_A": 0.5, "stress_max_meV_per_A3": None}
    return {"float64": float64, "equivariance": None, "smoothness": smooth}


@pytest.mark.parametrize(
    ("noise", "resolution", "resolved", "outcome"),
    [
        (0.5, 0.01, True, "pass"),
        (1.5, 0.01, True, "fail"),
        (0.0, 5.0, False, "inconclusive"),  # all that is known is that it is below 10
        (0.0, 0.5, False, "pass"),
        (1.1, 0.9, False, "inconclusive"),
    ],
)
def test_an_unresolved_noise_passes_only_where_the_measurement_resolves_the_bound(
    noise, resolution, resolved, outcome
):
    assert worst(judge(row_with(noise, resolution, resolved), {"force-noise": 1.0})) == outcome


def test_the_worst_finding_decides_and_what_was_not_measured_is_inconclusive():
    row = row_with(0.5, 0.01, True)
    assert worst(judge(row, {"force-rmse": 1.0})) == "pass"
    assert worst(judge(row, {"force-rmse": 1.0, "stress-max": 1.0})) == "inconclusive"
    assert worst(judge(row, {"force-rmse": 0.4, "equivariance": 1.0})) == "fail"


def test_every_bounded_quantity_is_a_field_of_a_row(artifacts, water_checkpoint, hexamer):
    rows = compare.compare_artifacts([load(artifacts["water", "fp32"])], water_checkpoint, [hexamer], QUICK)
    row = rows[1].as_dict()
    for quantity in QUANTITIES.values():
        part, field = quantity.field
        assert field in row[part]
    assert set(DEFAULTS) <= set(QUANTITIES)
    assert {finding.outcome for finding in judge(row, DEFAULTS)} == {"pass"}


# ------------------------------------------------------------------------------------ command


@pytest.fixture
def command(artifacts, hexamer, tmp_path):
    hexamer.write(tmp_path / "hexamer.xyz")
    arguments = ["compare", str(artifacts["water", "fp32"]), "--reference", "water"]
    return [*arguments, "--structures", str(tmp_path / "hexamer.xyz")]


SMALL = ["--probe-frames", "1", "--rotations", "1", "--directions", "1", "--rounds", "1"]


def test_the_command_prints_json_without_nan(command, capsys):
    assert main([*command, *SMALL, "--json"]) == 0
    content = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    rows = content["rows"]
    assert rows[0]["labels"] is None and rows[1]["float64"]["stress_max_meV_per_A3"] is None
    assert content["effort"] == dataclasses.asdict(Effort(1, 1, 1, 1)) and content["verdicts"] == []
    assert content["structures"]["formulas"] == ["H12O6"] and len(content["structures"]["sha256"]) == 64


def test_an_artifact_of_another_potential_is_named(artifacts, command, hexamer, tmp_path, capsys):
    """Its errors are no rounding errors, and no sentence says so; the reference's own artifact is left alone."""
    frame = hexamer.copy()
    frame.info["REF_energy"], frame.arrays["REF_forces"] = 0.0, np.zeros((len(frame), 3))
    frame.write(tmp_path / "hexamer.xyz")
    command.insert(2, str(other := artifacts["organic", "fp32"]))
    command += ["--probe-frames", "0", "--rounds", "1", "--quiet"]
    assert main(command) == 0
    out, error = capsys.readouterr()
    assert error.startswith(f"mdplugin: warning: {other}: expected an artifact of water.json (")
    assert "got one of organic.model (" in error and "give its own source as --reference" in error
    assert error.count("\n") == 1
    assert f"{other.name}: not exported from water.json, so what fp32 adds is not known" in out
    assert f"{artifacts['water', 'fp32'].name}: fp32 adds" in out
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [row["exported_from_reference"] for row in rows] == [True, True, False]


def test_bounds_decide_the_exit_status(command, capsys):
    assert main([*command, *SMALL, "--bounds", "force-rmse=1,force-noise=1"]) == 0
    assert "force-rmse" in capsys.readouterr().out
    assert main([*command, "--probe-frames", "0", "--bounds", "force-rmse=1e-9"]) == 1
    assert main([*command, "--probe-frames", "0", "--bounds", "stress-max=1"]) == 2  # a molecule has none
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rotations", "0"], "rotations: expected a whole number of 1 or more, got 0"),
        (["--directions", "-1"], "directions: expected a whole number of 1 or more, got -1"),
        (["--probe-frames", "-2"], "probe-frames: expected a whole number of 0 or more, got -2"),
        (["--seed", "-1"], "seed: expected a whole number of 0 or more, got -1"),
        (["--rounds", "0"], "rounds: expected a whole number of 1 or more, got 0"),
        (["--probe-frames", "0", "--bounds", "force-noise=1"], "force-noise is measured by probes"),
        (["--bounds", "speed=1"], "bounds: expected NAME=NUMBER"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(command, capsys, options, message):
    assert main([*command, *options]) == 3
    error = capsys.readouterr().err
    assert error.startswith("mdplugin: ") and message in error and error.count("\n") == 1


def test_the_defaults_that_help_tells_are_those_of_the_measurement(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "--help"])
    told = re.findall(r"\(default (\d+)", " ".join(capsys.readouterr().out.split()))
    assert [int(number) for number in told] == list(dataclasses.astuple(Effort()))


def test_rounded_parameters_leave_artifacts_as_smooth_and_symmetric_as_fp32_and_rounded_state_does_not(
    artifacts, water_checkpoint, hexamer
):
    names = ("fp32", "w16", "w8", "bf16")
    rows = compare.compare_artifacts(
        [load(artifacts["water", name]) for name in names],
        water_checkpoint,
        [hexamer],
        compare.Effort(rounds=1),
    )
    base, *others = rows[1:]
    for row in others:
        ratios = (
            row.equivariance.force_rms_meV_per_A / base.equivariance.force_rms_meV_per_A,
            row.smoothness.force_roughness_meV_per_A / base.smoothness.force_roughness_meV_per_A,
        )
        if row.precision == "bf16":  # rounds activations 65,536 times as coarsely
            assert min(ratios) > 100
        else:  # the same float32 rounding of other numbers
            assert min(ratios) >= 0.5 and max(ratios) <= 2
