"""A potential + frames -> how far it is from turning and mirroring with its atoms.

F(Rx) = R F(x) and E(Rx) = E(x) hold for every rotation and inversion R of atoms and cell. Rounding parameters keeps that,
rounding components of features with l > 0 breaks it. What remains in a sound potential is rounding: two
evaluations of the same forces with different bits, so sqrt(2) times the force noise.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ase
import numpy as np
from scipy.spatial.transform import Rotation

Evaluate = Callable[[ase.Atoms], tuple[float, np.ndarray]]  # energy in eV, forces (n_atoms, 3) in eV/Å


@dataclass(frozen=True)
class Equivariance:
    """Differences over all frames and rotations.

    Attributes:
        force_max_meV_per_A: largest |F(Rx) - R F(x)| of an atom, the length of the vector.
        force_rms_meV_per_A: root mean square of its components.
        energy_max_meV_per_atom: largest |E(Rx) - E(x)|, per atom of the frame.
    """

    force_max_meV_per_A: float
    force_rms_meV_per_A: float
    energy_max_meV_per_atom: float


def measure_equivariance(
    evaluate: Evaluate, frames: Sequence[ase.Atoms], n_rotations: int, seed: int
) -> Equivariance:
    """Turn each frame, with its cell, by `n_rotations` random rotations; every second one with an inversion.

    The same seed turns the same frames in the same way.
    """
    largest, squares, components, energy_error = 0.0, 0.0, 0, 0.0
    for index, frame in enumerate(frames):
        energy, forces = evaluate(frame)
        for R in random_rotations(n_rotations, [seed, index]):
            turned_energy, turned_forces = evaluate(turn(frame, R))
            difference = turned_forces - forces @ R.T
            largest = max(largest, float(np.linalg.norm(difference, axis=1).max()))
            squares += float((difference**2).sum())
            components += difference.size
            energy_error = max(energy_error, abs(turned_energy - energy) / len(frame))
    return Equivariance(1000 * largest, 1000 * float(np.sqrt(squares / components)), 1000 * energy_error)


def random_rotations(number: int, seed) -> np.ndarray:
    """(number, 3, 3) orthogonal matrices, uniform; proper and improper in turns."""
    matrices = Rotation.random(number, random_state=np.random.default_rng(seed)).as_matrix()
    matrices[1::2] *= -1
    return matrices


def turn(frame: ase.Atoms, R: np.ndarray) -> ase.Atoms:
    """A copy with every position and every vector of the cell multiplied by R."""
    turned = frame.copy()
    turned.set_cell(frame.cell.array @ R.T)
    turned.positions = frame.positions @ R.T
    return turned
