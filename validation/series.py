"""What an engine hands back from a run: energies of every step, and where it failed if it did."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import units

from mdplugin.validation.limits import LIMITS


@dataclass(frozen=True)
class Failure:
    """The step at which a run could not go on, and why."""

    step: int
    reason: str


@dataclass(frozen=True)
class Run:
    """One molecular dynamics run, a sample for every step from 0 on.

    Attributes:
        time_ps, potential_eV, kinetic_eV: (n_samples,) of the whole system.
        wall_s: (n_samples,) time that the step took.
        n_atoms: number of atoms.
        failure: None if all steps were done.
    """

    time_ps: np.ndarray
    potential_eV: np.ndarray
    kinetic_eV: np.ndarray
    wall_s: np.ndarray
    n_atoms: int
    failure: Failure | None = None

    @property
    def total_meV_per_atom(self) -> np.ndarray:  # noqa: N802
        """(n_samples,) total energy, relative to the first sample's."""
        # subtracted before the division: E0s are thousands of eV
        potential, kinetic = (values - values[0] for values in (self.potential_eV, self.kinetic_eV))
        return 1000 * (potential + kinetic) / self.n_atoms

    @property
    def temperature_K(self) -> np.ndarray:  # noqa: N802
        """(n_samples,) from 3 N - 3 degrees of freedom: the total momentum is zero."""
        return temperature_of(self.kinetic_eV, self.n_atoms)


def temperature_of(kinetic_eV, n_atoms: int):
    """Temperature in K of a system without total momentum."""
    return 2 * kinetic_eV / ((3 * n_atoms - 3) * units.kB)


def describe_collapse(potential_eV: float, kinetic_eV: float, n_atoms: int) -> str | None:
    """Why a state is not worth another step, or None."""
    if not (np.isfinite(potential_eV) and np.isfinite(kinetic_eV)):
        return f"energy is not finite (potential {potential_eV:g} eV, kinetic {kinetic_eV:g} eV)"
    temperature, limit = temperature_of(kinetic_eV, n_atoms), LIMITS["explosion_K"].value
    if temperature > limit:
        return f"temperature {temperature:.4g} K is above {limit:g} K: the system explodes"
    return None


def find_collapse(run: Run) -> Failure | None:
    """The first sample that is not finite or too hot."""
    for step, (potential, kinetic) in enumerate(zip(run.potential_eV, run.kinetic_eV, strict=True)):
        if reason := describe_collapse(potential, kinetic, run.n_atoms):
            return Failure(step, reason)
    return None


_COLUMNS = ("time_ps", "potential_eV", "kinetic_eV", "wall_s")


def save_runs(path: Path, runs: dict[str, Run]) -> None:
    """Write raw series as a compressed .npz with arrays LABEL_COLUMN, and LABEL_n_atoms."""
    arrays = {f"{label}_{column}": getattr(run, column) for label, run in runs.items() for column in _COLUMNS}
    counts = {f"{label}_n_atoms": np.array(run.n_atoms) for label, run in runs.items()}
    np.savez_compressed(path, **arrays, **counts)
