"""Reweighting: closed forms, error bars that cover, and whole cases that pass by it or are kept from it."""

import ase
import ase.io
import numpy as np
import pytest
from ase import units
from scipy.signal import lfilter
from test_validation_faults import judge_argon, scale_forces
from test_validation_observables import make_series
from validation_artifacts import crystal, save_morse
from validation_toys import Argon, Faulty

from mdplugin.validation.case import Case
from mdplugin.validation.comparison import compare_observable, reweigh_test
from mdplugin.validation.limits import LIMITS
from mdplugin.validation.measurement import Measurement
from mdplugin.validation.observables import structure
from mdplugin.validation.observables.shadow import Shadow
from mdplugin.validation.profiles import MIN_G, add_profiles
from mdplugin.validation.reweighting import estimate_shifts, weigh_frames
from mdplugin.validation.statistics import UNKNOWN, Estimate
from mdplugin.validation.study import validate


def make_shadow(log_weights, **columns):
    """Frames of which nothing but the energy difference and the columns is known."""
    empty, kT_meV = np.zeros(len(log_weights)), 1000 * units.kB * 300
    known = {"pressure_bar": np.zeros((len(log_weights), 2)), "volume_A3": empty + 1, "rdfs": {}, **columns}
    return Shadow(
        n_atoms=1, time_ps=empty, energy_meV_per_atom=kT_meV * np.asarray(log_weights), force_ms=empty,
        force_products=np.ones((len(empty), 2)), temperature_K=300, mass_amu=1.0, **known,
    )  # fmt: skip


def of_values(*names):
    return Measurement(values={name: [UNKNOWN] for name in names})


def test_gaussian_volumes_give_the_reference_s_mean_and_fluctuation():
    """Volumes of a harmonic E about 1000 Å³ with std 10; the reference's is 2 Å³ lower and 5 % narrower."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(100):
        volume = rng.normal(1000, 10, 100)
        log_weights = ((volume - 1000) / 10) ** 2 / 2 - ((volume - 998) / 9.5) ** 2 / 2
        # the sign: E of the candidate less the reference's, and E = (V - V0)^2 / 2 s^2
        shadow = make_shadow(log_weights, volume_A3=volume)
        shifts = estimate_shifts([shadow], of_values("density", "volume_fluctuation"))
        ((density,), (fluctuation,)) = shifts["density"], shifts["volume_fluctuation"]
        # to first order -2 / 1000 of the density, to second the fluctuations' (s / V)^2
        true = 1.66053906660 / 1000 * (1e-4 - (0.002 + 0.004e-3 + 0.95**2 * 1e-4))
        covered.append(
            [
                abs(density.value - true) < 2.3 * density.error,
                abs(fluctuation.value - 0.5) < 2.3 * fluctuation.error,
            ]
        )
        # without a common set of frames the noise is 10 sqrt(2 / 100)
        assert density.error < 0.7 * 1.66e-6 * 10 * np.sqrt(2 / 100)
    assert (np.mean(covered, axis=0) >= 0.87).all()


def test_a_pressure_is_each_potential_s_own_on_the_candidate_s_frames():
    rng = np.random.default_rng(1)
    volume = rng.normal(0, 1, 400)
    # the reference's energy is x^2 / 2 - 0.1 x: its mean of x is 0.1, of which its pressure has 1000 bar each, and 50 more
    pressures = np.stack([1000 * volume, 1000 * volume + 50], axis=1)
    shifts = estimate_shifts([make_shadow(0.1 * volume, pressure_bar=pressures)], of_values("pressure"))
    (pressure,) = shifts["pressure"]
    assert abs(pressure.value + 150) <= 3 * pressure.error and pressure.error <= 15


def test_float64_s_own_frames_give_the_same_difference():
    """The case before, seen from the other side: frames of the reference, of which the candidate's mean of x is 0.1 less."""
    rng = np.random.default_rng(1)
    volume = rng.normal(0.1, 1, 400)
    pressures = np.stack([1000 * volume, 1000 * volume + 50], axis=1)
    shadow = make_shadow(0.1 * volume, pressure_bar=pressures)
    (pressure,) = estimate_shifts([shadow], of_values("pressure"), of_reference=True)["pressure"]
    assert abs(pressure.value + 150) <= 3 * pressure.error and pressure.error <= 15


