"""The lowered model, evaluated by the plain reference, is mace-torch: on every architecture of the matrix."""

import copy
import dataclasses
import inspect

import ase
import numpy as np
import pytest
import torch
from architectures import ARCHITECTURES, build, build_from, lowered
from edges_of import Result, evaluate_frame, frames

from mdplugin.checkpoint import _mace, evaluate_mace
from mdplugin.errors import CheckpointError, Unsupported
from mdplugin.lowering import lower

# Issue "Engine": energy eV/atom, forces eV/Å and stress eV/Å³ relative to max(1, largest force)
ENERGY_BOUND, FORCE_BOUND = 1e-8, 1e-7
# float64 rounding of sums of ~1e3 terms of order max(1, |E|); float32-trained networks keep couplings that
# mace-torch rounded to float32 (6e-8), ours are exact: their agreement is bounded by that instead
ROUNDING_BOUND = 1e-11


def worst_errors(result: Result, reference) -> tuple[float, float, float]:
    scale = max(1.0, np.abs(reference.forces).max())
    stress = 0.0 if reference.stress is None else np.abs(result.stress - reference.stress).max()
    energies = np.abs(result.energies - reference.energies).max()
    return energies, np.abs(result.forces - reference.forces).max() / scale, stress / scale


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_the_lowered_network_is_mace_torch_in_float64(name):
    checkpoint = build(name)
    model = lower(checkpoint)
    atoms = frames(checkpoint.atomic_numbers)
    for frame, reference in zip(atoms, evaluate_mace(checkpoint, atoms), strict=True):
        energy, force, stress = worst_errors(evaluate_frame(model, frame), reference)
        exact = checkpoint.trained_dtype == "float64"
        assert energy <= (ROUNDING_BOUND if exact else ENERGY_BOUND)
        assert force <= (ROUNDING_BOUND if exact else FORCE_BOUND)
        assert stress <= (ROUNDING_BOUND if exact else FORCE_BOUND)


def test_reduced_couplings_are_read_as_the_checkpoint_has_them():
    """use_reduced_cg needs cuequivariance, absent here; its effect is another set of columns of U, made by hand."""
    checkpoint = build("full-couplings")
    network = copy.deepcopy(checkpoint.network)
    generator = torch.Generator().manual_seed(5)
    for product in network.products:
        for contraction in product.symmetric_contractions.contractions:
            for degree, W in ((3, contraction.weights_max), (2, contraction.weights[0])):
                U = getattr(contraction, f"U_matrix_{degree}")
                mix = torch.randn(U.shape[-1], 2, generator=generator, dtype=torch.float64)
                symmetric = sum(U.transpose(-2, k) for k in range(U.dim() - 1 - degree, U.dim() - 1))
                setattr(contraction, f"U_matrix_{degree}", (symmetric @ mix).contiguous())
                W.data = W.data[:, :2].contiguous()
    changed = dataclasses.replace(checkpoint, network=network)
    model = lower(changed)
    assert all(t.n_paths <= 2 for layer in model.layers for t in layer.contraction.terms if t.degree > 1)
    atoms = frames(checkpoint.atomic_numbers)
    for frame, reference in zip(atoms, evaluate_mace(changed, atoms), strict=True):
        assert max(worst_errors(evaluate_frame(model, frame), reference)) <= ROUNDING_BOUND


