"""Atoms -> edges: the neighbour list of the vesin library, in the artifact's conventions."""

from dataclasses import dataclass

import ase
import numpy as np
import torch
from ase.geometry import complete_cell
from vesin import NeighborList

from mdplugin.errors import StructureError

FARTHEST_A = 1e9  # beyond, float64 coordinates are coarser than 1e-7 Å


@dataclass(frozen=True)
class Edges:
    """Directed edges sender -> receiver within the cutoff, sorted by receiver.

    Attributes:
        vectors: (n_edges, 3) float64 Å, r_receiver - r_sender + shift.
        senders: (n_edges,) int64.
        receivers: (n_edges,) int64, ascending.
    """

    vectors: torch.Tensor
    senders: torch.Tensor
    receivers: torch.Tensor


class Neighbors:
    """Edges of a structure, with a Verlet skin: the list is rebuilt only when an atom has moved skin / 2.

    Any cell and any mix of periodic directions; the cutoff may exceed the cell, images then repeat.
    """

    def __init__(self, r_max: float, skin: float = 0.5):
        """Set the cutoff `r_max` and the `skin`, both in Å; skin 0 rebuilds at every call."""
        self._list = NeighborList(cutoff=r_max, full_list=True, sorted=True, skin=skin, n_threads=1)

    def find(self, atoms: ase.Atoms) -> Edges:
        """The edges of `atoms`.

        Raises:
            StructureError: a position or the cell is not finite; a periodic direction has no cell vector.
        """
        _check_geometry(atoms)
        i, j, D = self._list.compute(
            points=np.ascontiguousarray(atoms.positions, dtype=np.float64),
            box=np.ascontiguousarray(complete_cell(atoms.cell), dtype=np.float64),
            periodic=atoms.pbc,
            quantities="ijD",
        )
        # vesin: D = r_j - r_i + S·H, sorted by i. The full list holds both directions: i receives from j.
        return Edges(
            vectors=torch.from_numpy(np.negative(D, out=D)),
            senders=torch.from_numpy(j.astype(np.int64)),
            receivers=torch.from_numpy(i.astype(np.int64)),
        )


def _check_geometry(atoms: ase.Atoms) -> None:
    sane = (np.abs(atoms.positions) <= FARTHEST_A).all(axis=1)  # NaN fails
    if not sane.all():
        atom = int(np.argmin(sane))
        raise StructureError(
            f"atom {atom}: expected a finite position within {FARTHEST_A:g} Å, got {atoms.positions[atom]}"
        )
    if not np.isfinite(atoms.cell.array).all():
        raise StructureError(f"cell: expected finite vectors, got {atoms.cell.array.tolist()}")
    lengths = atoms.cell.lengths()
    for axis in range(3):
        if atoms.pbc[axis] and lengths[axis] == 0:
            raise StructureError(
                f"cell: direction {axis} is periodic but its vector is zero: set the cell or pbc"
            )
    if atoms.pbc.any() and abs(np.linalg.det(complete_cell(atoms.cell))) < 1e-10:
        raise StructureError("cell: expected three independent vectors, got a cell of zero volume")
