"""Molecular dynamics with ASE: 64 water molecules, NVE, 0.5 fs.

mdplugin export water -o water-fp32.pt --precision fp32
python ase_nve.py water-fp32.pt --steps 100
"""

import argparse

import ase.io
from ase import units
from ase.md.verlet import VelocityVerlet

from mdplugin import MACEQuantCalculator, potentials

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("artifact", help="file written by mdplugin export")
parser.add_argument("--steps", type=int, default=100)
arguments = parser.parse_args()

atoms = ase.io.read(potentials.find_structure("water-64"))  # with velocities at about 300 K
atoms.calc = MACEQuantCalculator(arguments.artifact)
dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)


def report() -> None:
    """One line per ten steps."""
    total = atoms.get_total_energy() / len(atoms)
    print(f"{dynamics.nsteps:6d} steps  {total:.6f} eV/atom  {atoms.get_temperature():.1f} K")


dynamics.attach(report, interval=10)
dynamics.run(arguments.steps)
