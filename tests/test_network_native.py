"""The native network on our kernels is the plain float64 reference, on every architecture of the matrix."""

import ase
import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, build, build_from, lowered, save, save_from
from edges_of import frames, inputs

import mdplugin
from mdplugin import reference
from mdplugin.errors import CheckpointError, Unsupported
from mdplugin.lowering import lower
from mdplugin.network_native import NativeNetwork, build_native, tabulate_layers
from mdplugin.precision import Precision

BASES = [Precision.parse("fp64"), Precision.parse("fp32")]
NO_KERNEL = {name for name in ARCHITECTURES if "nonlinear" in name}

# Kernel and reference evaluate the same tables in the same type, in another order of summation: sums of up to
# 1e3 terms of the size of the result, amplified by cancellation between edges (test_symmetry.py).
ROUNDING = {torch.float64: 1e-11, torch.float32: 1e-3}
# Issue "Engine": eV/atom, and forces relative to max(1 eV/Å, largest force)
ENERGY_BOUND = {torch.float64: 1e-8, torch.float32: 1e-5}
FORCE_BOUND = {torch.float64: 1e-7, torch.float32: 1e-4}


def run(network, arguments, n_local):
    with torch.no_grad(), torch.jit.optimized_execution(False):
        return network(*arguments, n_local)


def worst_difference(result, expected, n_atoms):
    """Energy per atom, relative to the largest reference energy above 1 eV, and edge forces likewise above 1 eV/Å."""
    energy = (result[0] - expected[0]).abs().max() / max(1.0, expected[0].abs().max())
    if not len(expected[1]):
        return float(energy), 0.0
    return float(energy), float((result[1] - expected[1]).abs().max() / max(1.0, expected[1].abs().max()))


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - NO_KERNEL))
def test_native_network_is_the_reference(name):
    model = lowered(name)
    for precision in BASES:
        dtype = precision.dtype
        tables, _ = tabulate_layers(model, precision)
        network = torch.jit.script(NativeNetwork(model, tables, precision))
        for frame in frames(model.atomic_numbers):
            arguments, n = inputs(model, frame), len(frame)
            result = run(network, arguments, n)
            exact = reference.evaluate(model, *arguments, n)
            energy, force = worst_difference(result, exact, n)
            assert energy <= ENERGY_BOUND[dtype]
            assert force <= FORCE_BOUND[dtype]
            if dtype == torch.float64:  # the kernels alone, without the tables' own error
                energy, force = worst_difference(
                    result, reference.evaluate(model, *arguments, n, tables=tables), n
                )
                assert energy <= ROUNDING[dtype]
                assert force <= ROUNDING[dtype]


@pytest.mark.parametrize("name", sorted(NO_KERNEL))
def test_what_has_no_kernel_is_refused_by_name(name):
    with pytest.raises(Unsupported, match="RealAgnosticResidualNonLinearInteractionBlock"):
        build_native(build(name), Precision.parse("fp32"))


def test_tables_of_too_many_species_pairs_are_refused(monkeypatch):
    monkeypatch.setattr("mdplugin.network_native.LARGEST_TABLE_BYTES", 10_000)
    with pytest.raises(Unsupported, match="room for the radial tables of 3 species pairs"):
        build_native(build("agnesi"), Precision.parse("fp32"))


@pytest.mark.parametrize("channels", [1, 7, 16, 96, 128, 130])
def test_any_number_of_channels(channels, tmp_path):
    irreps = f"{channels}x0e+{channels}x1o"
    model = lower(build_from(tmp_path / "c.model", hidden_irreps=irreps, max_ell=2, correlation=2))
    frame = frames((1, 8))[0]
    arguments, n = inputs(model, frame), len(frame)
    for precision in BASES:
        dtype = precision.dtype
        tables, _ = tabulate_layers(model, precision)
        result = run(torch.jit.script(NativeNetwork(model, tables, precision)), arguments, n)
        energy, force = worst_difference(result, reference.evaluate(model, *arguments, n), n)
        assert energy <= ENERGY_BOUND[dtype] and force <= FORCE_BOUND[dtype]


