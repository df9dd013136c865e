"""`.model` files changed by hand, and the comparison of a network built anew with one that Python unpickles."""

import numpy as np
import torch
from edges_of import frames

from mdplugin.checkpoint import _mace, evaluate_mace

# both evaluate the same numbers in the same order, but for a sum split in two (files of mace-torch up to 0.3.8)
ROUNDING_BOUND = 1e-12


def require_equal(checkpoint, trusted):
    """Energies, forces and stress of the network built anew are those of the unpickled one."""
    assert checkpoint.trained_dtype == trusted.trained_dtype and checkpoint.e0s == trusted.e0s
    atoms = frames(trusted.atomic_numbers)
    for found, expected in zip(evaluate_mace(checkpoint, atoms), evaluate_mace(trusted, atoms), strict=True):
        assert np.abs(found.energies - expected.energies).max() <= ROUNDING_BOUND
        assert np.abs(found.forces - expected.forces).max() <= ROUNDING_BOUND
        if expected.stress is not None:
            assert np.abs(found.stress - expected.stress).max() <= ROUNDING_BOUND


def change(model, target, edit):
    """The file with its network changed by `edit`, as a hand or another program might write it."""
    network = unpickle(model)
    edit(network)
    torch.save(network, target)
    return target


def unpickle(model):
    with _mace():
        return torch.load(model, weights_only=False)