def test_at_constant_pressure_both_have_the_barostat_s():
    """A candidate that is 0.3 kT per 10 Å³ softer: its virial differs by what the denser gas has more of N kT / V."""
    rng = np.random.default_rng(1)
    n_atoms, kT_bar = 1, units.kB * 300 / units.bar  # in Å³
    volume = rng.normal(1000, 10, 4000)
    # E of the candidate less the reference's is c V: the reference's mean volume is s^2 c / kT higher, its virial c
    log_weights = 0.03 * volume
    total = rng.normal(0, 5, len(volume)) - (
        volume - 1000
    )  # what a barostat holds, with the volume's part in it
    true = total - n_atoms * kT_bar / volume
    columns = {"volume_A3": volume, "pressure_bar": np.stack([true - 0.03 * kT_bar, true], axis=1)}
    (pressure,) = estimate_shifts([make_shadow(log_weights, **columns)], of_values("pressure"))["pressure"]
    # of both the mean of `total`: the reference's frames are 0.03 * 10^2 = 3 Å³ larger, of which it has -3 bar
    assert abs(pressure.value - (3 - 0.03 * kT_bar)) <= 3 * pressure.error


def test_a_wall_that_the_candidate_never_crosses_is_seen_from_float64_s_side():
    """x^2 / 2 of the reference, the same with a wall at zero of the candidate: its frames are all on one side."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, 400)
    wall = np.where(x < 0, 50.0, 0.0)
    stacked = {"pressure_bar": np.stack([1000 * x, 1000 * x], axis=1)}
    own = {"pressure_bar": stacked["pressure_bar"][x >= 0]}
    forward = estimate_shifts([make_shadow(wall[x >= 0], **own)], of_values("pressure"))
    assert abs(forward["pressure"][0].value) <= 1e-9  # the candidate's frames know nothing of it
    assert estimate_shifts([make_shadow(wall, **stacked)], of_values("pressure"), of_reference=True) == {}
    test = compare_observable("pressure", [Estimate(0, 500, 9)] * 3, [Estimate(0, 500, 9)] * 3, LIMITS)
    agreed, contradicted = [Estimate(0, 1, 9)] * 3, [Estimate(400, 1, 9)] * 3
    assert reweigh_test(test, agreed, agreed).p_pass < 0.05
    assert reweigh_test(test, agreed, contradicted).p_pass > 0.95  # the direction that is farther off counts
    assert reweigh_test(test, contradicted, agreed).reweighted.value == 400


def test_a_contact_that_only_the_candidate_has_counts():
    """Bins where float64 has no pairs are part of the distance where the candidate has some."""
    atoms, rng = ase.Atoms("Ar20", cell=[12.0] * 3, pbc=True), np.random.default_rng(1)
    first = np.arange(20)[:, None] * [3.9, 5.1, 4.3] % 12

    def draw(n_frames, hole):
        frames = (first + rng.normal(0, 0.05, (n_frames, 20, 3))) % 12
        frames[0] = first
        if hole:
            frames[60:, 1] = frames[60:, 0] + [0.0, 0.0, 1.5]
        (rdf,) = structure.compute_rdfs(make_series(frames, 12 * np.eye(3)), atoms, n_blocks=n_frames)
        return rdf

    own, others = ([draw(100, hole) for _ in range(3)] for hole in (False, True))
    reference = Measurement(values={}, rdfs={own[0].pair: own})
    near = own[0].r < 2
    assert np.all([rdf.mean[near] == 0 for rdf in own]) and np.all(
        [rdf.mean[near].max() > 0.1 for rdf in others]
    )
    sides = add_profiles(Measurement(values={}, rdfs={own[0].pair: others}), reference)
    hidden = np.mean([rdf.mean for rdf in own], axis=0) <= MIN_G
    part = np.mean([rdf.mean for rdf in others], axis=0)[hidden & (own[0].r < 2.5)]
    (distance,) = sides[0][f"rdf {own[0].pair}"]
    assert distance.value > 0.5 * np.sqrt((part**2).sum() / len(own[0].r))
    # float64 puts these frames 50 kT higher: their weights are nothing
    log_weights = np.repeat([0.0, -50.0], [60, 40])
    shadows = [make_shadow(log_weights, rdfs={rdf.pair: rdf}) for rdf in others]
    (shift,) = estimate_shifts(shadows, reference)[f"rdf {own[0].pair}"]
    assert shift.value > 0.5 * np.sqrt((part**2).sum() / len(own[0].r))


def test_a_square_well_raises_g_by_boltzmann_s_factor():
    """An ideal gas seen by a reference that has 0.1 kT more attraction below 3 Å: g is exp(0.1) there, to first order."""
    rng, atoms = np.random.default_rng(1), ase.Atoms("Ar20", cell=[12.0] * 3, pbc=True)
    shadows, runs = [], []
    for _ in range(6):
        positions = rng.uniform(0, 12, (200, 20, 3))
        positions[0] = (
            np.arange(20)[:, None] * [3.9, 5.1, 4.3] % 12
        )  # no bonds in the frame that tells molecules
        (rdf,) = structure.compute_rdfs(make_series(positions, 12 * np.eye(3)), atoms, n_blocks=200)
        vectors = positions[:, :, None] - positions[:, None]
        distances = np.linalg.norm(vectors - 12 * np.round(vectors / 12), axis=-1)
        near = (distances < 3).sum(axis=(1, 2)) / 2 - 10  # each atom is near itself
        shadows.append(make_shadow(0.1 * near, rdfs={rdf.pair: rdf}))
        runs.append(rdf)
    (distance,) = estimate_shifts(shadows, Measurement(values={}, rdfs={"Ar-Ar": runs}))["rdf Ar-Ar"]
    volume_share = (runs[0].r < 3).mean()
    true = (np.exp(0.1) - 1) * np.sqrt(volume_share)
    assert abs(distance.value - true) <= 4 * distance.error and distance.error < 0.2 * true


def test_frames_of_which_few_would_speak_for_all_say_nothing():
    assert weigh_frames(np.zeros(10)) == pytest.approx(0.1)
    assert weigh_frames(np.array([0.0] * 9 + [5.0])) is None
    assert estimate_shifts([make_shadow(np.array([0.0] * 9 + [5.0]))], of_values("pressure")) == {}
    assert estimate_shifts([], of_values("pressure")) == {}


class Deeper(Argon):
    epsilon = 1.002 * Argon.epsilon


OBSERVABLES = ("gradient", "rdf", "coordination", "shadow")


def test_a_fifth_of_a_percent_deeper_wells_pass_where_runs_of_their_own_tell_nothing(box, tmp_path):
    report = judge_argon(box, tmp_path, Deeper(), ensemble="nvt", observables=OBSERVABLES)
    tests = {test.observable: test for test in report.verdicts[0].tests}
    for name in ("rdf Ar-Ar", "rdf_peak_height Ar-Ar", "coordination Ar-Ar"):
        test = tests[name]
        assert test.outcome == "pass" and "reweighted" not in test.method
        direct = test.difference.error * (test.limit / test.allowed)
        assert test.reweighted.error < 0.2 * direct
        # deeper wells, higher peaks: by 0.002 kT times eps / kT of g, with more neighbours
        assert abs(test.reweighted.value) < 0.01 * max(1.0, test.candidate.value)


def test_forces_that_are_not_those_of_the_energy_are_kept_from_it(box, tmp_path):
    report = judge_argon(
        box, tmp_path, Faulty(Argon(), scale_forces(1.001)), ensemble="nvt", observables=OBSERVABLES
    )
    tests = {test.observable: test for test in report.verdicts[0].tests}
    assert tests["gradient"].outcome == "fail"
    assert tests["coordination Ar-Ar"].reweighted is None
    assert report.findings[0].shifts and report.findings[0].reverse_shifts  # they were there


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_a_sound_candidate_passes_a_whole_case_of_averages(tmp_path, ensemble):
    """All but what moves (diffusion, spectra) and the temperature, which take longer: of larger atoms, in LAMMPS."""
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    observables = {
        "nvt": ("energy_drift", "coordination"),
        "npt": ("density", "volume_fluctuation"),
    }[ensemble]
    case = Case(
        ensemble, (str(save_morse(tmp_path / "larger.pt", rest=3.0002)),), str(save_morse(tmp_path / "morse.pt")),
        "lammps", structure=str(tmp_path / "crystal.xyz"), timestep_fs=4.0, temperature_K=50, length_ps=12.0,
        equilibration_ps=2.0, checkpoint_ps=40.0, frame_fs=40.0, sample_fs=16.0, replicas=3,
        observables=(*observables, "gradient", "pressure_gradient", "pressure", "rdf", "shadow"),
    )  # fmt: skip
    report = validate(case, tmp_path / "report", quiet=True)
    undecided = {test.observable: test.advice for test in report.verdicts[0].tests if test.outcome != "pass"}
    assert not undecided
    assert report.exit_status == 0


def test_what_is_judged_by_its_factor_is_held_to_the_nearer_side():
    """The fluctuation of the volume may be 1.5 times float64's or 1 / 1.5 of it: half as much is beyond, as 0.7 is not."""
    sides = [[Estimate(value, 3.0, 9)] * 3 for value in (8.0, 10.0)]
    test = compare_observable("volume_fluctuation", *sides, LIMITS)
    assert abs(test.limit - 5) <= 1e-9 and abs(test.least_limit - 10 / 3) <= 1e-9
    half, seven_tenths = ([Estimate(value, 0.1, 9)] * 3 for value in (-4.5, -3.0))
    assert (
        reweigh_test(test, half, half).p_pass > 0.95
        and reweigh_test(test, seven_tenths, seven_tenths).p_pass < 0.05
    )
    assert compare_observable("pressure", *sides, LIMITS).least_limit == LIMITS["pressure_bar"].value


