"""Make the bundled structures: a liquid box equilibrated with the water potential, and a relaxed hexamer.

    python make_structures.py START.xyz ARTIFACT OUTPUT_DIRECTORY [--picoseconds 2]

START is any frame of 64 molecules at the density wanted (we took frame 0 of water_pbe0ts_dpmd/valid.xyz).
The box is run at 300 K with ASE's Langevin thermostat; its last positions and velocities are kept. The
hexamer is the six molecules of that box around one of them, relaxed to 0.01 eV/Å; with it are stored the
energy and forces of mace-torch in float64, which `mdplugin doctor` compares with.
"""

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

from mdplugin import MACEQuantCalculator
from mdplugin.checkpoint import evaluate_mace, read_checkpoint

TEMPERATURE_K = 300
SEED = 20261120


def equilibrate(box: ase.Atoms, artifact: Path, picoseconds: float) -> ase.Atoms:
    """Langevin dynamics at 300 K: 1 ps with strong friction, the rest with 0.002/fs; 0.5 fs steps."""
    rng = np.random.default_rng(SEED)
    box.calc = MACEQuantCalculator(artifact)
    MaxwellBoltzmannDistribution(box, temperature_K=TEMPERATURE_K, rng=rng)
    for length_ps, friction_per_fs in ((1.0, 0.02), (picoseconds - 1.0, 0.002)):
        dynamics = Langevin(
            box,
            0.5 * units.fs,
            temperature_K=TEMPERATURE_K,
            friction=friction_per_fs / units.fs,
            rng=rng,
            logfile="-",
            loginterval=500,
        )
        dynamics.run(round(length_ps * 1000 / 0.5))
    return box


def cut_hexamer(box: ase.Atoms, artifact: Path) -> ase.Atoms:
    """The molecule nearest to the centre and its five neighbours, relaxed in vacuum."""
    oxygens = np.flatnonzero(box.numbers == 8)
    centre = oxygens[np.argmin(np.linalg.norm(box.positions[oxygens] - box.cell.sum(axis=0) / 2, axis=1))]
    nearest = oxygens[np.argsort(box.get_distances(centre, oxygens, mic=True))[:6]]
    cluster = ase.Atoms()
    for oxygen in nearest:
        hydrogens = np.flatnonzero(box.numbers == 1)
        pair = hydrogens[np.argsort(box.get_distances(oxygen, hydrogens, mic=True))[:2]]
        molecule = [oxygen, *pair]
        shift = box.get_distance(centre, oxygen, mic=True, vector=True)
        positions = shift + box.get_distances(oxygen, molecule, mic=True, vector=True)
        cluster += ase.Atoms(box.numbers[molecule], positions=positions)
    cluster.calc = MACEQuantCalculator(artifact)
    BFGS(cluster, logfile="-").run(fmax=0.01, steps=500)
    return cluster


def write_with_reference(cluster: ase.Atoms, path: Path) -> None:
    """Write the cluster with mace-torch's float64 energy and forces at the positions as the file rounds them."""
    ase.io.write(path, cluster, format="extxyz")
    cluster = ase.io.read(path)
    reference = evaluate_mace(read_checkpoint("water"), [cluster])[0]
    cluster.calc = SinglePointCalculator(cluster, energy=reference.energy, forces=reference.forces)
    ase.io.write(path, cluster, format="extxyz")


def main() -> None:
    """Write water-64.xyz and water-hexamer.xyz."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("start", type=Path)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--picoseconds", type=float, default=2.0)
    arguments = parser.parse_args()
    start = ase.io.read(arguments.start, "0")
    box = ase.Atoms(start.numbers, positions=start.positions, cell=start.cell, pbc=True)
    box = equilibrate(box, arguments.artifact, arguments.picoseconds)
    hexamer = cut_hexamer(box, arguments.artifact)
    box.calc = hexamer.calc = None
    ase.io.write(arguments.output / "water-64.xyz", box, format="extxyz")
    write_with_reference(hexamer, arguments.output / "water-hexamer.xyz")


if __name__ == "__main__":
    main()
