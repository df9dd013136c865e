"""Each observable against a closed form: systems whose answer is known without a simulation."""

import ase
import numpy as np
import pytest
from ase import units
from ase.build import bulk, molecule
from scipy import stats
from scipy.signal import lfilter
from validation_toys import Argon, Faulty, Spring, SPRING_eV_PER_A2, argon_box

from mdplugin.validation.case import Case
from mdplugin.validation.chain import execute_run, load_run
from mdplugin.validation.measurement import Measurement, Replica, measure_replicas
from mdplugin.validation.observables import conservation, structure, thermal, topology
from mdplugin.validation.observables.shadow import Sample, compare_frames, evaluate, measure_shadow
from mdplugin.validation.plan import RunPlan, Segment
from mdplugin.validation.potential import Potential
from mdplugin.validation.profiles import add_profiles
from mdplugin.validation.runner_ase import AseEngine
from mdplugin.validation.series import Series


def make_series(positions, cell, spacing_ps=0.02, **columns):
    """A series of frames alone: (n_frames, n_atoms, 3) in a constant cell."""
    n_frames, n_atoms = positions.shape[:2]
    values = dict.fromkeys(("time_ps", "potential_eV", "kinetic_eV", "conserved_eV", "wall_s"), np.zeros(0))
    return Series(
        **{**values, **columns},
        n_atoms=n_atoms,
        degrees_of_freedom=3 * n_atoms - 3,
        frame_time_ps=np.arange(n_frames) * spacing_ps,
        positions=positions,
        cells=np.repeat(np.asarray(cell, dtype=float)[None], n_frames, axis=0),
    )


TRICLINIC = np.array([[14.0, 0, 0], [3.0, 13.0, 0], [-2.0, 4.0, 15.0]])


@pytest.mark.parametrize("cell", [np.eye(3) * 14.0, TRICLINIC], ids=["cubic", "triclinic"])
def test_the_rdf_of_an_ideal_gas_is_one_and_its_counts_are_poisson(cell):
    n_frames, n_atoms = 100, 60
    rng = np.random.default_rng(0)
    positions = rng.random((n_frames, n_atoms, 3)) @ cell
    grid = np.stack(np.meshgrid(*3 * [np.arange(4) / 4], indexing="ij"), axis=-1).reshape(-1, 3)
    atoms = ase.Atoms(
        ["Ar"] * 30 + ["Xe"] * 30, positions=grid[:n_atoms] @ cell, cell=cell, pbc=True
    )  # no bonds
    rdfs = {rdf.pair: rdf for rdf in structure.compute_rdfs(make_series(positions, cell), atoms)}
    for pair, n_pairs, times_counted in (("Ar-Xe", 30 * 30, 1), ("Ar-Ar", 30 * 29, 2)):
        rdf = rdfs[pair]
        volume = np.linalg.det(cell)
        width = rdf.r[1] - rdf.r[0]
        shells = 4 * np.pi * (rdf.r**2 * width + width**3 / 12)
        expected = n_frames * n_pairs * shells / volume
        counts = rdf.counts.sum(axis=0)
        populated = expected > 20
        deviations = (counts - expected)[populated] / np.sqrt(times_counted * expected[populated])
        # chi-square of independent Poisson counts
        assert stats.chi2.sf((deviations**2).sum(), populated.sum()) >= 1e-4
        # the same volume elements as MDAnalysis, and 1 on average
        assert (
            np.max(np.abs(rdf.mean[populated] * expected[populated] - counts[populated]))
            <= 1e-6 * counts.max()
        )


def test_the_shells_of_an_fcc_crystal_hold_12_6_and_24_neighbours():
    a = 4.0
    atoms = bulk("Ar", "fcc", a=a, cubic=True).repeat(4)
    positions = np.repeat(atoms.positions[None], 5, axis=0)
    (rdf,) = structure.compute_rdfs(make_series(positions, atoms.cell.array), atoms)
    pairs = rdf.counts.sum(axis=0) / (5 * len(atoms))
    for distance, neighbours in ((a / np.sqrt(2), 12), (a, 6), (a * np.sqrt(1.5), 24)):
        near = np.abs(rdf.r - distance) <= 2 * structure.BIN_A
        assert abs(pairs[near].sum() - neighbours) <= 1e-9
    shell = structure.find_shell(rdf.r, rdf.mean)
    measured = structure.measure_shell(rdf, shell)
    assert abs(measured["coordination"].value - 12) <= 1e-9
    assert abs(measured["rdf_peak_position"].value - a / np.sqrt(2)) <= structure.BIN_A


