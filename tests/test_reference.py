"""Each stage of the plain reference against e3nn and mace-torch, each reverse against autograd."""

import copy
import dataclasses

import pytest
import torch
from architectures import build, lowered

from mdplugin import reference
from mdplugin.checkpoint import _mace
from mdplugin.couplings import wigner_3j
from mdplugin.errors import Unsupported
from mdplugin.lowering import lower
from mdplugin.model import Layout
from mdplugin.radial import evaluate_density, evaluate_radial

ROUNDING = 1e-12  # float64 sums of up to 1e3 terms of order 1


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(a, b, bound=ROUNDING):
    return float((a - b).abs().max()) <= bound * max(1.0, float(b.abs().max()))


def rows_of(features, irreps, layout: Layout):
    """e3nn's flat (mul, m) features as our (row, channel) ones."""
    out = features.new_zeros((features.shape[0], layout.n_rows, layout.channels))
    seen: dict[int, int] = {}
    for (mul, ir), part in zip(irreps, irreps.slices(), strict=True):
        block = layout.find(ir.l, ir.p)
        copy = seen.get(block, 0)
        seen[block] = copy + 1
        values = features[:, part].reshape(-1, mul, 2 * ir.l + 1).transpose(1, 2)
        rows = [layout.row(block, m, copy) for m in range(2 * ir.l + 1)]
        out[:, rows, :mul] = values
    return out


def check_reverse(forward, arguments, reverse):
    """reverse(g) returns the same gradients as autograd through `forward`, for every argument."""
    leaves = [a.clone().requires_grad_() for a in arguments]
    output = forward(*leaves)
    g = random(*output.shape, seed=9)
    for found, expected in zip(reverse(g), torch.autograd.grad(output, leaves, g), strict=True):
        assert close(found, expected)


# --- geometry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("l_max", [0, 1, 4, 7])
def test_spherical_harmonics_are_those_of_e3nn(l_max):
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    vectors = torch.cat([random(20, 3), axes])
    with _mace():
        from e3nn import o3

        expected = o3.spherical_harmonics(
            list(range(l_max + 1)), vectors, normalize=True, normalization="component"
        )
    _, _, Y = reference.edge_geometry(vectors, l_max)
    assert close(Y, expected)


def test_reverse_of_the_edge_geometry():
    vectors = random(12, 3)
    r, unit, Y = reference.edge_geometry(vectors, 4)
    g = random(*Y.shape, seed=1)
    gr = random(12, seed=2)
    leaf = vectors.clone().requires_grad_()
    r_leaf, _, Y_leaf = reference.edge_geometry(leaf, 4)
    (expected,) = torch.autograd.grad((Y_leaf * g).sum() + (r_leaf * gr).sum(), leaf)
    assert close(reference.reverse_edge_geometry(r, unit, 4, gr, g), expected)


def test_couplings_are_those_of_e3nn():
    with _mace():
        from e3nn import o3

    for l1 in range(12):
        for l2 in range(5):
            for l3 in range(abs(l1 - l2), min(l1 + l2, 11) + 1):
                expected = o3.wigner_3j(l1, l2, l3, dtype=torch.float64)
                assert close(wigner_3j(l1, l2, l3), expected, 1e-14), (l1, l2, l3)


# --- radial functions -------------------------------------------------------------------------------------------

RADIAL = ["plain-residual", "gaussian", "agnesi", "soft", "cutoff-after", "cutoff-order-2-shallow-mlp"]


@pytest.mark.parametrize("name", [*RADIAL, "chebyshev"])
def test_radial_functions_are_those_of_mace_torch(name):
    checkpoint = build(name)
    network, model = checkpoint.network, lowered(name)
    layer, interaction = model.layers[1], network.interactions[1]
    r = torch.linspace(0.3, 1.05 * model.r_max, 40, dtype=torch.float64)
    species = torch.arange(40) % len(model.atomic_numbers)
    one_hot = torch.nn.functional.one_hot(torch.stack([species, species.flip(0)]).flatten(), 2).double()
    edges = torch.stack([torch.arange(40), torch.arange(40) + 40])
    e, cutoff = network.radial_embedding(r[:, None], one_hot, edges, network.atomic_numbers)
    expected = interaction.conv_tp_weights(e) * (1 if cutoff is None else cutoff)
    pair = model.basis.pairs[species, species.flip(0)]
    found = evaluate_radial(model.basis, layer.convolution.radial, r, pair)
    order = path_order(interaction.conv_tp, layer.convolution)
    assert close(found.f, expected.unflatten(1, (len(order), -1))[:, order].flatten(1))
    if layer.convolution.density is not None:
        expected = torch.tanh(interaction.density_fn(e) ** 2) * (1 if cutoff is None else cutoff)
        assert close(evaluate_density(model.basis, layer.convolution.density, r, pair).f, expected)


