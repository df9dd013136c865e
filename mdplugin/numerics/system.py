"""Frames -> one graph of all of them, and the exact values of every stage on it."""

from collections.abc import Sequence
from dataclasses import dataclass

import ase
import torch
from torch import Tensor

from mdplugin.errors import StructureError
from mdplugin.model import MaceModel
from mdplugin.neighbors import Neighbors
from mdplugin.reference import Tap, evaluate, untouched
from mdplugin.tables import RadialTable

MOST_EDGES = 10_000  # of all frames together: the study then takes minutes on one core


@dataclass(frozen=True)
class System:
    """Disjoint union of frames.

    Attributes:
        vectors: (n_edges, 3) Å. senders, receivers: (n_edges,). species: (n_atoms,). frame: (n_atoms,) index.
        masses: (n_atoms,) amu.
    """

    vectors: Tensor
    senders: Tensor
    receivers: Tensor
    species: Tensor
    frame: Tensor
    masses: Tensor

    @property
    def n_atoms(self) -> int:
        """Atoms of all frames."""
        return self.species.shape[0]

    def move(self, displacements: Tensor) -> "System":
        """The same edges with the atoms displaced by (n_atoms, 3) Å."""
        vectors = self.vectors + displacements[self.receivers] - displacements[self.senders]
        return System(vectors, self.senders, self.receivers, self.species, self.frame, self.masses)

    def rotate(self, rotation: Tensor) -> "System":
        """The same edges turned by a (3, 3) orthogonal matrix."""
        vectors = self.vectors @ rotation.T
        return System(vectors, self.senders, self.receivers, self.species, self.frame, self.masses)


def join_frames(model: MaceModel, frames: Sequence[ase.Atoms]) -> tuple[System, int]:
    """Frames in order until MOST_EDGES edges (at least one frame), and how many they are.

    Raises:
        StructureError: an element that the model does not know, or no edge at all.
    """
    parts: list[System] = []
    n_atoms = n_edges = 0
    for index, atoms in enumerate(frames):
        unknown = sorted(
            {s for s, z in zip(atoms.symbols, atoms.numbers, strict=True) if z not in model.atomic_numbers}
        )
        if unknown:
            raise StructureError(f"frame {index}: the model does not know {', '.join(unknown)}")
        edges = Neighbors(model.r_max, skin=0.0).find(atoms)
        if parts and n_edges + len(edges.senders) > MOST_EDGES:
            break
        species = torch.tensor([model.atomic_numbers.index(z) for z in atoms.numbers])
        masses = torch.from_numpy(atoms.get_masses().copy())
        frame = torch.full_like(species, index)
        parts.append(
            System(edges.vectors, edges.senders + n_atoms, edges.receivers + n_atoms, species, frame, masses)
        )
        n_atoms, n_edges = n_atoms + len(atoms), n_edges + len(edges.senders)
    if n_edges == 0:
        raise StructureError("numerics: expected atoms within the cutoff of each other, got none")
    fields = zip(
        *((p.vectors, p.senders, p.receivers, p.species, p.frame, p.masses) for p in parts), strict=True
    )
    return System(*(torch.cat(values) for values in fields)), len(parts)


def sum_forces(edge_force: Tensor, system: System) -> Tensor:
    """Forces (n_atoms, 3) from -dE/d(edge_vectors)."""
    forces = edge_force.new_zeros((system.n_atoms, 3))
    return forces.index_add(0, system.receivers, edge_force).index_add(0, system.senders, -edge_force)


def evaluate_system(
    model: MaceModel, system: System, tables: Sequence[RadialTable], tap: Tap = untouched
) -> tuple[Tensor, Tensor]:
    """Energies (n_atoms,) eV and forces (n_atoms, 3) eV/Å of the plain float64 reference."""
    where = (system.vectors, system.senders, system.receivers, system.species, system.n_atoms)
    energy, edge_force = evaluate(model, *where, tables=tables, tap=tap)
    return energy, sum_forces(edge_force, system)


@dataclass(frozen=True)
class Recording:
    """Exact values of all stages by the names of `reference.evaluate`'s tap, with energies and forces."""

    values: dict[str, Tensor]
    energy: Tensor
    forces: Tensor


def record(model: MaceModel, system: System, tables: Sequence[RadialTable]) -> Recording:
    """Evaluate once in float64 and keep everything."""
    values: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> Tensor:
        values[name] = value
        return value

    energy, forces = evaluate_system(model, system, tables, tap)
    return Recording(values, energy, forces)
