"""Water molecules of a periodic frame, and where two of them are nearer than any of the training frames has them."""

import ase
import numpy as np
from ase.geometry import find_mic

# Å: the 400 frames have no H-H of two molecules below 1.63, no O-H below 1.33 and no O-O below 2.4
NEAR = {"HH": 1.45, "HO": 1.3, "OO": 2.2}


def measure_distances(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """(n_atoms, n_atoms) distances in Å, and the molecule of each atom: (n_atoms,) index of the nearest oxygen."""
    distances, oxygens = atoms.get_all_distances(mic=True), np.flatnonzero(atoms.numbers == 8)
    return distances, oxygens[distances[:, oxygens].argmin(axis=1)]


def find_near(atoms: ase.Atoms) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) pairs i < j of atoms of two molecules that are nearer than NEAR, and the molecule of each atom.

    Not of molecules of which one lends another a proton: what is too near then belongs together.
    """
    distances, molecule = measure_distances(atoms)
    is_oxygen, is_whole = atoms.numbers == 8, np.bincount(molecule)[molecule] == 3
    limits = np.array([NEAR["HH"], NEAR["HO"], NEAR["OO"]])[is_oxygen[:, None].astype(int) + is_oxygen]
    near = (distances < limits) & (molecule[:, None] != molecule) & is_whole & is_whole[:, None]
    return np.argwhere(np.triu(near)), molecule


def unwrap_molecule(atoms: ase.Atoms, molecule: np.ndarray, oxygen: int, centre: np.ndarray) -> np.ndarray:
    """(n, 3) positions of the molecule of `oxygen`, O first, in the image nearest to `centre`."""
    members = [oxygen, *(i for i in np.flatnonzero(molecule == oxygen) if i != oxygen)]
    inside = find_mic(atoms.positions[members] - atoms.positions[oxygen], atoms.cell, atoms.pbc)[0]
    return centre + find_mic(atoms.positions[oxygen] - centre, atoms.cell, atoms.pbc)[0] + inside