def path_order(conv_tp, convolution):
    """Positions of our paths in e3nn's list of instructions (all irreps of these networks have one copy)."""
    keys = [
        (conv_tp.irreps_in1[i.i_in1].ir.l, i.i_in2, conv_tp.irreps_out[i.i_out].ir.l)
        for i in conv_tp.instructions
    ]
    return [keys.index((p.l1, p.l2, p.l3)) for p in convolution.paths]


@pytest.mark.parametrize("name", [*RADIAL, "chebyshev", "nonlinear"])
def test_radial_derivatives_are_those_of_autograd(name):
    model = lowered(name)
    convolution = model.layers[1].convolution
    r = torch.linspace(0.3, 0.999 * model.r_max, 30, dtype=torch.float64)
    pair = torch.arange(30) % model.basis.n_pairs
    parts = [(evaluate_radial, convolution.radial)]
    parts += [(evaluate_density, convolution.density)] if convolution.density is not None else []
    for function, mlp in parts:
        jet = function(model.basis, mlp, r, pair)
        for value, derivative in ((0, jet.d1), (1, jet.d2)):
            _, expected = torch.func.jvp(lambda x, f=function, m=mlp, k=value: f(model.basis, m, x, pair)[k], (r,),
                                         (torch.ones_like(r),))  # fmt: skip
            assert close(derivative, expected, 1e-11)


@pytest.mark.parametrize("name", ["plain-residual", "agnesi", "soft", "gaussian"])
def test_radial_functions_are_finite_and_smooth_down_to_zero_distance(name):
    model = lowered(name)
    r = torch.tensor([0.0, 1e-6, 0.0099999, 0.0100001], dtype=torch.float64)
    jet = evaluate_radial(
        model.basis, model.layers[1].convolution.radial, r, torch.zeros(4, dtype=torch.int64)
    )
    for values in jet:
        assert torch.isfinite(values).all()
        # across the switch to the series: the step 2e-7 Å times a slope of at most 1e3, plus cancellation
        assert float((values[2] - values[3]).abs().max()) <= 1e-3 * float(values.abs().max() + 1)


# --- convolution, density, linear -------------------------------------------------------------------------------

CONVOLUTIONS = ["plain-residual", "l-max-4", "hidden-l3", "both-parities", "edge-irreps", "so3"]


def convolution_inputs(convolution, n_edges=15, n_nodes=5, n_local=4):
    generator = torch.Generator().manual_seed(4)
    senders = torch.randint(n_nodes, (n_edges,), generator=generator)
    receivers = (
        torch.randint(n_local - 1, (n_edges,), generator=generator).sort().values
    )  # the last has no neighbour
    R = random(n_edges, len(convolution.paths) * convolution.source.channels, seed=5)
    u = random(n_nodes, convolution.source.n_rows, convolution.source.channels, seed=6)
    return R, random(n_edges, (convolution.l_max + 1) ** 2, seed=7), u, senders, receivers, n_local


@pytest.mark.parametrize("name", ["plain-residual", "l-max-4", "hidden-l3", "both-parities", "so3"])
def test_convolution_and_message_are_those_of_mace_torch(name):
    checkpoint = build(name)
    interaction, layer = checkpoint.network.interactions[1], lowered(name).layers[1]
    convolution, tp = layer.convolution, interaction.conv_tp
    R, Y, _, senders, receivers, n_local = convolution_inputs(convolution)
    flat_u = random(5, tp.irreps_in1.dim, seed=8)
    weights = torch.zeros_like(R)
    for k, path in enumerate(convolution.paths):
        (ins,) = [
            i
            for i, instruction in enumerate(tp.instructions)
            if tp.irreps_in1[instruction.i_in1].ir == (path.l1, convolution.source.blocks[path.source].parity)
            and tp.irreps_in2[instruction.i_in2].ir.l == path.l2
            and tp.irreps_out[instruction.i_out].ir.l == path.l3
        ]
        mul = convolution.source.channels
        weights[:, ins * mul : (ins + 1) * mul] = R[:, k * mul : (k + 1) * mul]
    edge_messages = tp(flat_u[senders], Y, weights)
    message = torch.zeros(n_local, tp.irreps_out.dim, dtype=torch.float64).index_add(
        0, receivers, edge_messages
    )
    expected = interaction.linear(message) / interaction.avg_num_neighbors
    u = rows_of(flat_u, tp.irreps_in1, convolution.source)
    A = reference.convolve(convolution, R, Y, u, senders, receivers, n_local)
    found = reference.linear(layer.message, A, torch.zeros(n_local, dtype=torch.int64))
    assert close(found, rows_of(expected, interaction.irreps_out, layer.message.target))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_reverse_of_the_convolution(name):
    convolution = lowered(name).layers[1].convolution
    R, Y, u, *where = convolution_inputs(convolution)
    check_reverse(
        lambda R, Y, u: reference.convolve(convolution, R, Y, u, *where),
        (R, Y, u),
        lambda g: reference.reverse_convolve(convolution, R, Y, u, *where[:2], g),
    )


