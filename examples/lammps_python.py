"""LAMMPS driven from Python: run, read energies and forces as NumPy arrays, go on.

mdplugin export water -o water-fp32.pt --precision fp32
python lammps_python.py water-fp32.pt --steps 50
"""

import argparse
from pathlib import Path

import numpy as np
from lammps import lammps

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("artifact", help="file written by mdplugin export")
parser.add_argument("--steps", type=int, default=50)
arguments = parser.parse_args()

lmp = lammps(cmdargs=["-log", "none", "-screen", "none"])
lmp.commands_string(f"""
    units           metal
    atom_style      atomic
    read_data       {Path(__file__).parent / "water.data"}
    pair_style      mace/quant
    pair_coeff      * * {Path(arguments.artifact).resolve()} H O
    timestep        0.0005
    fix             integrate all nve
""")
for _ in range(5):
    lmp.command(f"run {arguments.steps // 5} post no")
    forces = lmp.numpy.extract_atom("f")[: lmp.extract_setting("nlocal")]
    print(
        f"step {lmp.extract_global('ntimestep'):5d}  {lmp.get_thermo('etotal') / lmp.get_natoms():.6f} eV/atom  "
        f"{lmp.get_thermo('temp'):.1f} K  largest force {np.abs(forces).max():.2f} eV/Å"
    )
lmp.close()
