"""Elements -> structures on which an exported artifact is compared with mace-torch before it is written."""

import ase
import numpy as np
from ase.data import covalent_radii


def reference_frames(atomic_numbers: tuple[int, ...], seed: int = 0) -> list[ase.Atoms]:
    """A dense periodic cell, a triclinic one smaller than most cutoffs, a slab and a cluster.

    Jittered lattices at covalent distances: every element, many short contacts, no symmetry that could
    hide a sign. Reproducible for a seed.
    """
    rng = np.random.default_rng(seed)
    size = max(3, int(np.ceil(len(atomic_numbers) ** (1 / 3))))
    bulk = _jittered_lattice(rng, atomic_numbers, size, pbc=True)
    triclinic = _jittered_lattice(rng, atomic_numbers, 2, pbc=True)
    shear = np.eye(3) + np.array([[0, 0, 0], [0.2, 0, 0], [-0.1, 0.15, 0]])
    triclinic.set_cell(triclinic.cell.array @ shear, scale_atoms=True)
    slab = _jittered_lattice(rng, atomic_numbers, size, pbc=(True, True, False))
    slab.center(vacuum=4.0, axis=2)
    cluster = _jittered_lattice(rng, atomic_numbers, 2, pbc=False)
    cluster.cell = None
    return [bulk, triclinic, slab, cluster]


def _jittered_lattice(rng: np.random.Generator, atomic_numbers: tuple[int, ...], size: int, pbc) -> ase.Atoms:
    n_atoms = size**3
    repeats = -(-n_atoms // len(atomic_numbers))
    numbers = rng.permutation(np.tile(atomic_numbers, repeats)[:n_atoms])
    # 1.25 x the longest bond: contacts short enough to load every block, long enough to have finite energies
    spacing = 1.25 * 2 * float(max(covalent_radii[z] for z in numbers))
    grid = np.stack(np.meshgrid(*[np.arange(size)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = spacing * (grid + rng.uniform(-0.08, 0.08, size=(n_atoms, 3)))
    return ase.Atoms(numbers, positions=positions, cell=[size * spacing] * 3, pbc=pbc)