def test_a_convolution_without_edges_is_zero():
    convolution = lowered("plain-residual").layers[1].convolution
    R, Y, u, senders, receivers, n_local = convolution_inputs(convolution, n_edges=0)
    A = reference.convolve(convolution, R, Y, u, senders, receivers, n_local)
    assert A.shape == (n_local, convolution.target.n_rows, convolution.target.channels)
    assert not A.any()


@pytest.mark.parametrize("name", ["nonlinear", "nonlinear-edge-irreps"])
def test_reverse_of_the_gate(name):
    layer = lowered(name).layers[1]
    target, source = layer.message.target, layer.convolution.source
    y, u = random(3, target.n_rows, target.channels), random(3, source.n_rows, source.channels, seed=1)
    check_reverse(
        lambda y, u: reference.gate_message(layer.gate, y, u),
        (y, u),
        lambda g: reference.reverse_gate_message(layer.gate, y, u, g),
    )


def test_reverse_of_the_density_normalisation():
    y, rho = random(4, 9, 3), random(4, seed=1).abs()
    check_reverse(
        reference.normalise,
        (y, rho),
        lambda g: reference.reverse_normalise(reference.normalise(y, rho), rho, g),
    )
    receivers = torch.tensor([0, 0, 2, 3, 3])
    check_reverse(
        lambda d: reference.density_sum(d, receivers, 5),
        (random(5, 1),),
        lambda g: (reference.reverse_density_sum(g, receivers),),
    )


@pytest.mark.parametrize("name", ["residual-residual", "four-layers-density", "edge-irreps", "plain-plain"])
def test_reverse_of_the_linear_maps(name):
    model = lowered(name)
    z = torch.tensor([1, 0, 0, 1])
    for t, layer in enumerate(model.layers):
        source = layer.message.source
        check_reverse(
            lambda x, m=layer.message: reference.linear(m, x, z),
            (random(4, source.n_rows, source.channels),),
            lambda g, m=layer.message: (reference.reverse_linear(m, g, z),),
        )
        B = [
            random(4, la.contraction.target.n_rows, la.contraction.target.channels) for la in model.layers[:t]
        ]
        used = [s for s in range(t) if layer.up.maps[s] is not None]
        if used:
            check_reverse(
                lambda *B_used, m=layer.up, B=B, used=used: reference.node_map(
                    m, _replace(B, used, B_used), z
                ),
                [B[s] for s in used],
                lambda g, m=layer.up, used=used: [reference.reverse_node_map(m, g, z)[s] for s in used],
            )


def _replace(items, positions, values):
    items = list(items)
    for position, value in zip(positions, values, strict=True):
        items[position] = value
    return items


# --- contraction and readout ------------------------------------------------------------------------------------

CONTRACTIONS = ["plain-residual", "hidden-l2", "l-max-4", "correlation-1", "correlation-4", "both-parities",
                "agnostic-product", "so3", "three-layers"]  # fmt: skip


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_contraction_is_that_of_mace_torch(name):
    checkpoint, model = build(name), lowered(name)
    for layer, product in zip(model.layers, checkpoint.network.products, strict=True):
        source, block = layer.contraction.source, product.symmetric_contractions
        m, z = random(4, source.n_rows, source.channels), torch.tensor([1, 0, 0, 1])
        reached = {w.target for w in layer.message.weights}
        for b in set(range(len(source.blocks))) - reached:
            m[:, source.offsets[b] : source.offsets[b + 1]] = 0  # no path of this network leads there
        one_hot = torch.nn.functional.one_hot(z, 2).double()
        one_hot = torch.ones(4, 1, dtype=torch.float64) if product.use_agnostic_product else one_hot
        expected = block(m.transpose(1, 2), one_hot)
        found = reference.contract(layer.contraction, m, z)
        assert close(found, rows_of(expected, block.irreps_out, layer.contraction.target))


