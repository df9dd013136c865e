"""Every kernel is its stage of the plain float64 reference: values, reverses, finite differences.

Graphs of no edge, one edge, and 1 to 40 edges per receiver (fewer and more than the 16 that a kernel takes together),
channels that fill vectors and that do not, both types, layers of degree 1 to 4 and of both parities.
"""

import pytest
import torch
from architectures import build_from, lowered

from mdplugin import reference, reference_layer
from mdplugin.lowering import lower
from mdplugin.network_layers import _build_contraction, _build_convolution, pad_channels
from mdplugin.tables import tabulate

N_RECEIVERS, N_NODES = 7, 9  # two nodes that only send
# The same sums in another order: up to 1e3 terms of the size of the largest result (float32: 6e-8 each, and tables
# and reverse convolutions sum twice).
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-5}
DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
LAYERS = [("plain-residual", 0), ("plain-residual", 1), ("hidden-l3", 1), ("l-max-4-vectors", 1), ("both-parities", 1),
          ("agnesi", 1), ("correlation-4", 0), ("hidden-l2", 0)]  # fmt: skip
GRAPHS = {
    "no edge": [0] * N_RECEIVERS,
    "one edge": [0, 0, 1, 0, 0, 0, 0],
    "odd": [1, 3, 0, 15, 17, 1, 2],
    "many": [16, 32, 40, 33, 31, 5, 0],
}


