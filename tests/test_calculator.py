"""The ASE calculator: derivatives of one energy, in any cell, without side effects."""

import copy
import pickle

import ase
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError

from mdplugin import MACEQuantCalculator
from mdplugin.errors import ArtifactError, StructureError


def make_cell(kind):
    """A few water molecules in the cell asked for; all smaller than twice the cutoff of 4.5 Å."""
    rng = np.random.default_rng(5)
    cells = {
        "orthogonal": (np.diag([5.2, 5.6, 6.1]), True),
        "triclinic": (np.array([[5.4, 0, 0], [1.3, 5.6, 0], [-0.9, 1.1, 5.9]]), True),
        "slab": (np.diag([5.2, 5.6, 14.0]), (True, True, False)),
        "triclinic slab": (np.array([[5.4, 0, 0], [1.3, 5.6, 0], [0.4, -0.6, 13.0]]), (True, True, False)),
        "wire": (np.diag([12.0, 12.0, 5.5]), (False, False, True)),
        "molecule": (np.zeros((3, 3)), False),
        "smaller than the cutoff": (np.diag([3.1, 3.3, 3.2]), True),
    }
    cell, pbc = cells[kind]
    atoms = ase.Atoms(cell=cell, pbc=pbc)
    sites = (
        [(0, 0, 0)] if kind == "smaller than the cutoff" else [(0, 0, 0), (2.7, 0.3, 0.4), (0.5, 2.8, 2.9)]
    )
    for site in sites:
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 180), rng.normal(size=3))
        water.translate(site)
        atoms += water
    atoms.rattle(0.02, seed=3)
    return atoms


KINDS = ["orthogonal", "triclinic", "slab", "triclinic slab", "wire", "molecule", "smaller than the cutoff"]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def calculator(artifacts):
    return MACEQuantCalculator(artifacts["water", "fp64"])


def energy_of(calculator, atoms):
    calculator.calculate(atoms, ["energy"])
    return calculator.results["energy"]


@pytest.mark.parametrize("kind", KINDS)
def test_forces_are_minus_the_energy_gradient(calculator, kind):
    # Fourth-order central differences at h = 5e-3 Å: truncation ~ h⁴ E⁽⁵⁾/30 ~ 1e-8, rounding ~ 1e-13·E/h ~ 1e-9.
    atoms, h = make_cell(kind), 5e-3
    calculator.calculate(atoms, ["forces"])
    forces = calculator.results["forces"].copy()
    scale = np.abs(forces).max()
    for atom, axis in [(0, 0), (1, 2), (len(atoms) - 1, 1)]:
        energies = []
        for step in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions[atom, axis] += step * h
            energies.append(energy_of(calculator, moved))
        slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * h)
        assert abs(forces[atom, axis] + slope) <= 1e-6 * scale


@pytest.mark.parametrize(
    "kind", ["orthogonal", "triclinic", "slab", "triclinic slab", "smaller than the cutoff"]
)
def test_stress_is_the_strain_derivative(calculator, kind):
    atoms, h = make_cell(kind), 1e-3
    calculator.calculate(atoms, ["stress"])
    stress = calculator.results["stress"].copy()
    scale = np.abs(stress).max()
    for voigt, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        energies = []
        for step in (-2, -1, 1, 2):
            strain = np.eye(3)
            strain[a, b] += step * h / 2
            strain[b, a] += step * h / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            energies.append(energy_of(calculator, strained))
        slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * h)
        assert abs(stress[voigt] - slope / atoms.get_volume()) <= 1e-6 * scale


@pytest.mark.parametrize("kind", KINDS)
def test_per_atom_shares_sum_to_the_whole(calculator, kind):
    atoms = make_cell(kind)
    calculator.calculate(atoms, ["energy"])
    results = calculator.results
    assert results["free_energy"] == results["energy"]
    assert abs(results["energies"].sum() - results["energy"]) <= 1e-12 * abs(results["energy"])
    assert np.abs(results["forces"].sum(axis=0)).max() <= 1e-12 * len(atoms)
    if atoms.cell.rank == 3:
        assert results["stresses"].shape == (len(atoms), 6)
        assert np.abs(results["stresses"].sum(axis=0) - results["stress"]).max() <= 1e-15
    else:
        assert "stress" not in results


def test_stress_without_a_volume_is_refused(calculator):
    atoms = make_cell("molecule")
    atoms.calc = calculator
    with pytest.raises(PropertyNotImplementedError, match="cell with three vectors"):
        atoms.get_stress()


def test_atoms_out_of_reach_of_each_other_feel_no_force(calculator):
    # Without edges nothing is differentiated; the energy is twice that of one atom alone.
    single = energy_of(calculator, ase.Atoms("O"))
    calculator.calculate(ase.Atoms("OO", positions=[[0, 0, 0], [50, 0, 0]]), ["forces"])
    assert abs(calculator.results["energy"] - 2 * single) <= 1e-12 * abs(single)
    assert np.abs(calculator.results["forces"]).max() == 0


