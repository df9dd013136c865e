"""What is asked for is measured, or refused before any work, or said to be undecided: it never passes unseen."""

import dataclasses

import ase
import ase.io
import numpy as np
import pytest
from test_validation_observables import make_series
from validation_artifacts import cluster, crystal, save_morse, skewed_slab

from mdplugin.errors import CaseError
from mdplugin.validation.case import OBSERVABLES, Case
from mdplugin.validation.criteria import find_obstacle
from mdplugin.validation.measurement import Replica, measure_replicas
from mdplugin.validation.observables import thermal
from mdplugin.validation.observables.topology import find_contacts, find_topology, turn
from mdplugin.validation.potential import load_potential
from mdplugin.validation.series import Failure, Series
from mdplugin.validation.study import compare_potentials, mark_missing, validate
from mdplugin.validation.systems import Structure
from mdplugin.validation.workspace import prepare


def make_case(directory, atoms, ensemble, **changes):
    ase.io.write(directory / "start.xyz", atoms)
    settings = {
        "engine": "ase", "structure": str(directory / "start.xyz"), "timestep_fs": 4.0, "temperature_K": 50,
        "length_ps": 1.2, "equilibration_ps": 0.1, "replicas": 2, "frame_fs": 16.0, "sample_fs": 16.0,
    }  # fmt: skip
    models = (str(save_morse(directory / "model.pt")),)
    return Case(ensemble, models, str(save_morse(directory / "morse.pt")), **{**settings, **changes})


@pytest.mark.parametrize(
    ("make", "ensemble", "observable", "message"),
    [
        (cluster, "nvt", "rdf", "rdf needs a structure with periods in three directions"),
        (skewed_slab, "nvt", "pressure", "pressure needs a structure with periods in three directions"),
        (crystal, "nve", "angular_momentum", "angular_momentum needs a structure without periods"),
    ],
)
def test_an_observable_that_there_cannot_be_is_refused_before_any_work(
    tmp_path, make, ensemble, observable, message
):
    case = make_case(tmp_path, make(), ensemble, observables=(observable,))
    with pytest.raises(CaseError, match=message):
        prepare(case, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    prepare(case.replace(observables=()), tmp_path / "report")  # not asked for by name, it is left out


def test_what_the_runs_are_too_short_for_is_inconclusive_not_passed_over(tmp_path):
    case = make_case(tmp_path, crystal(), "nvt", observables=("diffusion", "kinetic_distribution"))
    report = validate(case, tmp_path / "report", quiet=True)
    outcomes = {test.observable: str(test.outcome) for test in report.verdicts[0].tests}
    assert outcomes["diffusion Ar"] == outcomes["kinetic_p_value"] == "inconclusive"
    assert report.exit_status == 2


def test_a_potential_in_python_is_not_passed_without_what_was_asked_for(tmp_path):
    case = make_case(tmp_path, cluster(), "nvt", observables=("rdf",))
    morse = {label: load_potential(case.models[0], 1) for label in (*case.labels, "reference")}
    report = compare_potentials(
        case, Structure(tmp_path / "start.xyz", cluster()), morse, tmp_path / "report"
    )
    assert [str(test.outcome) for test in report.verdicts[0].tests] == ["pass", "inconclusive"]


@pytest.mark.parametrize("ensemble", OBSERVABLES)
def test_each_observable_is_missed_where_nothing_was_measured(tmp_path, ensemble):
    atoms = cluster() if ensemble == "nve" else crystal()
    case = make_case(tmp_path, atoms, ensemble, engine="lammps")
    assert all(find_obstacle(name, atoms.pbc) is None for name in case.chosen_observables)
    candidate, reference = mark_missing(case.chosen_observables, {"temperature": [1]}, {})
    assert (
        len(candidate) == len({"temperature", *case.chosen_observables})
        and len(reference) >= len(candidate) - 1
    )


def test_atoms_of_a_slab_meet_their_images_where_it_has_periods():
    cell = np.array([[8.0, 0, 0], [2.0, 9.0, 0], [0, 0, 5.0]])
    # bonded over the face of the first vector; over the third one, which is open, they would be
    atoms = ase.Atoms("H4", [[0.3, 1, 1], [7.7, 1, 1], [4, 4, 0.2], [4, 4, 4.9]], cell=cell, pbc=(1, 1, 0))
    assert find_topology(atoms).pairs.tolist() == [[0, 1]]
    pairs, distances = find_contacts(*turn(atoms.positions, cell, atoms.pbc))
    assert pairs.tolist() == [[0, 1]] and abs(distances[0] - 0.6) <= 1e-5
    atoms.pbc = True
    assert sorted(find_topology(atoms).pairs.tolist()) == [[0, 1], [2, 3]]
    atoms.pbc = False
    assert find_topology(atoms).pairs.tolist() == []
    # an open direction need not have a vector, nor to hold the atoms
    atoms.cell[2], atoms.pbc = 0, (1, 1, 0)
    assert find_topology(atoms).pairs.tolist() == [[0, 1]]


@pytest.mark.parametrize("pbc", [(1, 1, 1), (1, 0, 1), (0, 1, 0), (0, 0, 0)])
@pytest.mark.parametrize("hand", [1, -1])
def test_contacts_do_not_depend_on_the_orientation_of_the_cell(pbc, hand):
    """Against a sum over images, of a primitive cell that has no vector along x; -1 makes it left-handed."""
    rng = np.random.default_rng(3)
    cell = 4.6 * np.array([[0.0, 1, 1], [1, 0, 1], [1, 1, 0]]) * [1, 1, hand]
    positions = rng.uniform(size=(9, 3)) @ cell
    images = np.array([[i, j, k] for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)]) * pbc
    shifts = np.unique(images, axis=0) @ cell
    expected = {}
    for i in range(9):
        for j in range(i):
            distance = np.linalg.norm(positions[i] - positions[j] + shifts, axis=1).min()
            if distance < 3:
                expected[j, i] = distance
    pairs, distances = find_contacts(*turn(positions, cell, np.array(pbc, dtype=bool)))
    found = dict(zip(map(tuple, pairs.tolist()), distances.tolist(), strict=True))
    assert len(expected) >= 4 and found == pytest.approx(expected, abs=1e-5)


