"""The examples run as they stand, for a few steps."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from validation_artifacts import crystal, execute_here, save_morse

from mdplugin import potentials

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


def test_engines_are_compared_by_every_observable(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    import engine_agreement

    monkeypatch.setattr(engine_agreement, "execute_runs", execute_here)
    ase.io.write(tmp_path / "crystal.xyz", crystal())
    model, reference = save_morse(tmp_path / "low.pt", "fp32"), save_morse(tmp_path / "morse.pt")
    few = {
        "structure": str(tmp_path / "crystal.xyz"),
        "timestep_fs": 4.0,
        "temperature_K": 100,
        "length_ps": 1.6,
    }
    rows = engine_agreement.compare(
        "nve", model, str(reference), tmp_path / "engines", **few, equilibration_ps=0.1
    )
    found = {row["observable"]: row for row in rows}
    shown = {"force regression slope", "exponent of the fluctuation with dt", "forces over energy gradient"}
    assert shown | {"force error (rms), meV/Å", "error of time reversal, Å"} <= set(found)
    assert all(found[name]["LAMMPS"] != "-" != found[name]["ASE"] for name in shown)
    assert "fail" not in {row["outcome"] for row in rows}
    assert found["force error (rms), meV/Å"]["outcome"] == "pass"


def test_the_training_recipe_names_files_that_exist():
    recipe = EXAMPLES / "train_water"
    assert "mace_run_train" in (recipe / "train.sh").read_text()
    named = re.findall(
        r"\b[\w.]+\.(?:py|sh|gz)\b", (recipe / "README.md").read_text() + (recipe / "finetune.sh").read_text()
    )
    assert {"contacts.xyz.gz", "explore.py", "make_contacts.py", "pack.py", "train.sh"} <= set(named)
    for name in named:
        assert (recipe / name).is_file(), name


def test_clusters_of_the_second_stage_are_labelled():
    clusters = ase.io.read(EXAMPLES / "train_water" / "contacts.xyz.gz", ":")
    assert len(clusters) == 284
    for atoms in clusters:
        assert str(atoms.symbols).startswith("OH2") and len(atoms) in (9, 12) and not atoms.pbc.any()
        # no force on the whole, but for the grid's
        assert np.abs(atoms.arrays["REF_forces"].sum(axis=0)).max() <= 0.1
        assert atoms.info["config_energy_weight"] == 0 < atoms.info["config_weight"] < 1


def test_molecules_that_are_too_near_are_found(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES / "train_water")
    from molecules import find_near

    atoms = ase.io.read(potentials.find_structure("water-64"))
    (pairs, molecule), hydrogens = find_near(atoms), np.flatnonzero(atoms.numbers == 1)
    assert (np.unique(molecule, return_counts=True)[1] == 3).all() and len(pairs) == 0
    distances = atoms.get_all_distances(mic=True)
    distances[molecule[:, None] == molecule] = np.inf
    i = hydrogens[0]
    j = hydrogens[distances[i, hydrogens].argmin()]
    line = atoms.get_distance(i, j, mic=True, vector=True)
    atoms.positions[molecule == molecule[j]] += line * (1.2 / np.linalg.norm(line) - 1)
    assert sorted((int(i), int(j))) in find_near(atoms)[0].tolist()
    atoms.positions[hydrogens[molecule[hydrogens] == molecule[i]][1]] = atoms.positions[molecule[j]] + [
        0,
        0,
        1,
    ]
    assert len(find_near(atoms)[0]) == 0  # a proton went over
