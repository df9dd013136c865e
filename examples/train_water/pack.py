"""Pack a trained `.model` as JSON + safetensors, without pickle: how the bundled potential was made.

python pack.py water_pbe0ts_16L1.model ../../mdplugin/potentials/water.json
"""

import argparse
from pathlib import Path

from mdplugin.checkpoint import read_checkpoint, save_potential

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", type=Path, help="ScaleShiftMACE of mace_run_train")
parser.add_argument("json", type=Path, help="file to write; the weights go beside it as .safetensors")
arguments = parser.parse_args()
save_potential(read_checkpoint(arguments.model), arguments.json)
