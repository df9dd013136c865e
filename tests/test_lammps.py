"""LAMMPS serves an artifact as ASE does: on any number of ranks, in any cell, units and kind of run."""

import json
import shutil
import sys

import ase
import ase.units
import numpy as np
import pytest
import torch
from lammps_runs import (
    BAR_PER_EV_PER_A3,
    ELEMENTS,
    VOIGT,
    Result,
    System,
    make_systems,
    measure,
    move,
    run,
    write_data,
)

import mdplugin
from mdplugin import native

# fp64 on both sides, the same network: only the order of sums differs. Forces below 10 eV/Å are sums over some
# 60 edges, of rounding 60 * 10 * 1.1e-16 = 7e-14 eV/Å; the acceptance table allows 1e-9.
FORCE_BOUND = 1e-12  # eV/Å
ENERGY_BOUND = 1e-12  # eV, per atom; energies of atoms below 500 eV are resolved to 6e-14
PRESSURE_BOUND = 1e-10  # relative to the largest component; edges of either sign cancel to a hundredth


def largest(array: np.ndarray) -> float:
    """Max norm; NaN stays NaN, so that it fails every bound."""
    return float(np.max(np.abs(array)))


def assert_same(result: Result, expected: Result) -> None:
    """Two LAMMPS results of the same atoms agree to the bounds."""
    assert abs(result.energy - expected.energy) <= ENERGY_BOUND * len(expected.forces)
    assert largest(result.forces - expected.forces) <= FORCE_BOUND
    assert largest(result.energies - expected.energies) <= ENERGY_BOUND
    assert largest(result.pressure - expected.pressure) <= PRESSURE_BOUND * largest(expected.pressure)
    assert largest(result.stresses - expected.stresses) <= PRESSURE_BOUND * largest(expected.stresses)


def evaluate_in_ase(system: System, calculator) -> Result:
    """What LAMMPS has to say of the system, by ASE. A volume of the cell, also of a slab."""
    atoms = system.atoms.copy()
    atoms.calc = calculator
    volume = atoms.get_volume()
    return Result(
        energy=atoms.get_potential_energy(),
        volume=volume,
        pressure=-atoms.get_stress()[list(VOIGT)] * BAR_PER_EV_PER_A3,
        forces=atoms.get_forces(),
        energies=calculator.results["energies"],
        stresses=calculator.results["stresses"][:, VOIGT] * volume * BAR_PER_EV_PER_A3,
    )


def in_volume(result: Result, volume: float) -> Result:
    """The result with its pressure referred to another volume (LAMMPS shrink-wraps boxes)."""
    pressure = result.pressure * result.volume / volume
    return Result(result.energy, volume, pressure, result.forces, result.energies, result.stresses)


@pytest.fixture(scope="module")
def systems():
    return make_systems()


@pytest.fixture(scope="module")
def model(artifacts):
    return artifacts["organic", "fp64"]


@pytest.fixture(scope="module")
def expected(systems, model):
    calculator = mdplugin.MACEQuantCalculator(model)
    return {name: evaluate_in_ase(system, calculator) for name, system in systems.items()}


@pytest.mark.parametrize(("backend", "ranks"), [("native", 1), ("native", 2), ("native", 4), ("e3nn", 4)])
def test_lammps_agrees_with_ase_in_every_cell(artifacts, systems, tmp_path, backend, ranks):
    model = artifacts["organic", "fp64", backend]
    calculator = mdplugin.MACEQuantCalculator(model)
    expected = {name: evaluate_in_ase(system, calculator) for name, system in systems.items()}
    results = measure(tmp_path, model, systems, ranks=ranks)
    for name, result in results.items():
        print(name)  # pytest shows it where an assertion fails
        assert_same(in_volume(result, expected[name].volume), expected[name])


