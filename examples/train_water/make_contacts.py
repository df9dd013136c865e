"""Clusters of three or four water molecules of which two are too near, and their PBE0/def2-SVP forces (pyscf).

    python make_contacts.py FRAMES.xyz OUT.xyz --clusters 200
    python make_contacts.py FRAMES_OF_explore.py.xyz OUT.xyz --clusters 50 --found

Frames of the liquid at 300 K hold no H-H of two molecules below 1.6 Å, no O-H below 1.3 and no O-O below 2.4: nothing
tells a network that molecules repel there, and one trained on frames alone let hydrogens fuse at 1.0 Å. Each cluster is
cut from a frame. One molecule is moved along the line between one of its atoms and one of another molecule's until they
are as near as drawn; or, with --found, nothing is moved and the two molecules are some that a run brought together.
Energies are counted from single molecules and have no weight in the training, forces a small one: another basis than the
frames'. Ten to twenty seconds a cluster on one core; needs pyscf.
"""

import argparse
import itertools

import ase
import ase.io
import numpy as np
from molecules import find_near, measure_distances, unwrap_molecule
from pyscf import dft, gto
from pyscf.data.nist import BOHR, HARTREE2EV

CONTACTS = {"HH": (0.80, 1.70), "OH": (1.10, 1.70), "OO": (1.90, 2.50)}  # Å, drawn uniformly
SHARES = (0.5, 0.25, 0.25)
APART = 1.3  # Å: no other pair of atoms of two molecules is nearer
NEIGHBOURS = 5  # one of so many is moved
WATER = np.array([[0, 0, 0], [0.757, 0.586, 0], [-0.757, 0.586, 0]])  # Å
ENERGY = -440.657365 - 2 * 13.605693  # eV of a molecule: train.sh's E0s
# of a frame's weight: a cluster is a step of the training as a frame is
WEIGHT, WEIGHT_FOUND = 0.02, 0.1


def push_together(atoms: ase.Atoms, rng: np.random.Generator) -> np.ndarray:
    """(9, 3) positions in Å, O H H three times: a molecule, one pushed to it, and the nearest with room."""
    kind = rng.choice(list(CONTACTS), p=SHARES)
    distance = rng.uniform(*CONTACTS[kind])
    while True:
        fixed, *others = sort_molecules(atoms, rng.choice(np.flatnonzero(atoms.numbers == 8)))
        moved = others.pop(rng.integers(NEIGHBOURS))
        line = draw_atom(moved, kind[1], rng) - draw_atom(fixed, kind[0], rng)
        moved = moved + line * (distance / np.linalg.norm(line) - 1)
        for third in others[: 2 * NEIGHBOURS]:
            parts = fixed, moved, third
            gaps = [np.linalg.norm(a[:, None] - b, axis=2) for a, b in itertools.combinations(parts, 2)]
            if np.count_nonzero(np.array(gaps) < APART) == (distance < APART):
                return np.concatenate(parts)


def cut_found(atoms: ase.Atoms, rng: np.random.Generator) -> np.ndarray:
    """(9 or 12, 3) positions in Å of two molecules that are too near, and of one or two whole ones next to them."""
    pairs, molecule = find_near(atoms)
    i, j = rng.choice(pairs)
    near = {molecule[i], molecule[j]}
    first, second, *others = (
        unwrap_molecule(atoms, molecule, oxygen, atoms.positions[i])
        for oxygen in (molecule[i], molecule[j], *(each for each in np.unique(molecule) if each not in near))
    )
    whole = [each for each in others if len(each) == len(WATER)]
    whole.sort(key=lambda each: np.linalg.norm(each - atoms.positions[i], axis=1).min())
    return np.concatenate([first, second, *whole[: rng.integers(1, 3)]])


def sort_molecules(atoms: ase.Atoms, oxygen: int) -> list[np.ndarray]:
    """Molecules, (3, 3) each, O first, by their distance from that of `oxygen`, which comes first."""
    centre, (_, molecule) = atoms.positions[oxygen], measure_distances(atoms)
    molecules = [
        unwrap_molecule(atoms, molecule, each, centre) for each in np.flatnonzero(atoms.numbers == 8)
    ]
    return sorted(molecules, key=lambda each: np.linalg.norm(each[0] - centre))


def draw_atom(molecule: np.ndarray, symbol: str, rng: np.random.Generator) -> np.ndarray:
    """(3,) position of the oxygen, or of one of the hydrogens."""
    return molecule[0 if symbol == "O" else rng.integers(1, 3)]


def solve(positions: np.ndarray) -> tuple[float, np.ndarray] | None:
    """PBE0/def2-SVP energy in eV and forces in eV/Å; None if the field does not converge."""
    symbols = "OHH" * (len(positions) // 3)
    molecule = gto.M(atom=list(zip(symbols, positions, strict=True)), basis="def2-svp", verbose=0)
    field = dft.RKS(molecule, xc="pbe0").density_fit()
    energy = field.kernel()
    if not field.converged:
        return None
    return energy * HARTREE2EV, -field.nuc_grad_method().kernel() * HARTREE2EV / BOHR


def label_cluster(positions: np.ndarray, weight: float, alone: float) -> ase.Atoms | None:
    """The cluster with what train.sh reads, or None; `alone` is the energy of one molecule, eV."""
    if (solved := solve(positions)) is None:
        return None
    energy, forces = solved
    n_molecules = len(positions) // 3
    atoms = ase.Atoms("OHH" * n_molecules, positions - positions.mean(axis=0))
    atoms.info["REF_energy"] = round(energy + n_molecules * (ENERGY - alone), 5)
    atoms.info |= {"config_weight": weight, "config_energy_weight": 0.0}
    atoms.arrays["REF_forces"] = forces.round(5)
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
    parser.add_argument("--found", action="store_true", help="of what the frames hold, move nothing")
    options = parser.parse_args()
    rng, frames = np.random.default_rng(options.seed), ase.io.read(options.frames, ":")
    make, weight = (cut_found, WEIGHT_FOUND) if options.found else (push_together, WEIGHT)
    if options.found and not (frames := [atoms for atoms in frames if len(find_near(atoms)[0])]):
        parser.error(
            f"{options.frames} has no two molecules that are too near; let explore.py run longer or hotter"
        )
    alone, _ = solve(WATER)
    for count in range(options.clusters):
        positions = make(frames[rng.integers(len(frames))], rng)
        if (cluster := label_cluster(positions, weight, alone)) is not None:
            ase.io.write(options.out, cluster, append=True, format="extxyz")
            strongest = np.abs(cluster.arrays["REF_forces"]).max()
            print(f"{count}: {len(cluster) // 3} molecules, {strongest:.1f} eV/Å at most", flush=True)


if __name__ == "__main__":
    main()
