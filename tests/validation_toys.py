"""Cheap potentials for tests of the validator: argon, a spring, and wrappers that plant one fault each."""

import functools
from typing import ClassVar

import ase
import numpy as np
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes

SPRING_eV_PER_A2 = 30.0  # O-H like: with the reduced mass of H2 a period of 8.3 fs


class Toy(Calculator):
    """A calculator that asks for no more than whether atoms have moved: ASE's question takes longer than a toy's forces."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def check_state(self, atoms, tol=0.0):
        same = self.atoms is not None and np.array_equal(atoms.positions, self.atoms.positions)
        return [] if same and np.array_equal(atoms.cell.array, self.atoms.cell.array) else ["positions"]


@functools.cache
def list_pairs(n_atoms):
    """(2, n_pairs) indices, and the (n_atoms, n_pairs) matrix that sums a pair's force on its second atom."""
    i, j = np.triu_indices(n_atoms, 1)
    each = np.arange(n_atoms)[:, None]
    return i, j, (j == each).astype(float) - (i == each)


class Argon(Toy):
    """Lennard-Jones in a cubic periodic box, minimum image; energy and force are zero at the cutoff."""

    epsilon, sigma = 0.0104, 3.4  # eV, Å

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        length = self.atoms.cell[0, 0]
        cutoff = 0.499 * length
        i, j, sums = list_pairs(len(self.atoms))
        vectors = self.atoms.positions[i] - self.atoms.positions[j]
        vectors -= length * np.round(vectors / length)
        distances = np.sqrt((vectors**2).sum(axis=1))
        energies, slopes = self._pair(distances)
        edge_energy, edge_slope = self._pair(np.array([cutoff]))
        inside = distances < cutoff
        energies = inside * (energies - edge_energy - edge_slope * (distances - cutoff))
        pulls = (inside * (slopes - edge_slope) / distances)[:, None] * vectors
        self.results = {"energy": float(energies.sum()), "forces": sums @ pulls}

    def _pair(self, distances):
        power = (self.sigma / distances) ** 6
        return 4 * self.epsilon * (power**2 - power), -24 * self.epsilon * (2 * power**2 - power) / distances


def argon_box() -> ase.Atoms:
    """32 atoms of fcc argon, a little wide so that it melts soon."""
    return bulk("Ar", "fcc", a=5.6, cubic=True).repeat(2)


class Spring(Toy):
    """One harmonic bond along the line of two atoms: closed forms for everything."""

    def __init__(self, length=0.74, constant=SPRING_eV_PER_A2):
        super().__init__()
        self.length, self.constant = length, constant

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vector = self.atoms.positions[1] - self.atoms.positions[0]
        distance = np.linalg.norm(vector)
        stretch = distance - self.length
        pull = self.constant * stretch * vector / distance
        self.results = {
            "energy": 0.5 * self.constant * stretch**2,
            "forces": np.array([pull, -pull]),
        }


class MorseMolecules(Toy):
    """H2 in a row, each bound by D (1 - e^(-a (r - r0)))^2; molecules do not see each other."""

    length, stiffness = 0.74, 1.9  # Å, 1/Å

    def __init__(self, depth=4.5):
        super().__init__()
        self.depth = depth

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        vectors = self.atoms.positions[1::2] - self.atoms.positions[::2]
        distances = np.linalg.norm(vectors, axis=1, keepdims=True)
        decay = np.exp(-self.stiffness * (distances - self.length))
        pulls = 2 * self.depth * self.stiffness * decay * (1 - decay) * vectors / distances
        forces = np.empty_like(self.atoms.positions)
        forces[::2], forces[1::2] = pulls, -pulls
        self.results = {"energy": float(self.depth * ((1 - decay) ** 2).sum()), "forces": forces}


def row_of_hydrogen(n_molecules=8) -> ase.Atoms:
    """Molecules 50 Å apart, at rest."""
    positions = np.zeros((n_molecules, 2, 3))
    positions[:, :, 0] = 50.0 * np.arange(n_molecules)[:, None]
    positions[:, 1, 2] = MorseMolecules.length
    return ase.Atoms(f"H{2 * n_molecules}", positions=positions.reshape(-1, 3))


class Faulty(Toy):
    """A sound potential with a fault in its results; `spoil(results, atoms, call)` changes them in place."""

    def __init__(self, sound, spoil):
        super().__init__()
        self.sound, self.spoil, self.calls = sound, spoil, 0

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.sound.calculate(self.atoms, properties, system_changes)
        self.results = {name: np.copy(value) for name, value in self.sound.results.items()}
        self.spoil(self.results, self.atoms, self.calls)
        self.results["energy"] = float(self.results["energy"])
        self.calls += 1


def add_noise(meV_per_A, seed):
    """Independent normal force errors at every call: heats as a random walk of the momenta."""
    rng = np.random.default_rng(seed)

    def spoil(results, atoms, call):
        results["forces"] += rng.normal(scale=meV_per_A / 1000, size=results["forces"].shape)

    return spoil


def add_curl(meV_per_A2):
    """A force field k z x r, which has no energy: atoms that move in circles gain or lose energy."""

    def spoil(results, atoms, call):
        relative = atoms.positions - atoms.get_center_of_mass()
        results["forces"] += meV_per_A2 / 1000 * np.cross([0, 0, 1], relative)

    return spoil


def add_friction(per_ps):
    """A force -gamma p: takes out energy."""

    def spoil(results, atoms, call):
        from ase import units

        results["forces"] -= per_ps / (1000 * units.fs) * atoms.get_momenta()

    return spoil


def kick_every(n_calls, eV_per_A):
    """In one of so many steps a force of this size on every component: a burst of heat."""
    rng = np.random.default_rng(0)

    def spoil(results, atoms, call):
        if call % n_calls == n_calls - 1:
            results["forces"] += eV_per_A * rng.choice([-1.0, 1.0], size=results["forces"].shape)

    return spoil


def break_at(call_to_break):
    """NaN from one call on."""

    def spoil(results, atoms, call):
        if call >= call_to_break:
            results["energy"] = np.nan
            results["forces"][:] = np.nan

    return spoil
