"""The examples run as they stand, for a few steps."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
LMP = Path(sys.executable).with_name("lmp")
MDPLUGIN = Path(sys.executable).with_name("mdplugin")


def run(command, directory):
    done = subprocess.run(
        [str(word) for word in command], cwd=directory, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("script", ["ase_nve.py", "lammps_python.py"])
def test_python_example_conserves_energy(artifacts, script, tmp_path):
    output = run([sys.executable, EXAMPLES / script, artifacts["water", "fp32"], "--steps", "20"], tmp_path)
    energies = [float(value) for value in re.findall(r"(-\d+\.\d+) eV/atom", output)]
    # velocity Verlet at 0.5 fs lets the energy of liquid water swing by some 0.05 meV/atom
    assert len(energies) >= 3 and max(energies) - min(energies) <= 5e-4


@pytest.mark.parametrize(("script", "command"), [("in.nve", [LMP]), ("in.nvt", [MDPLUGIN, "lmp"])])
def test_lammps_input_runs_and_starts_from_the_same_energy(artifacts, script, command, tmp_path):
    for name in (script, "water.data"):
        shutil.copy(EXAMPLES / name, tmp_path)
    output = run(
        [*command, "-in", script, "-var", "model", artifacts["water", "fp32"], "-var", "steps", "20"],
        tmp_path,
    )
    assert "mace/quant" in output and "precision fp32, elements H O, trained float64, not validated" in output
    rows = re.findall(r"^ +(\d+) .*$", output, re.MULTILINE)
    assert {"0", "10", "20"} <= set(rows)
    if script == "in.nvt":
        assert (tmp_path / "water.lammpstrj").read_text().count("ITEM: TIMESTEP") == 3


def test_the_training_recipe_names_files_that_exist():
    recipe = (EXAMPLES / "train_water" / "train.sh").read_text()
    assert "mace_run_train" in recipe
    for name in ("make_structures.py", "README.md", "pack.py"):
        assert (EXAMPLES / "train_water" / name).is_file()
