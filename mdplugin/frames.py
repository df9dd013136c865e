"""Structures: those of a file, and generated ones on which an artifact is compared with mace-torch before it is written."""

from pathlib import Path

import ase
import ase.io
import numpy as np
from ase.data import covalent_radii

from mdplugin.errors import StructureError


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


def read_frames(path: Path) -> list:
    """All frames of a structure file.

    Raises:
        StructureError: no such file, no frame in it, or ASE cannot read it.
    """
    try:
        frames = ase.io.read(path, ":")
    except FileNotFoundError as error:
        raise StructureError(f"{path}: no such file") from error
    except Exception as error:  # ASE's readers raise anything from KeyError to their own classes
        raise StructureError(
            f"{path}: ASE cannot read it as structures ({type(error).__name__}: {error})"
        ) from error
    if not frames:
        raise StructureError(f"{path}: expected at least one frame, got none")
    return frames