@pytest.mark.parametrize("name", CONTRACTIONS)
def test_reverse_of_the_contraction(name):
    contraction = lowered(name).layers[0].contraction
    m, z = random(4, contraction.source.n_rows, contraction.source.channels), torch.tensor([1, 0, 0, 1])
    check_reverse(
        lambda m: reference.contract(contraction, m, z),
        (m,),
        lambda g: (reference.reverse_contract(contraction, m, z, g),),
    )


def test_monomials_are_unique_and_ascending_and_paths_independent():
    for name in CONTRACTIONS:
        for layer in lowered(name).layers:
            for term in layer.contraction.terms:
                assert (term.monomials.diff(dim=1) >= 0).all()
                assert len(torch.unique(term.monomials, dim=0)) == len(term.monomials)
                n_m = int(term.indices[:, 1].max()) + 1
                U = torch.zeros(len(term.monomials), n_m, term.n_paths, dtype=torch.float64)
                U[tuple(term.indices.T)] = term.values
                assert torch.linalg.matrix_rank(U.flatten(0, 1)) == term.n_paths


@pytest.mark.parametrize("name", ["hidden-l2", "both-parities", "correlation-4", "so3"])
def test_couplings_rounded_to_float32_keep_their_values_and_paths(name):
    """That they are exactly equivariant again shows in the rotation test, on "float32"."""
    checkpoint = build(name)
    rounded = copy.deepcopy(checkpoint.network)
    for buffer_name, buffer in rounded.named_buffers():
        if "U_matrix" in buffer_name:
            buffer.copy_(buffer.float())
    found = lower(dataclasses.replace(checkpoint, network=rounded))
    for layer, exact in zip(found.layers, lowered(name).layers, strict=True):
        source = layer.contraction.source
        m, z = random(4, source.n_rows, source.channels), torch.tensor([1, 0, 0, 1])
        B, expected = (reference.contract(c, m, z) for c in (layer.contraction, exact.contraction))
        assert close(B, expected, 1e-6)  # the weights of the paths absorb the rounding
        terms = list(zip(layer.contraction.terms, exact.contraction.terms, strict=True))
        assert all(
            float(term.values.abs().max()) > 1e-3 for _, term in terms
        )  # no cancelled couplings are kept
        assert all(found_term.n_paths == term.n_paths for found_term, term in terms)


def test_couplings_that_are_not_equivariant_are_refused():
    checkpoint = build("hidden-l2")
    broken = copy.deepcopy(checkpoint.network)
    broken.products[0].symmetric_contractions.contractions[1].U_matrix_2[0, 0, 0, 0] += 1e-9
    with pytest.raises(Unsupported, match="not equivariant"):
        lower(dataclasses.replace(checkpoint, network=broken))


READOUTS = ["plain-residual", "gate-tanh", "gate-abs", "gate-none", "bias-readout", "three-heads-bias",
            "last-readout-only", "keep-last-irreps", "three-layers", "one-layer"]  # fmt: skip


@pytest.mark.parametrize("name", READOUTS)
def test_reverse_of_the_readout(name):
    model = lowered(name)
    z = torch.tensor([1, 0, 0])
    targets = [layer.contraction.target for layer in model.layers]
    B = [random(3, t.n_rows, t.channels, seed=s) for s, t in enumerate(targets)]
    leaves = [b.clone().requires_grad_() for b in B]
    expected = torch.autograd.grad(reference.readout(model, leaves, z).sum(), leaves, allow_unused=True)
    for found, gradient in zip(reference.reverse_readout(model, B, z), expected, strict=True):
        assert close(found, torch.zeros_like(found) if gradient is None else gradient)


def test_repulsion_derivative_is_that_of_autograd_and_its_energy_that_of_mace_torch():
    checkpoint, model = build("zbl"), lowered("zbl")
    r = torch.linspace(0.2, 2.0, 30, dtype=torch.float64)
    sender, receiver = torch.arange(30) % 2, torch.arange(30) // 2 % 2
    v, dv = reference.zbl(model.zbl, r, sender, receiver)
    _, expected = torch.func.jvp(
        lambda x: reference.zbl(model.zbl, x, sender, receiver)[0], (r,), (torch.ones_like(r),)
    )
    assert close(dv, expected)
    edges = torch.stack([torch.arange(30), torch.arange(30) + 30])
    one_hot = torch.nn.functional.one_hot(torch.cat([sender, receiver]), 2).double()
    network = checkpoint.network
    with _mace():  # 14.3996 * Z has torch's default type in mace-torch: 3e-8 off where that is float32
        node = network.pair_repulsion_fn(r[:, None], one_hot, edges, network.atomic_numbers)
    assert close(v, node[30:])