@pytest.mark.parametrize("name", ["chebyshev"])
def test_forces_are_the_gradient_where_mace_torch_has_none(name):
    """torch's chebyshev_polynomial_t has no derivative: mace-torch's forces miss that term, its energy is right."""
    checkpoint = build(name)
    model = lower(checkpoint)
    frame = frames(checkpoint.atomic_numbers)[1]
    direction = np.random.default_rng(0).standard_normal((len(frame), 3))
    h = 1e-4
    moved = [frame.copy() for _ in range(4)]
    for image, step in zip(moved, (-2, -1, 1, 2), strict=True):
        image.positions += step * h * direction
    reference, *energies = [e.energy for e in evaluate_mace(checkpoint, [frame, *moved])]
    slope = (energies[0] - 8 * energies[1] + 8 * energies[2] - energies[3]) / (12 * h)
    result = evaluate_frame(model, frame)
    assert abs(result.energies.sum() - reference) <= ENERGY_BOUND
    # differences of energies of order 100 eV, rounded to 1e-14 each, over 1e-4 Å; truncation is h^4
    assert abs(-(result.forces * direction).sum() - slope) <= 1e-8 * max(1.0, np.abs(result.forces).max())


@pytest.mark.parametrize("name", ["plain-residual", "foundation-0b", "agnostic-product", "soft"])
def test_keeping_some_elements_changes_no_number(name):
    checkpoint = build(name)
    kept = tuple(reversed(checkpoint.atomic_numbers))[:2]
    frame = frames(kept)[0]
    full, part = (evaluate_frame(lower(checkpoint, elements), frame) for elements in (None, kept))
    assert np.abs(full.energies - part.energies).max() <= ROUNDING_BOUND
    assert np.abs(full.forces - part.forces).max() <= ROUNDING_BOUND


def test_eighty_nine_elements_are_told_apart():
    checkpoint = build("many-elements")
    frame = ase.Atoms([89, 1, 47, 2], positions=[[0, 0, 0], [2.0, 0, 0], [0, 2.1, 0.3], [1.5, 1.4, 1.0]])
    (reference,) = evaluate_mace(checkpoint, [frame])
    assert max(worst_errors(evaluate_frame(lower(checkpoint), frame), reference)) <= ROUNDING_BOUND


def test_lowering_leaves_the_checkpoint_and_its_arrays_alone():
    checkpoint = build("foundation-0b")
    before = {name: value.clone() for name, value in checkpoint.network.state_dict().items()}
    model = lower(checkpoint)
    model.layers[0].message.weights[0].matrix.zero_()
    after = checkpoint.network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_array_of_the_model_is_float64_or_an_index():
    def walk(value):
        if isinstance(value, torch.Tensor):
            assert value.dtype in (torch.float64, torch.int64) and not value.requires_grad
            assert torch.isfinite(value).all()
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                walk(getattr(value, field.name))
        elif isinstance(value, tuple):
            for item in value:
                walk(item)

    for name in ("foundation-0b", "float32", "edge-irreps", "three-heads-bias"):
        walk(lowered(name))


# --- what is refused --------------------------------------------------------------------------------------------

# every argument of mace-torch 0.3.16's MACE and ScaleShiftMACE: lowered for any value the matrix covers, or refused
LOWERED = {
    "r_max", "num_bessel", "num_polynomial_cutoff", "max_ell", "interaction_cls", "interaction_cls_first",
    "num_interactions", "num_elements", "hidden_irreps", "MLP_irreps", "atomic_energies", "avg_num_neighbors",
    "atomic_numbers", "correlation", "gate", "pair_repulsion", "apply_cutoff", "use_reduced_cg", "use_so3",
    "use_agnostic_product", "use_last_readout_only", "distance_transform", "edge_irreps", "use_edge_irreps_first",
    "radial_MLP", "radial_type", "heads", "lammps_mliap", "readout_cls", "keep_last_layer_irreps",
    "atomic_inter_scale", "atomic_inter_shift",
}  # fmt: skip
REFUSED = {
    "embedding_specs",
    "use_embedding_readout",
    "cueq_config",
    "oeq_config",
}  # test_reading.py shows how


def test_every_constructor_argument_is_lowered_or_refused():
    with _mace() as mace:
        classes = (mace.modules.MACE, mace.modules.ScaleShiftMACE)
        arguments = {name for cls in classes for name in inspect.signature(cls.__init__).parameters}
    assert arguments - {"self", "kwargs"} == LOWERED | REFUSED
    assert not LOWERED & REFUSED


