"""The reference as a whole: its forces are the gradient of its energy, with the symmetries and ghosts of the contract."""

import numpy as np
import pytest
import torch
from architectures import build
from edges_of import evaluate_frame, frames, inputs

from mdplugin import reference
from mdplugin.lowering import lower
from mdplugin.reference import Halo

ROUNDING = 1e-12  # float64 sums of up to 1e3 terms of order 1


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b, bound=ROUNDING):
    return float((a - b).abs().max()) <= bound * max(1.0, float(b.abs().max()))


WHOLE = ["plain-residual", "foundation-0b", "cutoff-after", "three-heads-bias", "zbl-mace", "four-layers-density",
         "chebyshev", "edge-irreps-first", "nonlinear", "density-nonlinear"]  # fmt: skip


@pytest.mark.parametrize("name", WHOLE)
def test_edge_forces_are_minus_the_energy_gradient(name):
    """Central differences of 4th order along a random direction of all edge vectors."""
    model = lower(build(name))
    atoms = frames(model.atomic_numbers)[1]
    vectors, *rest = inputs(model, atoms)
    direction = random(*vectors.shape, seed=3)
    h = 1e-4
    E = [
        reference.evaluate(model, vectors + k * h * direction, *rest, len(atoms))[0].sum()
        for k in (-2, -1, 1, 2)
    ]
    slope = (E[0] - 8 * E[1] + 8 * E[2] - E[3]) / (12 * h)
    _, edge_force = reference.evaluate(model, vectors, *rest, len(atoms))
    # rounding 1e-14 * |E| (1e2 eV) over h, and h^4 times the fifth derivative
    assert abs(-(edge_force * direction).sum() - slope) <= 2e-8 * max(1.0, float(edge_force.abs().max()))


def test_an_isolated_atom_has_a_constant_energy_and_no_edges_work():
    for name in ("plain-residual", "density-residual-twice", "one-layer", "nonlinear"):
        model = lower(build(name))
        empty = torch.zeros(0, dtype=torch.int64)
        energy, force = reference.evaluate(
            model, torch.zeros(0, 3, dtype=torch.float64), empty, empty, torch.tensor([0, 1, 1]), 3
        )
        assert force.shape == (0, 3)
        assert torch.isfinite(energy).all() and energy[1] == energy[2]


def test_edges_beyond_the_cutoff_change_nothing():
    """A Verlet skin hands such edges over."""
    for name in ("plain-residual", "foundation-0b", "cutoff-after", "nonlinear"):
        model = lower(build(name))
        atoms = frames(model.atomic_numbers)[0]
        near, far = (
            reference.evaluate(model, *inputs(model, atoms, skin), len(atoms)) for skin in (0.0, 0.7)
        )
        assert close(far[0], near[0])
        vectors = inputs(model, atoms, 0.7)[0]
        beyond = torch.linalg.vector_norm(vectors, dim=-1) >= model.r_max
        assert beyond.any() and not far[1][beyond].any()


@pytest.mark.parametrize(
    "name", ["plain-residual", "three-layers", "density-density-residual", "one-layer", "nonlinear"]
)
def test_ghosts_with_a_halo_give_the_periodic_result(name):
    """Every periodic image that sends becomes a ghost; the halo copies its owner's features."""
    model = lower(build(name))
    atoms = frames(model.atomic_numbers)[0]
    n = len(atoms)
    vectors, senders, receivers, species = inputs(model, atoms)
    expected_energy, expected_force = reference.evaluate(model, vectors, senders, receivers, species, n)
    owners = torch.cat([torch.arange(n), senders])  # one ghost per edge
    halo = Halo(
        forward=lambda x: x[owners],
        reverse=lambda g: torch.zeros(n, g.shape[1], dtype=g.dtype).index_add(0, owners, g),
    )
    ghosts = torch.arange(len(senders)) + n
    energy, force = reference.evaluate(model, vectors, ghosts, receivers, species[owners], n, halo)
    assert close(energy, expected_energy) and close(force, expected_force)
    if len(model.layers) > 1:
        with pytest.raises(ValueError, match="halo"):
            reference.evaluate(model, vectors, ghosts, receivers, species[owners], n)


def test_forces_are_equivariant_and_energies_invariant_under_rotation_and_inversion():
    rotation = torch.linalg.qr(random(3, 3, seed=11))[0]
    for name in ("both-parities", "so3", "hidden-l3", "l-max-4", "float32"):
        model = lower(build(name))
        atoms = frames(model.atomic_numbers)[1]
        proper = rotation if torch.det(rotation) > 0 else -rotation
        for turn in (proper,) if name == "so3" else (proper, -proper):  # SO(3) networks know no inversion
            turned = atoms.copy()
            turned.positions = atoms.positions @ turn.numpy().T
            a, b = evaluate_frame(model, atoms), evaluate_frame(model, turned)
            assert np.abs(a.energies - b.energies).max() <= 1e-11
            assert np.abs(a.forces @ turn.numpy().T - b.forces).max() <= 1e-11