def make_volumes(volume):
    n = len(volume)
    values = {name: np.zeros(n) for name in ("potential_eV", "kinetic_eV", "conserved_eV", "wall_s")}
    return Series(
        time_ps=np.arange(n) * 1e-3, n_atoms=1, degrees_of_freedom=3, sample_time_ps=np.arange(n) * 5e-3,
        pressure_bar=np.zeros(n), volume_A3=volume, momentum=np.zeros((n, 3)), angular_momentum=np.zeros((n, 3)),
        frame_time_ps=np.zeros(0), positions=np.zeros((0, 1, 3)), cells=np.zeros((0, 3, 3)),
        spectrum=np.zeros((0, 1, 0)), frequency_per_cm=np.zeros(0), failure=None, **values,
    )  # fmt: skip


def test_the_trend_of_the_volume_is_its_change_over_the_run():
    steady = thermal.measure_volume_trend(make_volumes(100 + np.sin(np.arange(500.0))))
    swelling = thermal.measure_volume_trend(make_volumes(np.linspace(80, 120, 500)))
    assert abs(steady.value) <= 1e-3 and abs(swelling.value - 0.4) <= 1e-9


def test_a_run_that_the_doubled_timestep_breaks_leaves_the_exponent_open():
    """It is no failure of the potential at the case's own timestep, float64's as little."""
    steps, rng = 1600, np.random.default_rng(1)
    columns = {
        "time_ps": np.arange(steps) * 5e-4, "potential_eV": rng.normal(size=steps), "kinetic_eV": np.ones(steps),
        "conserved_eV": rng.normal(size=steps), "wall_s": np.ones(steps),
    }  # fmt: skip
    series = make_series(np.zeros((4, 2, 3)), 10 * np.eye(3), **columns)
    broken = dataclasses.replace(series, failure=Failure(7, "the system explodes"))
    case = Case("nve", ("m.pt",), "water", observables=("timestep_exponent",))
    replicas = [Replica(series, coarse=broken), Replica(series, coarse=broken)]
    found = measure_replicas(case, ase.Atoms("Ar2", [[0, 0, 0], [0, 0, 4]]), replicas, case.observables)
    assert found.failures == () and not any(each.is_known for each in found.values["timestep_exponent"])
    assert "replica 0: run with the coarse timestep fails at step 7" in found.notes[-2]
    assert Replica(broken).failure.startswith("run fails at step 7")