def test_an_atom_of_a_crystal_that_is_one_molecule_has_its_neighbours():
    atoms = bulk("SiC", "zincblende", a=4.36, cubic=True).repeat(4)
    positions = np.repeat(atoms.positions[None], 5, axis=0)
    rdfs = {rdf.pair: rdf for rdf in structure.compute_rdfs(make_series(positions, atoms.cell.array), atoms)}
    for pair, neighbours in (("C-Si", 4), ("C-C", 12), ("Si-Si", 12)):
        shell = structure.find_shell(rdfs[pair].r, rdfs[pair].mean)
        assert abs(structure.measure_shell(rdfs[pair], shell)["coordination"].value - neighbours) <= 1e-9


def test_functions_of_boxes_of_different_widths_are_compared_as_far_as_all_go():
    rdfs = []
    for width in (10.0, 9.0, 9.5):
        atoms = bulk("Ar", "fcc", a=width / 2, cubic=True).repeat(2)
        positions = np.repeat(atoms.positions[None], 5, axis=0)
        rdfs += structure.compute_rdfs(make_series(positions, atoms.cell.array), atoms)
    assert len({len(rdf.r) for rdf in rdfs}) == 3
    sides = [Measurement(values={}, rdfs={"Ar-Ar": list(each)}) for each in (rdfs, rdfs[::-1])]
    distances, _ = add_profiles(*sides)
    assert distances["rdf Ar-Ar"][0].value == 0.0  # the same three runs
    cut = structure.cut_to_common_range(rdfs)
    assert {len(each.r) for each in cut} == {each.g.shape[1] for each in cut} == {90}


def test_pairs_within_a_molecule_do_not_count():
    water = molecule("H2O")
    atoms = ase.Atoms(cell=np.eye(3) * 12, pbc=True)
    for shift in ((0, 0, 0), (6, 0, 0), (0, 6, 0), (0, 0, 6)):
        copy = water.copy()
        copy.translate(shift)
        atoms += copy
    positions = np.repeat(atoms.positions[None], 5, axis=0)
    rdfs = {rdf.pair: rdf for rdf in structure.compute_rdfs(make_series(positions, atoms.cell.array), atoms)}
    # 4 molecules: 4 x 8 pairs of O and H less 4 x 2 within, 8 x 8 of H and H less 4 x 4
    for pair, found, n_frames in (("H-O", 4 * 8 - 8, 5), ("H-H", 64 - 16, 5), ("O-O", 16 - 4, 5)):
        rdf = rdfs[pair]
        shells = 4 * np.pi * (rdf.r**2 * structure.BIN_A + structure.BIN_A**3 / 12)
        counts = rdf.mean * shells * found * n_frames / 12**3
        assert np.max(np.abs(counts - rdf.counts.sum(axis=0))) <= 1e-6 * rdf.counts.max()
    # the O-H bond is 0.97 Å; the nearest hydrogen of another molecule is farther than 4 Å
    assert rdfs["H-O"].counts[:, rdfs["H-O"].r < 4].sum() == 0 < rdfs["H-O"].counts.sum()