def test_the_verlet_skin_changes_nothing_but_the_order_of_sums(artifacts):
    atoms = make_cell("triclinic")
    skinned = MACEQuantCalculator(artifacts["water", "fp64"], skin=0.6)
    fresh = MACEQuantCalculator(artifacts["water", "fp64"], skin=0.0)
    rng = np.random.default_rng(2)
    for step in range(
        12
    ):  # small moves reuse the list; a strain, a jump by a lattice vector, a wrap do not harm it
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        if step == 5:
            atoms.set_cell(atoms.cell.array * 0.97, scale_atoms=True)
        if step == 8:
            atoms.positions[0] += atoms.cell.array[0]
        for calculator in (skinned, fresh):
            calculator.calculate(atoms, ["forces"])
        assert abs(skinned.results["energy"] - fresh.results["energy"]) <= 1e-10
        assert np.abs(skinned.results["forces"] - fresh.results["forces"]).max() <= 1e-11


def test_atoms_handed_in_are_untouched_and_results_are_ones_own(calculator):
    atoms = make_cell("orthogonal")
    atoms.positions[0] += 10 * atoms.cell.array[1]  # far outside the cell
    before = atoms.copy()
    atoms.calc = calculator
    forces = atoms.get_forces()
    forces[:] = 0
    assert atoms == before
    assert np.abs(atoms.get_forces()).max() > 0


@pytest.mark.usefixtures("two_threads")
def test_global_torch_state_is_untouched(artifacts):
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    for threads in (None, 1):
        with torch.no_grad():
            MACEQuantCalculator(artifacts["water", "fp32"], threads=threads).calculate(
                make_cell("slab"), ["forces"]
            )
    assert before == (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())


def test_a_silicon_crystal_given_to_a_water_model_is_refused(calculator):
    with pytest.raises(StructureError, match=r"atom 0: element 'Si' is not in .*pt; it knows H O"):
        calculator.calculate(bulk("Si"), ["energy"])


def test_positions_and_cells_that_make_no_sense_are_refused(calculator):
    atoms = make_cell("orthogonal")
    atoms.positions[4, 1] = np.nan
    with pytest.raises(StructureError, match="atom 4: expected a finite position"):
        calculator.calculate(atoms, ["energy"])
    with pytest.raises(StructureError, match="direction 2 is periodic but its vector is zero"):
        calculator.calculate(ase.Atoms("O", cell=[5, 5, 0], pbc=True), ["energy"])
    atoms.positions[4, 1] = 1e300
    with pytest.raises(StructureError, match=r"atom 4: expected a finite position within 1e\+09 Å"):
        calculator.calculate(atoms, ["energy"])
    with pytest.raises(StructureError, match="at least one atom"):
        calculator.calculate(ase.Atoms(), ["energy"])
    with pytest.raises(StructureError, match="zero volume"):
        calculator.calculate(ase.Atoms("O", cell=[[5, 0, 0], [5, 0, 0], [0, 0, 5]], pbc=True), ["energy"])


@pytest.mark.parametrize(
    ("number", "name"), [(0, "'X'"), (-1, "'Z = -1'"), (118, "'Og'"), (200, "'Z = 200'")]
)
def test_atomic_numbers_outside_the_model_are_refused(calculator, number, name):
    atoms = make_cell("molecule")
    atoms.numbers[2] = number
    with pytest.raises(StructureError, match=f"atom 2: element {name} is not in"):
        calculator.calculate(atoms, ["energy"])


def test_copies_and_pickles_compute_the_same(artifacts):
    calculator = MACEQuantCalculator(artifacts["water", "fp64"], threads=1, skin=0.3)
    atoms = make_cell("slab")
    energy = energy_of(calculator, atoms)
    for other in (copy.deepcopy(calculator), pickle.loads(pickle.dumps(calculator))):
        assert (other.threads, other.skin) == (1, 0.3)
        assert abs(energy_of(other, atoms) - energy) <= 1e-12 * abs(energy)


def test_devices_and_threads_that_do_not_exist_are_refused(artifacts):
    with pytest.raises(ArtifactError, match="device: expected 'cpu', got 'tpu'"):
        MACEQuantCalculator(artifacts["water", "fp32"], device="tpu")
    with pytest.raises(StructureError, match="threads: expected a positive integer"):
        MACEQuantCalculator(artifacts["water", "fp32"], threads=0)
    with pytest.raises(StructureError, match="skin: expected a length in Å"):
        MACEQuantCalculator(artifacts["water", "fp32"], skin=float("nan"))
    with pytest.raises(TypeError, match="devise"):
        MACEQuantCalculator(artifacts["water", "fp32"], devise="cpu")
