"""Artifact + atoms -> energy, forces, stress: the ASE calculator."""

import logging
import os
import sys
from pathlib import Path
from typing import ClassVar

import ase
import numpy as np
import torch
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress

from mdplugin.artifact import Artifact, load
from mdplugin.errors import StructureError
from mdplugin.neighbors import Neighbors
from mdplugin.threads import torch_threads

_LOG = logging.getLogger("mdplugin")
_LOG.setLevel(_LOG.level or logging.INFO)


class MACEQuantCalculator(Calculator):
    """ASE calculator that serves an artifact of `mdplugin export`.

    Any cell, any mix of periodic directions, isolated molecules. The atoms handed in and torch's global
    state (default dtype, number of threads) are left as they are.

    Results, in ASE's units and signs:
        energy, free_energy: eV. energies: (n_atoms,) eV, they sum to energy.
        forces: (n_atoms, 3) eV/Å.
        stress: (6,) eV/Å³, Voigt order xx yy zz yz xz xy, (1/V) dE/d(strain) with V the volume of the cell.
        stresses: (n_atoms, 6) eV/Å³, half of each edge's share to either atom; they sum to stress.
        Stresses exist where the cell has three vectors (also for slabs: V is then the whole cell's).
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy", "free_energy", "energies", "forces", "stress", "stresses",
    ]  # fmt: skip

    def __init__(
        self,
        artifact: str | os.PathLike | Artifact,
        device: str = "cpu",
        threads: int | None = None,
        skin: float = 0.5,
        *,
        atoms: ase.Atoms | None = None,
        label: str | None = None,
        directory: str = ".",
    ):
        """Load the artifact, and say in one line what it is and whether it was validated.

        The line goes to the logger "mdplugin" as information, and to stderr where the program has set up no logging;
        `logging.getLogger("mdplugin").setLevel("WARNING")` silences it.

        Args:
            artifact: path of the file, or an `Artifact` that is loaded already (of which no line is said).
            device: "cpu".
            threads: torch threads during an evaluation; None leaves torch as it is.
            skin: Verlet skin of the neighbour list in Å.
            atoms, label, directory: ASE's own.

        Raises:
            ArtifactError: not an artifact, of a newer schema, or the device is not served.
            StructureError: `threads` or `skin` make no sense.
        """
        if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool) or threads < 1):
            raise StructureError(f"threads: expected a positive integer or None, got {threads!r}")
        if not (np.isfinite(skin) and skin >= 0):
            raise StructureError(f"skin: expected a length in Å, zero or more, got {skin!r}")
        if not isinstance(artifact, Artifact):
            artifact = load(Path(artifact), device)
            _announce(f"{artifact.path}: {artifact.describe()}")
        self.artifact = artifact
        self.device, self.threads, self.skin = device, threads, skin
        manifest = self.artifact.manifest
        self._neighbors = Neighbors(manifest.r_max, skin)
        self._species = np.full(max(manifest.atomic_numbers) + 1, -1, dtype=np.int64)
        self._species[list(manifest.atomic_numbers)] = np.arange(len(manifest.atomic_numbers))
        super().__init__(atoms=atoms, label=label, directory=directory)

    def __reduce__(self):
        """Pickled as its arguments: the artifact is loaded again, results are not kept."""
        return _restore, (type(self), self.artifact.path, self.device, self.threads, self.skin)

    def __deepcopy__(self, memo):
        """A calculator of its own on the same loaded artifact, without results."""
        return type(self)(self.artifact, self.device, self.threads, self.skin)

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        """Evaluate the artifact; called by ASE.

        Raises:
            StructureError: an element the model does not know, a non-finite position, a bad cell.
            PropertyNotImplementedError: a stress was asked for and the cell has no volume.
        """
        super().calculate(atoms, properties, system_changes)
        atoms = self.atoms
        if len(atoms) == 0:
            raise StructureError("atoms: expected at least one atom, got none")
        has_volume = atoms.cell.rank == 3
        if not has_volume and {"stress", "stresses"} & set(properties or []):
            raise PropertyNotImplementedError(
                f"stress: expected a cell with three vectors, got {atoms.cell.rank}: set atoms.cell"
            )
        species = self._index_species(atoms.numbers)
        edges = self._neighbors.find(atoms)
        with torch_threads(self.threads):
            node_energy, edge_force = self.artifact.evaluate(
                edges.vectors, edges.senders, edges.receivers, species
            )
        if not (torch.isfinite(node_energy).all() and torch.isfinite(edge_force).all()):
            raise StructureError(
                f"{self.artifact.path}: energy or forces are not finite for these {len(atoms)} atoms: "
                "look for atoms on top of each other"
            )
        forces = torch.zeros((len(atoms), 3), dtype=torch.float64)
        forces.index_add_(0, edges.receivers, edge_force).index_add_(0, edges.senders, edge_force, alpha=-1)
        energies = node_energy.numpy()
        energy = float(energies.sum())
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": energies,
            "forces": forces.numpy(),
        }
        if has_volume:
            stresses = -_atomic_virials(edges, edge_force, len(atoms)) / atoms.get_volume()
            self.results["stresses"] = stresses
            self.results["stress"] = stresses.sum(axis=0)

    def _index_species(self, numbers: np.ndarray) -> torch.Tensor:
        """(n_atoms,) index of each atom's element in the manifest."""
        known = (numbers >= 0) & (numbers < len(self._species))
        species = np.where(known, self._species[np.where(known, numbers, 0)], -1)
        if (species < 0).any():
            atom = int(np.argmax(species < 0))
            number = int(numbers[atom])
            element = chemical_symbols[number] if 0 <= number < len(chemical_symbols) else f"Z = {number}"
            known_elements = " ".join(self.artifact.manifest.elements)
            raise StructureError(
                f"atom {atom}: element '{element}' is not in {self.artifact.path.name}; it knows {known_elements}"
            )
        return torch.from_numpy(species)


def _restore(kind: type[MACEQuantCalculator], path: Path, device: str, *arguments) -> MACEQuantCalculator:
    """A pickled calculator again; the process that made it has said what the file is."""
    return kind(load(path, device), device, *arguments)


def _announce(line: str) -> None:
    if _LOG.hasHandlers():
        _LOG.info(line)
    elif _LOG.isEnabledFor(logging.INFO):
        print(f"mdplugin: {line}", file=sys.stderr)


def _atomic_virials(edges, edge_force: torch.Tensor, n_atoms: int) -> np.ndarray:
    """(n_atoms, 6) Voigt, symmetrised; each edge's outer(vector, force) goes half to either end."""
    outer = edges.vectors[:, :, None] * edge_force[:, None, :]
    half = (outer + outer.transpose(1, 2)) / 4
    virials = torch.zeros((n_atoms, 3, 3), dtype=torch.float64)
    virials.index_add_(0, edges.receivers, half).index_add_(0, edges.senders, half)
    return full_3x3_to_voigt_6_stress(virials.numpy())