@pytest.mark.parametrize(("width", "other_side"), [(0.12, 0.35), (0.06, 0.09)])
def test_a_peak_is_followed_between_the_bins(width, other_side):
    """A lopsided peak that moves by 0.01 Å, a fifth of a bin, wherever between bins it is."""
    r = np.arange(structure.BIN_A / 2, 8, structure.BIN_A)

    def draw(centre):
        apart = r - centre
        return 0.8 * (r > 3.4) + 3 * np.exp(-((apart / np.where(apart < 0, width, other_side)) ** 2) / 2)

    for start in np.linspace(2.7, 2.75, 11):
        shell = structure.find_shell(r, draw(start))
        here, there = (structure.find_peak(r, draw(each), shell)[0] for each in (start, start + 0.01))
        assert abs(here - shell.centre) <= 2 * structure.PEAK_RESOLVED_A
        assert abs((there - here) / 0.01 - 1) <= 0.15
    away = 0.3 if width > 0.1 else 0.16  # out of the parabola's reach, in the shell's
    far, height = structure.find_peak(r, draw(start + away), shell)
    assert abs(far - start - away) <= structure.BIN_A and abs(height - 3) <= 0.3


def test_a_peak_of_few_bins_is_its_highest():
    r, g = np.arange(0.025, 1, 0.05), np.zeros(20)
    g[0] = 2.0  # falls from the edge: no parabola has its top there
    assert structure.find_peak(r, g, structure.Shell(0.0, 0.3, 0.15, 0.5)) == (r[0], 2.0)


def test_without_a_cell_there_is_no_rdf():
    atoms = molecule("H2O")
    assert (
        structure.compute_rdfs(
            make_series(np.repeat(atoms.positions[None], 9, axis=0), np.zeros((3, 3))), atoms
        )
        == []
    )


def make_kinetic(temperature_K, n, rho, seed, atoms=30):
    """Kinetic energies of canonical momenta that decay by rho from sample to sample."""
    freedom = 3 * atoms - 3
    noise = np.random.default_rng(seed).normal(size=(freedom, n)) * np.sqrt(1 - rho**2)
    noise[:, 0] /= np.sqrt(1 - rho**2)
    momenta = lfilter([1], [1, -rho], noise, axis=1)
    return 0.5 * units.kB * temperature_K * (momenta**2).sum(axis=0)


def kinetic_series(kinetic):
    return make_series(
        np.zeros((0, 30, 3)), np.eye(3), kinetic_eV=kinetic, time_ps=np.arange(len(kinetic)) * 1e-3
    )


def test_canonical_kinetic_energies_pass_the_chi_square_test_as_often_as_they_should():
    p_values = [
        thermal.test_kinetic_distribution(kinetic_series(make_kinetic(300, 2000, 0.8, seed)), 300)
        for seed in range(200)
    ]
    assert sum(p < 0.01 for p in p_values) <= stats.binom.ppf(
        0.9995, 200, 0.01 + 0.01
    )  # the rest is correlation left
    assert stats.kstest(p_values, "uniform").pvalue >= 1e-4


def test_a_wrong_temperature_and_a_weak_coupling_thermostat_are_caught():
    kinetic = make_kinetic(300, 4000, 0.8, 1)
    assert thermal.test_kinetic_distribution(kinetic_series(1.1 * kinetic), 300) < 1e-6
    calm = kinetic.mean() + 0.3 * (kinetic - kinetic.mean())
    assert thermal.test_kinetic_distribution(kinetic_series(calm), 300) < 1e-6
    assert abs(thermal.measure_kinetic_variance(kinetic_series(calm), 300).value - 0.09) <= 0.03
    sound = thermal.measure_kinetic_variance(kinetic_series(kinetic), 300)
    assert abs(sound.value - 1) <= 4 * sound.error
    mean = thermal.measure_temperature(kinetic_series(kinetic))
    assert abs(mean.value - 300) <= 4 * mean.error


def test_density_and_volume_fluctuation_of_known_volumes():
    rng = np.random.default_rng(5)
    volume = rng.normal(1000, 20, size=4000)
    series = make_series(
        np.zeros((0, 2, 3)), np.eye(3), volume_A3=volume, pressure_bar=rng.normal(1, 100, size=4000)
    )
    assert (
        abs(thermal.measure_density(series, 602.214076).value - 1) <= 0.002
    )  # 1 g/cm^3 by Avogadro's number
    fluctuation = thermal.measure_volume_fluctuation(series)
    assert abs(fluctuation.value - 20) <= 4 * fluctuation.error <= 4
    pressure = thermal.measure_pressure(series)
    assert abs(pressure.value - 1) <= 4 * pressure.error


