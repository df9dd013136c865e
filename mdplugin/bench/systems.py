"""Number of atoms -> liquid water: a periodic box or a free cluster, and positions for every step.

Water at 300 K and 1 bar; the molecules are those of the bundled box of 64.
"""

import ase
import ase.io
import numpy as np
from ase import units
from scipy.spatial.transform import Rotation

from mdplugin import potentials
from mdplugin.errors import CaseError

DENSITY_G_PER_CM3 = 0.997
LARGEST_ASPECT = 2  # of a box made of whole copies; longer ones are packed anew
LIBRATION_PER_CM = 700.0  # water's librational band, 400 to 1000 cm^-1
TEMPERATURE_K = 300.0
TIMESTEP_FS = 0.5


def build_system(kind: str, n_atoms: int, seed: int) -> ase.Atoms:
    """Water with `n_atoms` atoms, as O H H molecules in a row.

    Args:
        kind: "box", periodic, or "cluster", without a cell.

    Raises:
        CaseError: not a whole number of molecules.
    """
    if n_atoms < 3 or n_atoms % 3:
        below = max(3, n_atoms - n_atoms % 3)
        raise CaseError(
            f"atoms: expected whole water molecules, a multiple of 3, got {n_atoms}: take {below} or {below + 3}"
        )
    n_molecules = n_atoms // 3
    return _build_box(n_molecules, seed) if kind == "box" else _build_cluster(n_molecules)


def _build_box(n_molecules: int, seed: int) -> ase.Atoms:
    """Copies of the bundled box where they fill a box that is no rod, else molecules on a jittered grid."""
    molecules, length = read_molecules()
    copies = _factorise(n_molecules // len(molecules)) if n_molecules % len(molecules) == 0 else None
    if copies is not None and copies[2] <= LARGEST_ASPECT * copies[0]:
        origins = length * np.stack(np.meshgrid(*map(np.arange, copies), indexing="ij"), -1).reshape(-1, 3)
        sites = (molecules[None] + origins[:, None, None]).reshape(-1, 3)
        return _to_atoms(sites, cell=length * np.array(copies))
    return _pack_grid(n_molecules, molecules, np.random.default_rng(seed))


def _factorise(n: int) -> tuple[int, int, int]:
    """a <= b <= c with a b c = n, as near to each other as can be."""
    triples = [
        (a, b, n // (a * b))
        for a in range(1, round(n ** (1 / 3)) + 1)
        if n % a == 0
        for b in range(a, int((n / a) ** 0.5) + 1)
        if (n // a) % b == 0
    ]
    return min(triples, key=sum)


def _pack_grid(n_molecules: int, molecules: np.ndarray, rng: np.random.Generator) -> ase.Atoms:
    """Molecules turned at random on the sites of a simple cubic grid, a few sites left empty."""
    mass = n_molecules * float(ase.Atoms("OH2").get_masses().sum())
    length = (mass * units._amu * 1e3 / DENSITY_G_PER_CM3 * 1e24) ** (1 / 3)
    a = int(np.ceil(n_molecules ** (1 / 3) - 1e-9))
    b = int(np.ceil((n_molecules / a) ** 0.5 - 1e-9))
    shape = np.array([a, b, -(-n_molecules // (a * b))])
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    chosen = np.sort(rng.choice(len(grid), n_molecules, replace=False))
    centres = (grid[chosen] + rng.uniform(-0.05, 0.05, (n_molecules, 3))) * (length / shape)
    shapes = molecules[np.arange(n_molecules) % len(molecules)]
    shapes = shapes - np.average(shapes, axis=1, weights=[16.0, 1.0, 1.0], keepdims=True)
    turned = np.einsum("nij,naj->nai", Rotation.random(n_molecules, rng=rng).as_matrix(), shapes)
    return _to_atoms((centres[:, None] + turned).reshape(-1, 3), cell=[length] * 3)


def _build_cluster(n_molecules: int) -> ase.Atoms:
    """The molecules nearest to the centre of a box that holds a ball of them."""
    molecules, _ = read_molecules()
    copies = int(np.ceil((n_molecules / (0.4 * len(molecules))) ** (1 / 3)))  # a ball fills half of its cube
    box = _build_box(len(molecules) * copies**3, seed=0)
    positions = box.positions.reshape(-1, 3, 3)
    distance = np.linalg.norm(positions[:, 0] - box.cell.sum(axis=0) / 2, axis=1)
    nearest = np.sort(np.argsort(distance, kind="stable")[:n_molecules])
    return _to_atoms(positions[nearest].reshape(-1, 3), cell=None)


def read_molecules() -> tuple[np.ndarray, float]:
    """The bundled box: molecules (64, 3, 3) Å, O H H, whole and with their oxygen in the cell; its edge in Å."""
    box = ase.io.read(potentials.find_structure("water-64"))
    box.wrap()
    oxygen, hydrogen = np.flatnonzero(box.numbers == 8), np.flatnonzero(box.numbers == 1)
    molecules = []
    for o in oxygen:
        bonds = box.get_distances(o, hydrogen, mic=True, vector=True)
        nearest = np.argsort(np.linalg.norm(bonds, axis=1))[:2]
        molecules.append(box.positions[o] + np.vstack([np.zeros(3), bonds[nearest]]))
    return np.array(molecules), float(box.cell.lengths()[0])


def _to_atoms(positions: np.ndarray, cell) -> ase.Atoms:
    return ase.Atoms("OHH" * (len(positions) // 3), positions=positions, cell=cell, pbc=cell is not None)


class Vibration:
    """Thermal motion without forces: every coordinate a classical oscillator about its place (Einstein's solid).

        x(t) = x_0 + a cos(w t) + b sin(w t),   a and b normal with variance kT / (m w^2)

    Speeds are those of 300 K, so neighbour lists age as in dynamics, and the structure stays what it is for any
    number of steps and whatever the potential.
    """

    def __init__(self, atoms: ase.Atoms, seed: int):
        rng = np.random.default_rng(seed)
        self._omega = 2 * np.pi * LIBRATION_PER_CM * units._c * 100 / units.second  # per ASE time
        width = np.sqrt(units.kB * TEMPERATURE_K / atoms.get_masses()) / self._omega
        self._place = atoms.positions.copy()
        self._cosine, self._sine = (width[:, None] * rng.normal(size=(len(atoms), 3)) for _ in range(2))

    def positions(self, step: int) -> np.ndarray:
        """(n_atoms, 3) Å after `step` steps of 0.5 fs."""
        phase = self._omega * step * TIMESTEP_FS * units.fs
        return self._place + np.cos(phase) * self._cosine + np.sin(phase) * self._sine
