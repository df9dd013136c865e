"""Frames of a run -> an MDAnalysis universe in memory."""

import ase
import MDAnalysis
import numpy as np
from ase.data import chemical_symbols
from MDAnalysis.coordinates.memory import MemoryReader

from mdplugin.validation.observables.topology import find_topology, turn
from mdplugin.validation.series import Series


def make_universe(series: Series, atoms: ase.Atoms, frames: slice = slice(None)) -> MDAnalysis.Universe:
    """A universe with names, masses, one residue for each molecule of `atoms`, and the box of every frame."""
    molecule = find_topology(atoms).molecule
    universe = MDAnalysis.Universe.empty(
        len(atoms), n_residues=int(molecule.max()) + 1, atom_resindex=molecule, trajectory=True
    )
    universe.add_TopologyAttr("name", [chemical_symbols[number] for number in atoms.numbers])
    universe.add_TopologyAttr("mass", atoms.get_masses())
    positions, boxes = [], []
    for frame, vectors in zip(series.positions[frames], series.cells[frames], strict=True):
        turned, box = turn(frame, vectors, atoms.pbc)
        positions.append(turned)
        boxes.append(np.zeros(6) if box is None else box)
    spacing = float(np.diff(series.frame_time_ps[:2])[0]) if len(series.frame_time_ps) > 1 else 1.0
    universe.trajectory = MemoryReader(
        np.array(positions, dtype=np.float32),
        dimensions=np.array(boxes, dtype=np.float32),
        dt=spacing,
        order="fac",
    )
    return universe