@pytest.fixture(scope="module")
def plain():
    """The model of "plain-residual" and its float64 network."""
    model, precision = lowered("plain-residual"), Precision.parse("fp64")
    return model, torch.jit.script(NativeNetwork(model, tabulate_layers(model, precision)[0], precision))


@pytest.mark.parametrize("n_atoms", [1, 2, 3, 19, 40])
def test_no_edge_one_pair_and_more_than_a_batch_of_edges(plain, n_atoms):
    # from 0 edges over 2 to 39 per receiver: fewer and more than the 16 that a kernel takes together
    model, network = plain
    positions = np.random.default_rng(n_atoms).uniform(0, 0.75 * n_atoms ** (1 / 3), size=(n_atoms, 3)) * 2.0
    frame = ase.Atoms([1, 8] * (n_atoms // 2) + [8] * (n_atoms % 2), positions=positions)
    arguments = inputs(model, frame)
    energy, force = worst_difference(
        run(network, arguments, n_atoms), reference.evaluate(model, *arguments, n_atoms), n_atoms
    )
    assert energy <= 1e-8 and force <= 1e-7


def test_results_are_bitwise_the_same_for_any_number_of_threads(artifacts, water_frames):
    artifact = mdplugin.load(artifacts["water", "fp32", "native"])
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            calculator = mdplugin.MACEQuantCalculator(artifact, skin=0)
            calculator.calculate(water_frames[0], ["forces"])
            results.append(calculator.results)
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        assert result["energy"] == results[0]["energy"]
        assert np.array_equal(result["forces"], results[0]["forces"])


# every network that mace-torch builds without a kernel of ours, and why
FALL_BACK = {
    "nonlinear": "kernel for RealAgnosticResidualNonLinearInteractionBlock",
    "nonlinear-edge-irreps": "kernel for RealAgnosticResidualNonLinearInteractionBlock",
    "density-nonlinear": "kernel for RealAgnosticResidualNonLinearInteractionBlock",
    "jump": "apply_cutoff True with RealAgnosticResidualNonLinearInteractionBlock",
}


@pytest.mark.parametrize("name", FALL_BACK)
def test_a_network_without_a_kernel_runs_on_mace_torchs_blocks_and_says_why(tmp_path, name):
    head = ARCHITECTURES.get(name, {}).get("head")
    source = save(name) if name in ARCHITECTURES else save_jump(tmp_path / "jump.model")
    target = tmp_path / "a.pt"
    with pytest.warns(UserWarning, match=f"backend e3nn, since native has no {FALL_BACK[name]}"):
        manifest = mdplugin.export_model(source, target, "fp64", head=head)  # refused unless it is mace-torch
    assert manifest.backend == "e3nn" and manifest.fidelity["force_eV_per_A"] <= 1e-8
    target.unlink()
    with pytest.raises(Unsupported, match=FALL_BACK[name]):
        mdplugin.export_model(source, target, "fp64", head=head, backend="native")
    assert not target.exists()


def save_jump(path):
    block = "RealAgnosticResidualNonLinearInteractionBlock"
    return save_from(path, first=block, later=block, apply_cutoff=True)


def test_a_block_that_neither_serves_is_refused_by_name(tmp_path):
    block = "RealAgnosticAttResidualInteractionBlock"  # mace-torch annotates it wrongly for TorchScript
    source = save_from(tmp_path / "a.model", later=block, max_ell=1, correlation=1)
    with (
        pytest.warns(UserWarning, match="since native has no interaction: .* got RealAgnosticAtt"),
        pytest.raises(CheckpointError, match=f"TorchScript cannot compile this network of {block} and"),
    ):
        mdplugin.export_model(source, tmp_path / "a.pt")
    assert not (tmp_path / "a.pt").exists()
