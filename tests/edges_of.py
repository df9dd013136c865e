"""Frame -> the reference's energies, forces and stress, assembled from the contract's two outputs."""

from dataclasses import dataclass

import ase
import numpy as np
import torch

from mdplugin.frames import reference_frames
from mdplugin.model import MaceModel
from mdplugin.neighbors import Neighbors
from mdplugin.reference import evaluate


@dataclass(frozen=True)
class Result:
    """Energies (n,) eV, forces (n, 3) eV/Å, stress (6,) Voigt eV/Å³ (meaningless without a cell)."""

    energies: np.ndarray
    forces: np.ndarray
    stress: np.ndarray


def inputs(model: MaceModel, atoms: ase.Atoms, skin: float = 0.0):
    """edge_vectors, senders, receivers, species of a frame; with a skin, edges beyond the cutoff too."""
    edges = Neighbors(model.r_max + skin, skin=0.0).find(atoms)
    species = torch.tensor([model.atomic_numbers.index(z) for z in atoms.numbers])
    return edges.vectors, edges.senders, edges.receivers, species


def evaluate_frame(model: MaceModel, atoms: ase.Atoms, **options) -> Result:
    """Evaluate a frame with the plain reference."""
    vectors, senders, receivers, species = inputs(model, atoms)
    energies, edge_force = evaluate(model, vectors, senders, receivers, species, len(atoms), **options)
    forces = torch.zeros((len(atoms), 3), dtype=torch.float64)
    forces.index_add_(0, receivers, edge_force).index_add_(0, senders, -edge_force)
    virial = (vectors.T @ edge_force).numpy()
    volume = atoms.get_volume() if atoms.cell.rank == 3 else np.inf
    stress = -virial / volume
    voigt = np.array([stress[a, b] for a, b in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])
    return Result(energies.numpy(), forces.numpy(), voigt)


def frames(atomic_numbers, seed=3):
    """A triclinic cell smaller than the cutoff and a molecule, squeezed so that short contacts count."""
    chosen = tuple(np.random.default_rng(seed).permutation(atomic_numbers)[:4].tolist())
    _, triclinic, _, molecule = reference_frames(chosen, seed=seed)
    triclinic.set_cell(0.8 * triclinic.cell.array, scale_atoms=True)
    molecule.positions *= 0.75
    return [triclinic, molecule]
