"""Bonds and contacts: does the system stay what it was?"""

from dataclasses import dataclass

import ase
import numpy as np
from ase.cell import Cell
from ase.data import covalent_radii, vdw_radii
from ase.geometry import complete_cell
from MDAnalysis.lib.distances import calc_bonds, self_capped_distance
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mdplugin.validation.limits import BONDED, BROKEN, FORMED, FUSED
from mdplugin.validation.series import Series
from mdplugin.validation.statistics import UNKNOWN, Estimate, estimate_mean_of_few

CONTACT_A = 3.0  # pairs farther apart are no contact
N_BLOCKS = 10


@dataclass(frozen=True)
class Topology:
    """The bonds of the structure that was given.

    Attributes:
        pairs: (n_bonds, 2) atom indices, i < j.
        molecule: (n_atoms,) number of the connected component.
    """

    pairs: np.ndarray
    molecule: np.ndarray


def find_topology(atoms: ase.Atoms) -> Topology:
    """Pairs nearer than 1.2 times the sum of their covalent radii."""
    pairs, distances = find_contacts(*turn(atoms.positions, atoms.cell.array, atoms.pbc))
    radii = covalent_radii[atoms.numbers]
    bonded = pairs[distances < BONDED * (radii[pairs[:, 0]] + radii[pairs[:, 1]])]
    ones = np.ones(len(bonded))
    graph = coo_matrix((ones, (bonded[:, 0], bonded[:, 1])), shape=(len(atoms), len(atoms)))
    return Topology(bonded, connected_components(graph, directed=False)[1])


def count_changes(series: Series, atoms: ase.Atoms) -> np.ndarray:
    """(n_frames,) bonds of `atoms` broken, or new ones formed where that is more: a transfer does both at once."""
    topology, radii = find_topology(atoms), covalent_radii[atoms.numbers]
    given = _find_close(*turn(atoms.positions, atoms.cell.array, atoms.pbc), atoms.numbers)
    known = {tuple(pair) for pair in [*topology.pairs.tolist(), *given.tolist()]}
    old = radii[topology.pairs].sum(axis=1)
    changes = []
    for positions, cell in zip(series.positions, series.cells, strict=True):
        turned, box = turn(positions, cell, atoms.pbc)
        lengths = calc_bonds(turned[topology.pairs[:, 0]], turned[topology.pairs[:, 1]], box=box)
        formed = sum(tuple(pair) not in known for pair in _find_close(turned, box, atoms.numbers).tolist())
        changes.append(max(int((lengths > BROKEN * old).sum()), formed))
    return np.array(changes)


def _find_close(positions: np.ndarray, box: np.ndarray | None, numbers: np.ndarray) -> np.ndarray:
    """(n, 2) pairs as near as bonded atoms are, or nearer than two atoms that are not bonded come."""
    pairs, distances = find_contacts(positions, box)
    bonded = FORMED * covalent_radii[numbers][pairs].sum(axis=1)
    fused = FUSED * vdw_radii[numbers][pairs].sum(axis=1)
    return pairs[distances < np.fmax(bonded, fused)]  # radii that nobody knows are NaN


def measure_minimum_distance(series: Series, atoms: ase.Atoms) -> Estimate:
    """Smallest distance between two atoms, Å: the mean over N_BLOCKS parts of the run, with its error."""
    smallest = []
    for positions, cell in zip(series.positions, series.cells, strict=True):
        _, distances = find_contacts(*turn(positions, cell, atoms.pbc))
        smallest.append(distances.min(initial=CONTACT_A))
    if len(smallest) < N_BLOCKS:
        return UNKNOWN
    return estimate_mean_of_few(np.array([part.min() for part in np.array_split(smallest, N_BLOCKS)]))


def find_contacts(positions: np.ndarray, box: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) pairs nearer than CONTACT_A, i < j, and their (n,) distances in Å."""
    pairs, distances = self_capped_distance(positions.astype(np.float32), CONTACT_A, box=box)
    return np.sort(pairs, axis=1), distances


def turn(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(n_atoms, 3) positions in MDAnalysis's orientation (first vector along x), and its (6,) box; None without periods.

    In a direction that is open, as of a slab, the box is so long that no atom touches an image.
    """
    if not np.any(pbc):
        return positions, None
    cell = complete_cell(cell)
    inverse = np.linalg.inv(cell)
    fractions = positions @ inverse
    margins = 2 * CONTACT_A * np.linalg.norm(inverse, axis=0)  # over the cell's heights
    lengths = np.where(pbc, 1.0, np.maximum(1.0, np.ptp(fractions, axis=0) + margins))
    box = Cell(cell * lengths[:, None]).cellpar()
    return fractions / lengths @ Cell.fromcellpar(box).array, box.astype(np.float32)
