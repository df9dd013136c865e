"""Case -> the atoms it starts from: structure, velocities at the temperature, no total momentum."""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import ase
import numpy as np
from ase import units

from mdplugin import potentials
from mdplugin.errors import CaseError, StructureError
from mdplugin.structures import read_frames
from mdplugin.validation.potential import find_bundled_box

# at 64 kB per atom, 640 GB
MOST_ATOMS = 10_000_000
LEAST_PERIOD_A, LEAST_SINE = 0.1, 1e-3  # of cell vectors; below, the box is flat
LEAST_DISTANCE_A = 0.2  # H2's bond has 0.74


@dataclass(frozen=True)
class Structure:
    """Atoms as read, and the file they came from."""

    path: Path
    atoms: ase.Atoms


def find_structure(
    structure: str | os.PathLike | None,
    reference: str | os.PathLike,
    repeat: tuple[int, int, int] = (1, 1, 1),
) -> Structure:
    """Read the structure of a case, copied `repeat` times along its cell vectors.

    Args:
        structure: a file, a bundled structure's name, or None for the bundled box of the `reference`.

    Raises:
        CaseError: no structure given and the reference has none of its own, or too many atoms.
        StructureError: no such file, ASE cannot read it, or it cannot be run.
    """
    if structure is None:
        path = find_bundled_box(reference)
        if path is None:
            raise CaseError(
                f"structure: expected a file that ASE reads, got none, and {reference} is not a bundled "
                "potential with a box of its own: give --structure FILE"
            )
    else:
        path = potentials.find_structure(str(structure)) or Path(structure)
    atoms = _read(path)
    _require_room(atoms, path)
    return _repeat(atoms, repeat, path)


def read_structure(path: Path, repeat: tuple[int, int, int]) -> Structure:
    """The copy of a structure that `find_structure` has found sound."""
    return _repeat(_read(path), repeat, path)


def _repeat(atoms: ase.Atoms, repeat: tuple[int, int, int], path: Path) -> Structure:
    for axis, number in enumerate(repeat):
        if number > 1 and not atoms.pbc[axis]:
            raise StructureError(
                f"structure {path}: expected periods along the directions to repeat, got {atoms.pbc.tolist()} with "
                f"repeat {list(repeat)}"
            )
    count = len(atoms) * math.prod(repeat)
    if count > MOST_ATOMS:
        raise CaseError(
            f"repeat: expected at most {MOST_ATOMS:,} atoms, got {count:,} ({list(repeat)} copies of {path})"
        )
    atoms = atoms.repeat(repeat)
    require_runnable(atoms, path)
    return Structure(path, atoms)


def _read(path: Path) -> ase.Atoms:
    """The last frame, without stored results."""
    if not path.is_file():
        raise StructureError(f"structure {path}: no such file, nor a bundled structure")
    (read,) = read_frames(path, "-1:")
    atoms = read.copy()
    atoms.set_constraint(read.constraints)
    return atoms


def require_runnable(atoms: ase.Atoms, where: str | os.PathLike) -> None:
    """Raise StructureError if `atoms` have no dynamics with 3 N - 3 degrees of freedom."""
    if len(atoms) < 2:
        raise StructureError(f"structure {where}: expected at least 2 atoms, got {len(atoms)}")
    if atoms.constraints:
        raise StructureError(
            f"structure {where}: expected no constraints (they take energy out of the account), got "
            f"{len(atoms.constraints)}: remove them from the file"
        )
    if not (atoms.get_masses() > 0).all():
        raise StructureError(f"structure {where}: expected positive masses, got {atoms.get_masses().min():g}")


def _require_room(atoms: ase.Atoms, where: str | os.PathLike) -> None:
    """Raise StructureError if periods are missing or depend on each other, or if atoms lie on top of each other."""
    from ase.neighborlist import neighbor_list  # as slow to import as all else that a run needs

    if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
        raise StructureError(f"structure {where}: expected finite positions and cell, got NaN or infinity")
    periods = atoms.cell.array[atoms.pbc]
    lengths = np.linalg.norm(periods, axis=1)
    sines = np.linalg.svd(periods / np.maximum(lengths, LEAST_PERIOD_A)[:, None], compute_uv=False)
    if (lengths < LEAST_PERIOD_A).any() or (sines < LEAST_SINE).any():
        raise StructureError(
            f"structure {where}: expected a cell vector of its own for each of its {len(periods)} periods, got "
            f"{np.round(periods, 6).tolist()} Å: set the cell, or no period there"
        )
    i, j, distance = neighbor_list("ijd", atoms, LEAST_DISTANCE_A)
    if len(distance):
        nearest = int(distance.argmin())
        raise StructureError(
            f"structure {where}: expected atoms at least {LEAST_DISTANCE_A} Å apart, got atoms {i[nearest]} and "
            f"{j[nearest]} at {distance[nearest]:.3g} Å: is the cell right?"
        )


def draw_velocities(atoms: ase.Atoms, temperature_K: float, seed: int) -> ase.Atoms:
    """A copy of `atoms` with Maxwell-Boltzmann velocities and zero total momentum."""
    widths = np.sqrt(units.kB * temperature_K * atoms.get_masses())
    drawn = atoms.copy()
    drawn.set_momenta(widths[:, None] * np.random.default_rng(seed).normal(size=(len(atoms), 3)))
    stop_drifting(drawn)
    return drawn


def stop_drifting(atoms: ase.Atoms) -> None:
    """Take the total momentum out of `atoms`, in place."""
    velocity = atoms.get_momenta().sum(axis=0) / atoms.get_masses().sum()
    atoms.set_velocities(atoms.get_velocities() - velocity)


def count_degrees_of_freedom(atoms: ase.Atoms) -> int:
    """3 N - 3: the total momentum is zero."""
    return 3 * len(atoms) - 3
