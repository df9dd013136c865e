"""g(r) of the training set's frames, pairs within a molecule left out: what the potential's water is held against.

python make_rdf.py ../water_dft_rdf.dat FRAMES.xyz...
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np

PAIRS = {"O-O": (8, 8), "H-O": (1, 8), "H-H": (1, 1)}
EDGES = np.arange(0.0, 6.2001, 0.05)  # Å: half the box is 6.22
HEADER = """g(r) between molecules: histogram of {frames} frames of ab initio dynamics (PBE0+TS, {waters} H2O, 0.993 g/cm3)
in deepmd-kit's examples/water/data (LGPL-3), on which the bundled water potential was trained
(mdplugin/potentials/water.md), by examples/train_water/make_rdf.py; over the pairs that there are
r, Å; {names}; their standard errors if the frames were independent"""


def count_pairs(atoms: ase.Atoms) -> dict[str, np.ndarray]:
    """Pair -> (n_bins,) g(r) of one frame; a molecule is an oxygen and the hydrogens that have no nearer one."""
    distances = atoms.get_all_distances(mic=True)
    oxygens = np.flatnonzero(atoms.numbers == 8)
    molecule = oxygens[distances[:, oxygens].argmin(axis=1)]
    apart = molecule[:, None] != molecule
    shells = 4 / 3 * np.pi * np.diff(EDGES**3) / atoms.cell.volume
    found = {}
    for name, (first, second) in PAIRS.items():
        pairs = apart & (atoms.numbers[:, None] == first) & (atoms.numbers == second)
        found[name] = np.histogram(distances[pairs], EDGES)[0] / (pairs.sum() * shells)
    return found


def main() -> None:
    """Write r, one column for each pair, and one for the error of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("frames", type=Path, nargs="+")
    options = parser.parse_args()
    frames = [atoms for path in options.frames for atoms in ase.io.iread(path, ":")]
    counts = [count_pairs(atoms) for atoms in frames]
    of_frames = [np.array([each[name] for each in counts]) for name in PAIRS]
    columns = [each.mean(axis=0) for each in of_frames]
    # the frames are shuffled snapshots of one trajectory: how they correlate is not known
    columns += [each.std(axis=0, ddof=1) / len(frames) ** 0.5 for each in of_frames]
    waters = int((frames[0].numbers == 8).sum())
    header = HEADER.format(
        frames=len(frames), waters=waters, names=", ".join(f"g of {name}" for name in PAIRS)
    )
    np.savetxt(
        options.out,
        np.column_stack([EDGES[1:] - 0.025, *columns]),
        fmt=["%.3f", *["%.5f"] * len(columns)],
        header=header,
    )


if __name__ == "__main__":
    main()
