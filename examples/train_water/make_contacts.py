"""Clusters of three water molecules with one pair of atoms pushed together, and their PBE0/def2-SVP forces (pyscf).

    python make_contacts.py FRAMES.xyz OUT.xyz --clusters 200 --seed 1

Frames of the liquid at 300 K hold no H-H of two molecules below 1.6 Å, no O-H below 1.3 and no O-O below 2.4: nothing
tells a network that molecules repel there, and one trained on frames alone let hydrogens fuse at 1.0 Å. Each cluster is
cut from a frame; one molecule is moved along the line between one of its atoms and one of another molecule's until they
are as near as drawn. Energies are counted from single molecules and have no weight in the training, forces a small one:
another basis than the frames'. Ten seconds a cluster on one core; needs pyscf.
"""

import argparse
import itertools

import ase
import ase.io
import numpy as np
from ase.geometry import find_mic
from pyscf import dft, gto
from pyscf.data.nist import BOHR, HARTREE2EV

CONTACTS = {"HH": (0.80, 1.70), "OH": (1.10, 1.70), "OO": (1.90, 2.50)}  # Å, drawn uniformly
SHARES = (0.5, 0.25, 0.25)
APART = 1.3  # Å: no other pair of atoms of two molecules is nearer
NEIGHBOURS = 5  # one of so many is moved
WATER = np.array([[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]])  # Å
ENERGY = -440.657365 - 2 * 13.605693  # eV of a molecule: train.sh's E0s
WEIGHT = 0.02  # of a frame's: a cluster is a step of the training as a frame is


def cut_cluster(atoms: ase.Atoms, kind: str, distance: float, rng: np.random.Generator) -> np.ndarray | None:
    """(9, 3) positions in Å, O H H three times: a molecule, one pushed to it, and the nearest with room; None without."""
    centre = atoms.positions[rng.choice(np.flatnonzero(atoms.numbers == 8))]
    molecules = [unwrap_molecule(atoms, oxygen, centre) for oxygen in np.flatnonzero(atoms.numbers == 8)]
    fixed, *others = sorted(molecules, key=lambda molecule: np.linalg.norm(molecule[0] - centre))
    moved = others.pop(rng.integers(NEIGHBOURS))
    line = draw_atom(moved, kind[1], rng) - draw_atom(fixed, kind[0], rng)
    moved = moved + line * (distance / np.linalg.norm(line) - 1)
    for third in others:
        parts = fixed, moved, third
        gaps = [np.linalg.norm(a[:, None] - b, axis=2) for a, b in itertools.combinations(parts, 2)]
        if np.count_nonzero(np.array(gaps) < APART) == (distance < APART):
            return np.concatenate(parts)
    return None


def draw_atom(molecule: np.ndarray, symbol: str, rng: np.random.Generator) -> np.ndarray:
    """(3,) position of the oxygen, or of one of the hydrogens."""
    return molecule[0 if symbol == "O" else rng.integers(1, 3)]


def unwrap_molecule(atoms: ase.Atoms, oxygen: int, centre: np.ndarray) -> np.ndarray:
    """(3, 3) positions of the molecule of `oxygen`, O first, in the image nearest to `centre`."""
    vectors, lengths = find_mic(atoms.positions - atoms.positions[oxygen], atoms.cell, atoms.pbc)
    hydrogens = [i for i in np.argsort(lengths) if atoms.numbers[i] == 1][:2]
    origin = centre + find_mic(atoms.positions[oxygen] - centre, atoms.cell, atoms.pbc)[0]
    return origin + vectors[[oxygen, *hydrogens]]


def solve(symbols: str, positions: np.ndarray) -> tuple[float, np.ndarray] | None:
    """PBE0/def2-SVP energy in eV and forces in eV/Å; None if the field does not converge."""
    molecule = gto.M(atom=list(zip(symbols, positions, strict=True)), basis="def2-svp", verbose=0)
    field = dft.RKS(molecule, xc="pbe0").density_fit()
    energy = field.kernel()
    if not field.converged:
        return None
    return energy * HARTREE2EV, -field.nuc_grad_method().kernel() * HARTREE2EV / BOHR


def make_cluster(frames: list[ase.Atoms], alone: float, rng: np.random.Generator) -> ase.Atoms | None:
    """A cluster with its labels, or None; `alone` is the energy of one molecule."""
    kind = rng.choice(list(CONTACTS), p=SHARES)
    distance = rng.uniform(*CONTACTS[kind])
    positions = None
    while positions is None:
        positions = cut_cluster(frames[rng.integers(len(frames))], kind, distance, rng)
    if (solved := solve("OHH" * 3, positions)) is None:
        return None
    energy, forces = solved
    atoms = ase.Atoms("OHH" * 3, positions - positions.mean(axis=0))
    atoms.info |= {
        "REF_energy": energy + 3 * (ENERGY - alone),
        "contact": str(kind),
        "distance": round(distance, 3),
    }
    atoms.info |= {"config_weight": WEIGHT, "config_energy_weight": 0.0}
    atoms.arrays["REF_forces"] = forces
    return atoms


def main() -> None:
    """Append clusters to the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("frames")
    parser.add_argument("out")
    parser.add_argument("--clusters", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    frames = ase.io.read(options.frames, ":")
    alone, _ = solve("OHH", WATER)
    for count in range(options.clusters):
        if (atoms := make_cluster(frames, alone, rng)) is not None:
            ase.io.write(options.out, atoms, append=True, format="extxyz")
            strongest = np.abs(atoms.arrays["REF_forces"]).max()
            print(count, atoms.info["contact"], atoms.info["distance"], f"{strongest:.1f} eV/Å", flush=True)


if __name__ == "__main__":
    main()