def test_broken_and_formed_bonds_are_counted_and_vibrations_are_not():
    atoms = molecule("H2O")
    still, stretched, broken = (atoms.positions.copy() for _ in range(3))
    stretched[1] = atoms.positions[0] + 1.3 * (atoms.positions[1] - atoms.positions[0])
    broken[1] = atoms.positions[0] + 2.5 * (atoms.positions[1] - atoms.positions[0])
    assert len(topology.find_topology(atoms).pairs) == 2
    for frame, changed in ((stretched, 0), (broken, 1)):
        series = make_series(np.array([still, frame, still]), np.zeros((3, 3)))
        assert topology.count_changes(series, atoms).max() == changed
    formed = still.copy()
    formed[2] = formed[1] + [0.5, 0, 0]
    series = make_series(np.array([still, formed] * topology.N_BLOCKS), np.zeros((3, 3)))
    assert topology.count_changes(series, atoms).max() >= 1
    assert abs(topology.measure_minimum_distance(series, atoms).value - 0.5) <= 1e-5


def test_the_first_change_of_a_bond_is_noted_whatever_is_measured():
    atoms = molecule("H2O")
    broken = atoms.positions + np.array([[0, 0, 0], [3, 0, 0], [0, 0, 0]])
    columns = dict.fromkeys(("time_ps", "potential_eV", "kinetic_eV", "conserved_eV", "wall_s"), np.zeros(4))
    runs = [
        Replica(make_series(np.array([atoms.positions, *frames]), np.zeros((3, 3)), **columns))
        for frames in ([atoms.positions] * 2, [atoms.positions, broken])
    ]
    case = Case("nvt", ("a.pt",), "x", "ase")
    note = "the first bond breaks or forms in replica 1 at 0.04 ps"
    assert measure_replicas(case, atoms, runs, ("temperature",)).notes == (note,)
    assert measure_replicas(case, atoms, runs[:1], ("temperature",)).notes == ()


def test_hydrogens_of_two_molecules_that_fall_together_are_counted_and_hydrogen_bonds_are_not():
    first = molecule("H2O")
    outward = first.positions[1] - first.positions[0]
    outward /= np.linalg.norm(outward)

    def place(near, distance):
        """Another molecule, its atom `near` in line with an O-H bond of the first, `distance` Å from its H."""
        second = first.copy()
        if near:
            second.rotate(180, np.cross(outward, [1, 0, 0]))  # hydrogen to hydrogen
        second.translate(first.positions[1] + distance * outward - second.positions[near])
        return first + second

    apart = place(1, 2.0)
    assert topology.find_topology(apart).molecule.tolist() == [0, 0, 0, 1, 1, 1]
    for near, distance, changed in ((1, 1.0, 1), (1, 1.3, 0), (0, 1.25, 0)):
        frame = place(near, distance)
        assert abs(frame.get_distance(1, 3 + near) - distance) <= 1e-6
        series = make_series(np.array([apart.positions, frame.positions]), np.zeros((3, 3)))
        assert topology.count_changes(series, apart).tolist() == [0, changed], (near, distance)


def test_bonds_are_followed_through_the_faces_of_the_cell():
    atoms = ase.Atoms("H2", positions=[[0.64, 5, 5], [9.9, 5, 5]], cell=np.eye(3) * 10, pbc=True)
    other_image = atoms.positions + np.array([[0, 0, 0], [20, 0, 0]])
    series = make_series(np.array([atoms.positions, other_image]), atoms.cell.array)
    assert len(topology.find_topology(atoms).pairs) == 1
    assert topology.count_changes(series, atoms).max() == 0


def run_spring(directory, timestep_fs, steps=2000):
    """A vibrating H2 of energy 0.1 eV in velocity Verlet: its series."""
    atoms = ase.Atoms("H2", positions=[[0, 0, 0], [0.74, 0, 0]])
    momentum = np.sqrt(0.1 * atoms.get_masses()[0])
    atoms.set_momenta([[momentum, 0, 0], [-momentum, 0, 0]])
    case = Case("nve", ("spring.pt",), "x", "ase", timestep_fs=timestep_fs)
    engine = AseEngine(case, atoms, {"spring": Potential("spring", Spring())}, lambda step: None)
    plan = RunPlan("spring", 0, "main", 0, (Segment(0, "nve", "spring", steps, 0, timestep_fs, 0),))
    execute_run(engine, plan, directory / str(timestep_fs), lambda step: None)
    return load_run(directory / str(timestep_fs), plan)[0]