@pytest.mark.parametrize("correlated", [20, 5])
def test_a_slow_mode_of_g_is_as_far_from_float64_s_as_it_is(correlated):
    """Few correlation times a run: its own frames' weights alone would tell two thirds of the distance."""
    rng, r = np.random.default_rng(3), np.arange(structure.BIN_A / 2, 8, structure.BIN_A)
    mode = np.sqrt(2) * np.cos(np.pi * r / 1.3) * (r > 2.5)
    mode /= np.sqrt((mode[r > 2.5] ** 2).mean())
    liquid = 1.0 * (r > 2.5)  # no peak: the distance alone
    own = structure.Rdf("Ar-Ar", r, np.repeat(liquid[None], 5, 0), np.ones((5, len(r))), np.ones(5))
    reference, delta, distance = Measurement(values={}, rdfs={"Ar-Ar": [own] * 3}), 0.5, 0.03
    decay, found = np.exp(-1 / correlated), []
    for _ in range(60):
        shadows = []
        for _ in range(3):
            noise = rng.normal(size=100) * np.sqrt(1 - decay**2)
            noise[0] = rng.normal()
            # the candidate's x is a normal one about delta, float64's about 0
            x = lfilter([1], [1, -decay], noise) + delta
            g = liquid + distance / delta * x[:, None] * mode
            rdf = structure.Rdf("Ar-Ar", r, g, np.ones((100, len(r))), np.ones(100))
            shadows.append(make_shadow(-delta * x + delta**2 / 2, rdfs={"Ar-Ar": rdf}))
        if shifts := estimate_shifts(shadows, reference):
            found.append(shifts["rdf Ar-Ar"][0].value)
    assert len(found) > 40 and abs(np.mean(found) / distance - 1) <= 0.08
