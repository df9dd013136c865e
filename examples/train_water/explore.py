"""Run a potential hot, and keep the frames in which two molecules are nearer than its training frames have them.

python explore.py ARTIFACT START.xyz OUT.xyz --temperature-K 700 --picoseconds 1

What `make_contacts.py --found` labels. Langevin dynamics at a constant volume, 0.5 fs, friction 0.02/fs.
"""

import argparse

import ase.io
import numpy as np
from ase import units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from molecules import find_near

from mdplugin import MACEQuantCalculator

EVERY_FS = 50


def main() -> None:
    """Append frames to the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("artifact")
    parser.add_argument("start")
    parser.add_argument("out")
    parser.add_argument("--temperature-K", type=float, default=700)
    parser.add_argument("--picoseconds", type=float, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    atoms, rng = ase.io.read(options.start), np.random.default_rng(options.seed)
    atoms.calc = MACEQuantCalculator(options.artifact)
    MaxwellBoltzmannDistribution(atoms, temperature_K=options.temperature_K, rng=rng)
    dynamics = Langevin(
        atoms, 0.5 * units.fs, temperature_K=options.temperature_K, friction=0.02 / units.fs, rng=rng
    )
    for count in range(round(1000 * options.picoseconds / EVERY_FS)):
        dynamics.run(round(EVERY_FS / 0.5))
        pairs, _ = find_near(atoms)
        if len(pairs):
            frame = ase.Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
            ase.io.write(options.out, frame, append=True, format="extxyz")
        print(f"{(count + 1) * EVERY_FS} fs, {atoms.get_temperature():.0f} K, {len(pairs)} near", flush=True)


if __name__ == "__main__":
    main()