def test_the_matrix_varies_every_argument_in_a_network_that_our_kernels_serve():
    fixed = {"r_max", "num_elements", "atomic_energies", "avg_num_neighbors", "lammps_mliap"}
    named = {"interaction_cls": "later", "interaction_cls_first": "first"}
    # test_network_native.py runs all of these on the kernels
    varied = {key for name, settings in ARCHITECTURES.items() if "nonlinear" not in name for key in settings}
    always = {"atomic_inter_scale", "atomic_inter_shift"}  # by every ScaleShiftMACE
    assert {named.get(name, name) for name in LOWERED - fixed - always} <= varied


def refused(network_change, match):
    """Lowering a changed copy of a network is refused with a message that names the part."""
    checkpoint = build("plain-residual")
    network = copy.deepcopy(checkpoint.network)
    network_change(network)
    with pytest.raises(Unsupported, match=match):
        lower(dataclasses.replace(checkpoint, network=network))


class Foreign(torch.nn.Module):
    """Stands for a module that is not mace-torch's own."""


@pytest.mark.parametrize("part", ["linear_up", "conv_tp", "linear", "skip_tp"])
def test_converted_or_adapted_parts_of_an_interaction_are_refused_by_name(part):
    refused(lambda network: setattr(network.interactions[1], part, Foreign()), part)


def test_a_converted_contraction_is_refused_by_name():
    refused(lambda n: setattr(n.products[0], "symmetric_contractions", Foreign()), "symmetric_contractions")


def test_a_fused_convolution_is_refused_by_name():
    refused(lambda network: setattr(network.interactions[0], "conv_fusion", "atomic"), "conv_fusion")


def test_a_network_with_other_inputs_is_refused_by_name():
    def embed(network):
        network.joint_embedding = Foreign()
        network.embedding_specs = {"total_charge": {}}

    refused(embed, "total_charge")


def test_unknown_classes_of_basis_transform_readout_and_gate_are_refused_by_name():
    refused(lambda n: setattr(n.radial_embedding, "bessel_fn", Foreign()), "radial_type.*Foreign")
    refused(
        lambda n: setattr(n.radial_embedding, "distance_transform", Foreign()), "distance_transform.*Foreign"
    )
    refused(lambda n: n.readouts.__setitem__(1, Foreign()), "readout.*Foreign")
    refused(lambda n: setattr(n.readouts[1].non_linearity.acts[0], "f", torch.relu), "gate.*relu")
    refused(lambda n: setattr(n.interactions[0].conv_tp_weights.layer0.act, "f", torch.relu), "silu")


def test_nonlinear_blocks_whose_messages_jump_at_the_cutoff_are_refused(tmp_path):
    block = "RealAgnosticResidualNonLinearInteractionBlock"
    checkpoint = build_from(tmp_path / "jump.model", first=block, later=block, apply_cutoff=True)
    with pytest.raises(Unsupported, match="apply_cutoff"):
        lower(checkpoint)


def test_a_network_without_readouts_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="the network has no readouts"):
        build_from(tmp_path / "none.model", use_last_readout_only=True, num_interactions=1)
    checkpoint = build("one-layer")
    network = copy.deepcopy(checkpoint.network)
    del network.readouts[0]
    with pytest.raises(Unsupported, match="readouts"):
        lower(dataclasses.replace(checkpoint, network=network))


@pytest.mark.parametrize("block", ["RealAgnosticAttResidualInteractionBlock"])
def test_other_interaction_blocks_are_refused_by_name(tmp_path, block):
    checkpoint = build_from(tmp_path / "other.model", first=block, later=block)
    with pytest.raises(Unsupported, match=block):
        lower(checkpoint)


def test_elements_the_network_does_not_know_are_refused():
    with pytest.raises(Unsupported, match=r"\[1, 8\], got \[6\]"):
        lower(build("plain-residual"), elements=(6,))