def random(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def assert_close(found, expected, dtype, scale=1.0):
    bound = ROUNDING[dtype] * scale * max(1.0, float(expected.abs().max()) if expected.numel() else 0.0)
    assert found.shape == expected.shape
    assert not found.numel() or float((found.to(torch.float64) - expected).abs().max()) <= bound


def to_blocks(x, layout, dtype):
    """(n, rows, channels) -> the kernels' list of blocks with padded channels."""
    padded = x.new_zeros((*x.shape[:2], pad_channels(layout.channels)))
    padded[..., : layout.channels] = x
    spans = zip(layout.offsets[:-1], layout.offsets[1:], strict=True)
    return [padded[:, a:b].to(dtype).contiguous() for a, b in spans]


def from_blocks(blocks, layout):
    return torch.cat(blocks, dim=1)[..., : layout.channels].to(torch.float64)


def padding_is_zero(blocks, layout):
    return not any(block[..., layout.channels :].any() for block in blocks)


class Scene:
    """A layer, a graph of random edges in float64, and the kernel's view of it."""

    def __init__(self, model, t, counts, dtype, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.conv, self.dtype = model.layers[t].convolution, dtype
        self.table = tabulate(model.basis, self.conv, 16, "spline5")
        n_edges = sum(counts)
        self.receivers = torch.repeat_interleave(torch.arange(N_RECEIVERS), torch.tensor(counts))
        self.senders = torch.randint(N_NODES, (n_edges,), generator=generator)
        r = torch.rand(n_edges, generator=generator, dtype=torch.float64) * (
            model.r_max + 0.3
        )  # some are beyond
        self.r = r.to(dtype).to(torch.float64)  # so that both look the same place of the table up
        unit = torch.nn.functional.normalize(random(generator, n_edges, 3), dim=-1)
        self.Y = reference.spherical_harmonics(unit, self.conv.l_max)[0].to(dtype).to(torch.float64)
        self.pair = torch.randint(model.basis.n_pairs, (n_edges,), generator=generator)
        self.u = random(generator, N_NODES, self.conv.source.n_rows, self.conv.source.channels)
        self.gA = random(generator, N_RECEIVERS, self.conv.target.n_rows, self.conv.target.channels)
        self.R = self.table.functions(self.r, self.pair)
        self.kernel = _build_convolution(self.conv, self.table, dtype, "fp32")
        offsets, order = torch.ops.mdplugin.sort_edges(self.receivers, self.r.to(dtype), N_RECEIVERS)
        pair = self.pair if model.basis.n_pairs > 1 else None
        self.edges = (self.r.to(dtype), self.Y.to(dtype), offsets, order, self.senders, pair)

    def convolve(self):
        return self.kernel.forward(to_blocks(self.u, self.conv.source, self.dtype), *self.edges)

    def reverse(self, with_source):
        gr, gY = torch.zeros(len(self.r), dtype=self.dtype), torch.zeros(self.Y.shape, dtype=self.dtype)
        blocks = [to_blocks(x, layout, self.dtype) for x, layout in
                  ((self.u, self.conv.source), (self.gA, self.conv.target))]  # fmt: skip
        return self.kernel.reverse(*blocks, *self.edges, gr, gY, with_source), gr, gY


@DTYPES
@pytest.mark.parametrize("counts", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize(("name", "t"), LAYERS)
def test_convolution_and_its_reverse(name, t, counts, dtype):
    scene = Scene(lowered(name), t, counts, dtype)
    conv, ends = scene.conv, (scene.senders, scene.receivers)
    A = scene.convolve()
    expected = reference_layer.convolve(conv, scene.R.f, scene.Y, scene.u, *ends, N_RECEIVERS)
    assert_close(from_blocks(A, conv.target), expected, dtype)
    assert padding_is_zero(A, conv.target)

    gR, gY, gu = reference_layer.reverse_convolve(conv, scene.R.f, scene.Y, scene.u, *ends, scene.gA)
    for with_source in (True, False):
        found_gu, found_gr, found_gY = scene.reverse(with_source)
        # dR/dr is R over the table's step: its rounding is that much larger
        assert_close(found_gr, (gR * scene.R.d1).sum(-1), dtype, scale=scene.table.n_intervals)
        assert_close(found_gY[:, 1:], gY[:, 1:], dtype)  # Y_00 is constant
        if with_source:
            assert_close(from_blocks(found_gu, conv.source), gu, dtype)
            assert padding_is_zero(found_gu, conv.source)
        else:
            assert found_gu == []


def test_convolution_reverse_is_the_slope_of_its_forward():
    """Central differences of sum(gA A) in r and in u, in float64."""
    scene = Scene(lowered("hidden-l2"), 1, GRAPHS["odd"], torch.float64)
    gu, gr, _ = scene.reverse(True)
    gA = to_blocks(scene.gA, scene.conv.target, torch.float64)

    def energy(dr, du):
        shifted = to_blocks(scene.u + du, scene.conv.source, torch.float64)
        A = scene.kernel.forward(shifted, scene.edges[0] + dr, *scene.edges[1:])
        return sum((a * g).sum() for a, g in zip(A, gA, strict=True))

    generator, h = torch.Generator().manual_seed(1), 1e-5
    dr = random(generator, len(scene.r))
    slope = (energy(h * dr, 0) - energy(-h * dr, 0)) / (2 * h)
    # h² times the third derivative of the table (up to 1e2 Å^-3), rounding 1e-13 over h
    assert abs(slope - (gr * dr).sum()) <= 1e-6 * max(1.0, abs(slope))
    du = random(generator, *scene.u.shape)
    slope = (energy(0, h * du) - energy(0, -h * du)) / (2 * h)
    expected = (from_blocks(gu, scene.conv.source) * du).sum()
    assert abs(slope - expected) <= 1e-7 * max(1.0, abs(expected))  # linear in u: rounding alone


@DTYPES
@pytest.mark.parametrize("channels", [1, 7, 16, 96, 128, 130])
def test_kernels_for_any_number_of_channels(channels, dtype, tmp_path):
    irreps = f"{channels}x0e+{channels}x1o"
    model = lower(build_from(tmp_path / "c.model", hidden_irreps=irreps, max_ell=2, correlation=2))
    scene = Scene(model, 1, GRAPHS["odd"], dtype)
    conv, ends = scene.conv, (scene.senders, scene.receivers)
    expected = reference_layer.convolve(conv, scene.R.f, scene.Y, scene.u, *ends, N_RECEIVERS)
    assert_close(from_blocks(scene.convolve(), conv.target), expected, dtype)
    gR, _, gu = reference_layer.reverse_convolve(conv, scene.R.f, scene.Y, scene.u, *ends, scene.gA)
    found_gu, found_gr, _ = scene.reverse(True)
    assert_close(from_blocks(found_gu, conv.source), gu, dtype)
    assert_close(found_gr, (gR * scene.R.d1).sum(-1), dtype, scale=scene.table.n_intervals)
    check_contraction(model.layers[0], dtype)


def check_contraction(layer, dtype):
    generator = torch.Generator().manual_seed(2)
    contraction = layer.contraction
    n_species = max(term.weights.shape[0] for term in contraction.terms)
    m = (
        random(generator, 5, contraction.source.n_rows, contraction.source.channels)
        .to(dtype)
        .to(torch.float64)
    )
    gB = random(generator, 5, contraction.target.n_rows, contraction.target.channels)
    z = torch.randint(n_species, (5,), generator=generator)
    kernel = _build_contraction(layer, dtype)
    blocks = to_blocks(m, contraction.source, dtype)
    B = kernel.forward(blocks, z)
    assert_close(from_blocks(B, contraction.target), reference_layer.contract(contraction, m, z), dtype)
    assert padding_is_zero(B, contraction.target)
    gm = kernel.reverse(blocks, to_blocks(gB, contraction.target, dtype), z)
    expected = reference_layer.reverse_contract(contraction, m, z, gB)
    assert_close(from_blocks(gm, contraction.source), expected, dtype)


@DTYPES
@pytest.mark.parametrize(
    ("name", "t"), [*LAYERS, ("correlation-1", 0), ("correlation-per-layer", 1), ("l-max-3-one-channel", 0)]
)
def test_contraction_and_its_reverse(name, t, dtype):
    check_contraction(lowered(name).layers[t], dtype)


@DTYPES
@pytest.mark.parametrize("n_edges", [0, 1, 7, 16, 67])
def test_edge_geometry_and_its_reverse(n_edges, dtype):
    generator = torch.Generator().manual_seed(3)
    vectors = random(generator, n_edges, 3)
    r, Y = torch.ops.mdplugin.edge_geometry(vectors, 4, dtype)
    exact_r, unit, exact_Y = reference.edge_geometry(vectors, 4)
    assert_close(r, exact_r, dtype)
    assert_close(Y, exact_Y, dtype)
    gr, gY = random(generator, n_edges).to(dtype), random(generator, n_edges, 25).to(dtype)
    force = torch.ops.mdplugin.reverse_edge_geometry(vectors, gr, gY, 4, 2.0)
    arguments = (gr.to(torch.float64), gY.to(torch.float64))
    # the same arithmetic in double, whatever the type of gr and gY
    assert_close(force, -2.0 * reference.reverse_edge_geometry(exact_r, unit, 4, *arguments), torch.float64)


def test_edges_are_sorted_by_receiver_and_distance():
    receivers = torch.tensor([0, 0, 0, 2, 2, 5])
    r = torch.tensor([3.0, 1.0, 2.0, 4.0, 4.0, 1.0])
    offsets, order = torch.ops.mdplugin.sort_edges(receivers, r, 6)
    assert offsets.tolist() == [0, 3, 3, 5, 5, 5, 6]
    assert order.tolist() == [1, 2, 0, 3, 4, 5]
    for wrong in ([0, 2, 1], [0, 1, 6], [-1, 0, 1]):
        with pytest.raises(RuntimeError, match="expected ascending receivers below 6"):
            torch.ops.mdplugin.sort_edges(torch.tensor(wrong), r[:3], 6)


def test_distances_that_are_no_numbers_come_last():
    """A position that is not a number must reach the check of energies, not upset the sort."""
    generator = torch.Generator().manual_seed(4)
    r = torch.rand(40, generator=generator)
    r[torch.randperm(40, generator=generator)[:9]] = float("nan")
    _, order = torch.ops.mdplugin.sort_edges(torch.zeros(40, dtype=torch.int64), r, 1)
    assert sorted(order.tolist()) == list(range(40))
    assert r[order][:31].diff().min() >= 0 and r[order][31:].isnan().all()


def test_indices_that_point_outside_are_refused():
    scene = Scene(lowered("plain-residual"), 1, GRAPHS["odd"], torch.float64)
    scene.edges[4][3] = N_NODES
    with pytest.raises(RuntimeError, match=f"source rows: expected indices below {N_NODES}, got {N_NODES}"):
        scene.convolve()