def test_velocity_verlet_on_a_spring_has_no_drift_and_the_fluctuation_of_its_closed_form(tmp_path):
    omega_squared = 2 * SPRING_eV_PER_A2 / ase.Atoms("H").get_masses()[0]
    runs = {timestep_fs: run_spring(tmp_path, timestep_fs) for timestep_fs in (0.2, 0.4)}
    for timestep_fs, series in runs.items():
        # velocity Verlet conserves p^2/2m + k x^2/2 (1 - w^2 dt^2/4) exactly, so that E oscillates by
        # E0 w^2 dt^2/4 cos^2(wt), whose standard deviation is E0 w^2 dt^2/4 / sqrt(8); next order: w^2 dt^2/4
        half_phase = omega_squared * (timestep_fs * units.fs) ** 2 / 4
        expected = 1000 * 0.1 / 2 * half_phase / np.sqrt(8)
        rms = conservation.measure_fluctuation(series, series.length_ps).value
        assert abs(rms / expected - 1) <= 1.5 * half_phase
        # the slope of an oscillation A cos(2wt) over a length L: at most 24 A / (2w L^2) from 4 blocks or more
        frequency_per_ps = 2 * np.sqrt(omega_squared) * 1000 * units.fs
        bound = 24 * np.sqrt(2) * rms / (frequency_per_ps * series.length_ps**2) / (1 - 1 / 16)
        assert abs(conservation.measure_drift(series).value) <= bound
        assert abs(conservation.measure_drift_ratio(series).value) <= 1e-3
    exponent = conservation.measure_exponent(runs[0.2], runs[0.4], runs[0.2].length_ps)
    assert abs(exponent.value - 2) <= np.log2(1 + 1.5 * half_phase)  # half_phase of the longer step


def test_the_shadow_of_known_errors():
    frames = [argon_box() for _ in range(6)]
    for seed, frame in enumerate(frames):
        frame.rattle(0.1, seed=seed)

    def spoil(results, atoms, call):
        results["forces"] *= 1.01
        results["energy"] += 0.001 * len(atoms) * call  # 1 meV/atom more in each frame

    sample = Sample(frames, np.arange(6) * 0.5, 300.0, reference=evaluate(frames, Argon()))
    shadow = compare_frames(sample, Faulty(Argon(), spoil))
    measured = measure_shadow(shadow)
    rms = np.sqrt(np.mean([1e6 * np.mean((0.01 * forces_of(frame)) ** 2) for frame in frames]))
    assert abs(measured["force_rmse"].value - rms) <= 1e-9
    assert abs(measured["force_slope"].value - 1.01) <= 1e-12
    assert abs(measured["shadow_trend"].value - 2) <= 1e-9  # meV/atom/ps
    # 1 meV/atom of N atoms is sqrt(N) meV per sqrt(N); of what still goes on as many as half of the frames are one sample
    expected = np.sqrt(2) * np.std(np.arange(6)) * np.sqrt(len(frames[0])) / (1000 * units.kB * 300)
    assert abs(measured["shadow_energy"].value / expected - 1) <= 1e-9


def forces_of(atoms):
    copy = atoms.copy()
    copy.calc = Argon()
    return copy.get_forces()


