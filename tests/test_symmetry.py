"""Rotation, inversion, translation, permutation, supercell: exact symmetries, broken by rounding alone."""

import numpy as np
import pytest
from scipy.stats import special_ortho_group

from mdplugin import MACEQuantCalculator

# A force is a sum of terms that pass through about ten layers of sums over 30 to 600 terms; random
# rounding grows as sqrt(10·600) ~ 80 units in the last place, times the cancellation between edges
# (terms of some 10 eV/Å leave forces of 1 eV/Å). Hence 1000 roundoffs of max(1, |F|). Energies are
# sums over atoms of E0-free terms of order 10 eV with the same relative error: 100 roundoffs per atom
# of the network's type, plus float64 rounding of the total, which holds E0s of -29,000 eV.
UNIT_ROUNDOFF = {"fp64": 2.0**-53, "fp32": 2.0**-24}
# Moving atoms rounds their float64 coordinates; an O-H bond answers with 50 eV/Å², an atom has two ends of few bonds.
STIFFNESS_EV_PER_A2 = 50 * 4


@pytest.fixture(params=["fp64", "fp32"])
def evaluate(request, artifacts):
    calculator = MACEQuantCalculator(artifacts["water", request.param], skin=0)
    unit = UNIT_ROUNDOFF[request.param]

    def run(atoms):
        calculator.calculate(atoms, ["forces"])
        results = calculator.results
        bound_force = 1e3 * unit * max(1.0, np.abs(results["forces"]).max())
        bound_energy = len(atoms) * 100 * unit + 1e2 * UNIT_ROUNDOFF["fp64"] * abs(results["energy"])
        return (
            results["energy"],
            results["forces"].copy(),
            results["energies"].copy(),
            bound_energy,
            bound_force,
        )

    return run


@pytest.fixture
def box(water_frames):
    return water_frames[0].copy()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("parity", [1, -1])
def test_forces_rotate_and_reflect_with_the_atoms(evaluate, box, seed, parity):
    energy, forces, _, energy_bound, force_bound = evaluate(box)
    R = parity * special_ortho_group.rvs(3, random_state=seed)
    box.set_cell(box.cell.array @ R.T)
    box.positions = box.positions @ R.T
    rotated_energy, rotated_forces, *_ = evaluate(box)
    assert abs(rotated_energy - energy) <= energy_bound
    assert np.abs(rotated_forces - forces @ R.T).max() <= force_bound


def test_translation_changes_nothing(evaluate, box):
    energy, forces, _, energy_bound, force_bound = evaluate(box)
    box.translate([3.1, -7.7, 123.4])
    force_bound += STIFFNESS_EV_PER_A2 * UNIT_ROUNDOFF["fp64"] * np.abs(box.positions).max()
    moved_energy, moved_forces, *_ = evaluate(box)
    assert abs(moved_energy - energy) <= energy_bound
    assert np.abs(moved_forces - forces).max() <= force_bound


def test_permuting_atoms_permutes_forces(evaluate, box):
    energy, forces, _, energy_bound, force_bound = evaluate(box)
    order = np.random.default_rng(4).permutation(len(box))
    permuted_energy, permuted_forces, *_ = evaluate(box[order])
    assert abs(permuted_energy - energy) <= energy_bound
    assert np.abs(permuted_forces - forces[order]).max() <= force_bound


def test_a_supercell_repeats_forces_and_energies(evaluate, box):
    energy, forces, energies, energy_bound, force_bound = evaluate(box)
    large_energy, large_forces, large_energies, *_ = evaluate(box.repeat((2, 1, 1)))
    assert abs(large_energy - 2 * energy) <= 2 * energy_bound
    assert np.abs(large_forces - np.tile(forces, (2, 1))).max() <= force_bound
    assert np.abs(large_energies - np.tile(energies, 2)).max() <= energy_bound