class WideNetwork(torch.nn.Module):
    """A two-layer toy behind the artifact's forward, with features too wide for one MPI message."""

    def __init__(self, weights: torch.Tensor):
        super().__init__()
        self.register_buffer("weights", weights)  # (n_elements, width)

    def forward(
        self,
        edge_vectors: torch.Tensor,
        senders: torch.Tensor,
        receivers: torch.Tensor,
        species: torch.Tensor,
        n_local: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        vectors = edge_vectors.detach().to(self.weights.dtype).requires_grad_(True)
        near = torch.relu(1 - (vectors * vectors).sum(1, keepdim=True) / 16.0) ** 2
        messages = near * self.weights[species[senders]]
        local = torch.zeros([n_local, messages.size(1)], dtype=messages.dtype).index_add(
            0, receivers, messages
        )
        features = torch.ops.mdplugin.halo(local, species.size(0))
        pairs = (near * features[senders] * features[receivers]).sum(1)
        energy = torch.zeros([n_local], dtype=pairs.dtype).index_add(0, receivers, pairs)
        gradient = torch.autograd.grad([energy.sum()], [vectors])[0]
        assert gradient is not None
        return energy.detach().to(torch.float64), -gradient.to(torch.float64)


@pytest.mark.parametrize(("dtype", "relative_bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5)])
def test_features_of_any_width_reach_the_ghosts(model, systems, tmp_path, dtype, relative_bound):
    # one rank folds its ghosts, so it needs no exchange: the reference. An odd number of floats and three
    # messages for each row; sums of 60 edges * 151 columns round to some 10 unit roundoffs
    weights = torch.linspace(-1, 1, 3 * 151, dtype=dtype).reshape(3, 151)
    path = tmp_path / "wide.pt"
    manifest = mdplugin.read_manifest(model).to_json()
    torch.jit.script(WideNetwork(weights)).save(str(path), _extra_files={"mdplugin.json": manifest})
    names = ("triclinic", "cell-smaller-than-cutoff", "ranks-without-atoms")
    chosen = {name: systems[name] for name in names}
    one, four = (measure(tmp_path, path, chosen, ranks=ranks) for ranks in (1, 4))
    for name in names:
        assert largest(four[name].forces - one[name].forces) <= relative_bound * largest(one[name].forces)
        assert largest(four[name].energies - one[name].energies) <= relative_bound * largest(
            one[name].energies
        )


@pytest.mark.parametrize("ranks", [1, 2])
def test_stresses_of_atoms_sum_to_the_pressure(model, systems, tmp_path, ranks):
    result = measure(tmp_path, model, {"triclinic": systems["triclinic"]}, ranks=ranks)["triclinic"]
    total = -result.stresses.sum(axis=0) / result.volume
    # sums of 36 atoms: rounding 36 * 1.1e-16 of the largest term
    assert largest(total - result.pressure) <= 1e-13 * largest(result.stresses)
    assert abs(result.energies.sum() - result.energy) <= 1e-14 * np.abs(result.energies).sum()


@pytest.mark.parametrize("ranks", [1, 2])
def test_bundled_water_potential_agrees_with_ase(artifacts, water_frames, tmp_path, ranks):
    atoms = water_frames[0].copy()
    atoms.wrap()
    system = System(atoms, "p p p")
    # fp64: rounding; fp32: what its policy allows. Energies are per atom.
    for precision, force_bound, energy_bound in (("fp64", FORCE_BOUND, 1e-9), ("fp32", 1e-4, 1e-5)):
        path = artifacts["water", precision]
        result = measure(tmp_path, path, {"water": system}, ("O", "H"), ranks)["water"]
        reference = evaluate_in_ase(system, mdplugin.MACEQuantCalculator(path))
        assert largest(result.forces - reference.forces) <= force_bound
        assert abs(result.energy - reference.energy) <= energy_bound * len(atoms)


@pytest.mark.parametrize("elements", [("O", "H", "C"), ("C", "O", "H", "C", "N")])
def test_types_may_be_permuted_and_repeated(model, systems, expected, tmp_path, elements):
    served = ["C" if symbol == "N" else symbol for symbol in elements]  # type 5 is another carbon
    coeff = f"pair_coeff * * {model} {' '.join(served)}"
    result = measure(tmp_path, model, {"slab": systems["slab"]}, elements, coeff=coeff)["slab"]
    assert_same(result, expected["slab"])


def test_a_subset_of_the_elements_keeps_its_chemistry(model, tmp_path):
    atoms = make_systems()["molecule"].atoms.copy()
    del atoms[[atom.index for atom in atoms if atom.symbol == "C"]]
    system = System(atoms, "f f f")
    result = measure(tmp_path, model, {"subset": system}, ("O", "H"))["subset"]
    assert_same(result, evaluate_in_ase(system, mdplugin.MACEQuantCalculator(model)))


def test_units_real_are_converted(model, systems, expected, tmp_path):
    result = measure(tmp_path, model, {"triclinic": systems["triclinic"]}, units="real")["triclinic"]
    reference = expected["triclinic"]
    kcal_per_mol = ase.units.kcal / ase.units.mol  # in eV
    # LAMMPS rounds its conversion constants to 7 digits
    assert largest(result.forces * kcal_per_mol - reference.forces) <= 1e-6 * largest(reference.forces)
    assert abs(result.energy * kcal_per_mol - reference.energy) <= 1e-6 * abs(reference.energy)
    bar_per_atm = 1.01325
    assert largest(result.pressure * bar_per_atm - reference.pressure) <= 1e-5 * largest(reference.pressure)


def test_nve_is_the_same_on_one_and_two_ranks(model, systems, tmp_path):
    one, log = move(tmp_path, model, systems["triclinic"], name="one")
    two, _ = move(tmp_path, model, systems["triclinic"], name="two", ranks=2)
    assert "Neighbor list builds = 4" in log  # atoms have changed owners on the way
    # rounding of 1e-14 eV/Å, amplified by 20 steps of 0.5 fs among atoms of 1000 K
    assert largest(one - two) <= 1e-9  # Å and Å/ps


@pytest.mark.parametrize(
    ("ranks", "change"),
    [
        (1, {"before": "run_style respa 2 2 pair 2"}),
        (2, {"after": "comm_style tiled\nbalance 0.9 rcb"}),
        (1, {"after": "neighbor 0.0 bin", "before": "neigh_modify every 1 delay 0 check no"}),
    ],
    ids=["respa", "tiled", "neighbors-each-step"],
)
def test_nve_does_not_depend_on_how_lammps_is_run(model, systems, tmp_path, ranks, change):
    plain, _ = move(tmp_path, model, systems["orthogonal"], name="plain")
    changed, _ = move(tmp_path, model, systems["orthogonal"], name="changed", ranks=ranks, **change)
    assert largest(plain - changed) <= 1e-9  # Å and Å/ps


@pytest.mark.parametrize("ranks", [1, 2])
def test_hybrid_overlay_adds_another_style(model, systems, expected, tmp_path, ranks):
    pairs = [(i, j) for i in (1, 2, 3) for j in range(i, 4)]
    morse = "\n".join(f"pair_coeff {i} {j} {{style}} {i + j}.0 0.3 3.0" for i, j in pairs)
    system = {"triclinic": systems["triclinic"]}
    alone = measure(tmp_path, model, system, ranks=ranks, style="morse 4.0", coeff=morse.format(style=""))
    both = measure(
        tmp_path,
        model,
        system,
        ranks=ranks,
        style="hybrid/overlay mace/quant morse 4.0",
        coeff=f"pair_coeff * * mace/quant {model} H C O\n" + morse.format(style="morse"),
    )
    alone, both = alone["triclinic"], both["triclinic"]
    mace = expected["triclinic"]
    total = Result(
        alone.energy + mace.energy,
        alone.volume,
        alone.pressure + mace.pressure,
        alone.forces + mace.forces,
        alone.energies + mace.energies,
        alone.stresses + mace.stresses,
    )
    assert largest(alone.forces) > 1e-3  # the other style does something
    assert_same(both, total)


@pytest.mark.parametrize("ranks", [1, 2])
def test_atoms_of_a_null_type_are_not_seen(model, systems, tmp_path, ranks):
    atoms = systems["orthogonal"].atoms
    with_helium = atoms.copy()
    with_helium.symbols[[3, 20]] = "He"
    without = atoms.copy()
    del without[[3, 20]]
    result = measure(
        tmp_path,
        model,
        {"helium": System(with_helium, "p p p")},
        ("He", *ELEMENTS),
        ranks,
        style="hybrid/overlay mace/quant zero 4.0",
        coeff=f"pair_coeff * * mace/quant {model} NULL H C O\npair_coeff * * zero",
    )["helium"]
    reference = evaluate_in_ase(System(without, "p p p"), mdplugin.MACEQuantCalculator(model))
    assert abs(result.energy - reference.energy) <= ENERGY_BOUND * len(without)
    assert largest(np.delete(result.forces, [3, 20], axis=0) - reference.forces) <= FORCE_BOUND
    assert largest(result.forces[[3, 20]]) == 0.0
    assert largest(result.energies[[3, 20]]) == 0.0


def test_options_change_no_number(model, systems, expected, tmp_path):
    style = "mace/quant threads 2 device cpu"
    assert_same(measure(tmp_path, model, {"slab": systems["slab"]}, style=style)["slab"], expected["slab"])


def test_the_log_says_what_is_served(artifacts, systems, tmp_path):
    path = artifacts["organic", "fp32"]
    measure(tmp_path, path, {"molecule": systems["molecule"]})
    banner = f"mace/quant: {path} precision fp32, elements H C O, trained float64, not validated\n"
    assert (tmp_path / "log.lammps").read_text().count(banner) == 1


IN_ONE_PROCESS = """
import json, sys
data, model, library, with_torch = sys.argv[1:]
report = {}

def loaded():
    return "libtorch_cpu" in open("/proc/self/maps").read()

if with_torch == "first":
    import ase, torch, mdplugin
    calculator = mdplugin.MACEQuantCalculator(model)
    report["ase"] = ase.Atoms("CO", [[0, 0, 0], [0, 0, 1.2]], calculator=calculator).get_potential_energy()
    torch.set_grad_enabled(False)
from lammps import lammps
engine = lammps(cmdargs=["-screen", "none", "-log", "none"])
engine.command("plugin unload pair mace/quant")
engine.command(f"plugin load {library}")
report["torch before pair_coeff"] = loaded()
engine.commands_string(f'''
units metal
atom_style atomic
boundary f f f
read_data {data}
pair_style mace/quant
pair_coeff * * {model} C O
run 0 post no
''')
report["torch after pair_coeff"] = loaded()
report["lammps"] = engine.get_thermo("pe")
if with_torch == "first":
    report["untouched"] = [str(torch.get_default_dtype()), torch.is_grad_enabled()]
engine.close()
print("report", json.dumps(report))
"""


def run_in_one_process(directory, model, library, with_torch) -> dict:
    atoms = ase.Atoms("CO", [[9.0, 9.0, 9.0], [9.0, 9.0, 10.2]], cell=np.diag([18.0] * 3))
    write_data(atoms, directory / "data", ("C", "O"))
    done = run([sys.executable, "-c", IN_ONE_PROCESS, "data", model, library, with_torch], directory)
    assert done.returncode == 0, done.stdout
    return json.loads(done.stdout.partition("report")[2])


def test_python_drives_lammps_and_torch_is_loaded_by_pair_coeff(model, tmp_path):
    report = run_in_one_process(tmp_path, model, native.library_directory() / native.PLUGIN_LIBRARY, "never")
    assert not report["torch before pair_coeff"]
    assert report["torch after pair_coeff"]


@pytest.mark.parametrize("place", ["own", "copied"])
def test_ase_and_lammps_share_a_process_and_its_libraries(model, tmp_path, place):
    # torch ends a process that loads a second copy of an op library: the plugin has to use the first
    directory = native.library_directory()
    if place == "copied":
        directory = shutil.copytree(directory, tmp_path / "copy")
    report = run_in_one_process(tmp_path, model, directory / native.PLUGIN_LIBRARY, "first")
    assert abs(report["lammps"] - report["ase"]) <= ENERGY_BOUND
    assert report["untouched"] == ["torch.float32", False]