def test_the_change_of_the_momentum_is_its_largest_against_that_of_a_thermal_particle_of_the_whole_mass():
    atoms = ase.Atoms("ArXe", positions=[[0, 0, 0], [4, 0, 0]])
    time = np.linspace(0, 2, 101)
    # P0 + A sin(pi t): largest change A at t = 1/2, none at the end
    start, change = np.array([5.0, -3.0, 2.0]), np.array([2.0, 3.0, -6.0])  # |A| = 7
    series = make_series(
        np.zeros((0, 2, 3)), np.eye(3), momentum=start + np.outer(np.sin(np.pi * time), change)
    )
    measured = conservation.measure_momentum(series, atoms, 300.0)
    thermal = np.sqrt(3 * (39.95 + 131.293) * units.kB * 300)
    assert abs(measured.value * thermal - 7) <= 1e-3 and np.isnan(measured.error)  # masses of 4 digits
    still = make_series(np.zeros((0, 2, 3)), np.eye(3), momentum=np.tile(start, (101, 1)))
    assert conservation.measure_momentum(still, atoms, 300.0).value == 0


def test_the_change_of_the_angular_momentum_is_its_largest_against_that_of_a_thermal_rotation():
    """A dumbbell about its centre of mass has sum m r^2 = mu d^2; its L turns by an angle, with its length kept."""
    atoms = ase.Atoms("ArXe", positions=[[1, 2, 3], [5, 2, 3]])  # the origin does not matter
    angle = np.linspace(0, np.pi / 3, 50)
    turning = 4.0 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    series = make_series(np.zeros((0, 2, 3)), np.eye(3), angular_momentum=turning)
    measured = conservation.measure_angular_momentum(series, atoms, 300.0)
    reduced_mass = 39.95 * 131.293 / (39.95 + 131.293)
    # the chord of 60 degrees is the radius, though |L| does not change at all
    assert abs(measured.value * np.sqrt(units.kB * 300 * reduced_mass * 4**2) - 4.0) <= 1e-3
    assert np.isnan(measured.error)


def test_a_force_of_known_torque_changes_both_momenta_as_integrated(tmp_path):
    """A constant force on one of two free atoms: P = F t, and L about the centre of mass = m1 m2 / M |r x (v2 - v1)|."""
    force, steps, timestep_fs = 0.01, 300, 1.0
    atoms = ase.Atoms("Ar2", positions=[[0, 0, 0], [4, 0, 0]])

    def push(results, atoms, call):
        results["energy"] = 0.0
        results["forces"] = np.array([[0.0, 0.0, 0.0], [0.0, force, 0.0]])

    case = Case("nve", ("pushed.pt",), "x", "ase", timestep_fs=timestep_fs, sample_fs=10.0)
    engine = AseEngine(
        case, atoms, {"pushed": Potential("pushed", Faulty(Spring(), push))}, lambda step: None
    )
    plan = RunPlan("pushed", 0, "main", 0, (Segment(0, "nve", "pushed", steps, 0, timestep_fs, 0),))
    execute_run(engine, plan, tmp_path, lambda step: None)
    series, _ = load_run(tmp_path, plan)
    momentum = force * steps * timestep_fs * units.fs
    thermal = np.sqrt(3 * atoms.get_masses().sum() * units.kB * 300)
    assert abs(conservation.measure_momentum(series, atoms, 300).value * thermal / momentum - 1) <= 1e-9
    # half of the momentum is the centre's; the arm stays 4 Å along x, so that L_z = 4 p / 2
    rotation = np.sqrt(units.kB * 300 * atoms.get_masses()[0] / 2 * 4**2)
    measured = conservation.measure_angular_momentum(series, atoms, 300)
    assert abs(measured.value * rotation / (2 * momentum) - 1) <= 1e-9


def test_the_slope_of_a_swing_that_is_longer_than_the_run_is_within_its_error():
    """Half a period of a bounded oscillation looks like a drift; a run of many periods tells that there is none."""
    for length_ps, is_short in ((0.15, True), (15.0, False)):
        time = np.arange(0, length_ps, 5e-4)
        energy = 0.02 * np.sin(np.pi * time / 0.15 - 0.3) + 0.001 * np.random.default_rng(1).normal(
            size=len(time)
        )
        series = make_series(
            np.zeros((0, 2, 3)), np.eye(3), time_ps=time, conserved_eV=2e-3 * energy, potential_eV=0 * time,
            kinetic_eV=0 * time, wall_s=0 * time,
        )  # fmt: skip
        drift = conservation.measure_drift(series)
        assert abs(drift.value) <= 2 * drift.error
        assert (drift.error > 0.1) == is_short
