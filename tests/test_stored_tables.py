"""Radial tables in every storage are `RadialTable.evaluate` with the stored knots restored.

A convolution of scalars with scalars, one edge per receiver, features of one: A is R(r), and its reverse dR/dr.
"""

from dataclasses import replace

import pytest
import torch

from mdplugin.model import Block, Convolution, Layout, Path
from mdplugin.network_layers import _build_convolution, pad_channels
from mdplugin.precision import ROLES
from mdplugin.quantize import balance, round_knots
from mdplugin.tables import RadialTable, _spline_pieces

U = 2.0**-24
R_MAX, N_INTERVALS, N_PAIRS = 4.0, 16, 3  # a step that float32 holds
FORMATS = [name for name in ROLES["radial"] if name != "fp32"]
EXACT = [name for name in FORMATS if ROLES["radial"][name].state is None]  # parameters alone are rounded
KINDS = pytest.mark.parametrize("degree", [3, 5], ids=["spline3", "spline5"])
# (paths, channels): blocks of 32 channels and of 16, odd and even numbers of groups of 16, padding, several blocks
SIZES = [(1, 16), (3, 7), (2, 48), (3, 48), (5, 32), (2, 96), (1, 1)]


def make_table(degree, n_paths, channels, name, seed=0):
    """Random knots whose functions and rows differ in size by orders of magnitude, stored as `name` says."""
    generator = torch.Generator().manual_seed(seed)
    n_rows, n = N_INTERVALS + degree, n_paths * channels
    knots = torch.randn(N_PAIRS, n_rows, n, generator=generator, dtype=torch.float64)
    knots = knots * torch.exp(2 * torch.randn(n, generator=generator, dtype=torch.float64))
    knots = knots * torch.exp(-torch.linspace(0, 6, n_rows, dtype=torch.float64))[:, None]
    table = RadialTable(f"spline{degree}", R_MAX, N_INTERVALS, _spline_pieces(degree), knots, n_radial=n)
    if name == "fp32":
        return replace(table, coefficients=knots.float().double())
    rows, unit = balance(knots)
    stored = round_knots(knots / unit, rows, getattr(torch, ROLES["radial"][name].storage), table.pieces)
    return replace(table, coefficients=stored.restore(), stored=stored)


def make_kernel(table, n_paths, channels, name):
    one, many = Layout((Block(0, 1),), channels), Layout((Block(0, 1, n_paths),), channels)
    paths = tuple(Path(0, 0, 0, source=0, source_copy=0, target=0, target_copy=p) for p in range(n_paths))
    indices = torch.tensor([[p, 0, 0, p] for p in range(n_paths)])
    ones = torch.ones(n_paths, dtype=torch.float64)
    convolution = Convolution(one, many, 0, paths, indices, ones, radial=None, density=None)
    return _build_convolution(convolution, table, torch.float32, name)


class Scene:
    """One edge per receiver."""

    def __init__(self, degree, size, name, n_edges=35, r=None):
        self.n_paths, self.channels = size
        self.table = make_table(degree, *size, name)
        self.kernel = make_kernel(self.table, *size, name)
        generator = torch.Generator().manual_seed(1)
        self.r = torch.rand(n_edges, generator=generator) * R_MAX if r is None else r
        n = len(self.r)
        self.pair = torch.randint(N_PAIRS, (n,), generator=generator)
        self.u = [torch.ones(1, 1, pad_channels(self.channels))]

    def walk(self, r):
        n = len(r)
        order = torch.arange(n)
        return r, torch.ones(n, 1), torch.arange(n + 1), order, torch.zeros(n, dtype=torch.int64), self.pair

    def values(self, r):
        """(n, n_functions), in float64."""
        A = self.kernel.forward(self.u, *self.walk(r))[0]
        return A[..., : self.channels].flatten(1).double()

    def slopes(self, r):
        """The same of dR/dr: gradients of one function at a time."""
        columns = []
        for p in range(self.n_paths):
            for c in range(self.channels):
                gA = torch.zeros(len(r), self.n_paths, pad_channels(self.channels))
                gA[:, p, c] = 1
                gr, gY = torch.zeros(len(r)), torch.zeros(len(r), 1)
                self.kernel.reverse(self.u, [gA], *self.walk(r), gr, gY, False)
                columns.append(gr.double())
        return torch.stack(columns, dim=1)

    def terms(self, order):
        """Weights (n, size), with the rows' scales in them, and knots (n, size, n_functions) in units of these."""
        rows, weights = self.table.taps(self.r.double())
        where = self.pair[:, None], rows
        stored = self.table.stored
        knots, scale = (stored.values.double(), stored.scale) if stored else (self.table.coefficients, None)
        w = weights[order] * (scale[where][..., 0] if stored else 1.0)
        return w, knots[where]


@pytest.mark.parametrize("name", ["fp32", *EXACT])
@pytest.mark.parametrize("size", SIZES, ids=str)
@KINDS
def test_stored_tables_are_the_restored_ones(degree, size, name):
    scene = Scene(degree, size, name)
    exact = scene.table.evaluate(scene.r.double(), scene.pair)
    for order, found in ((0, scene.values(scene.r)), (1, scene.slopes(scene.r))):
        w, c = scene.terms(order)
        # weights are rounded once, their products and sums once each
        bound = (w.shape[1] + 2) * U * torch.einsum("nj,njf->nf", w.abs(), c.abs())
        assert bool(((found - exact[order]).abs() <= bound).all())


@pytest.mark.parametrize("size", SIZES, ids=str)
@KINDS
def test_whole_weights_cost_half_a_unit_of_neighbouring_knots_differences(degree, size):
    """w16a16 (kernel_edges.h: round_weights): the error is the sum of k_j (c_j+1 - c_j), less k_last c_last."""
    scene = Scene(degree, size, "w16a16")
    exact = scene.table.evaluate(scene.r.double(), scene.pair)
    for order, found in ((0, scene.values(scene.r)), (1, scene.slopes(scene.r))):
        w, c = scene.terms(order)
        least = torch.maximum(w.abs().amax(1) / 32760, w.abs().sum(1) / 65520)
        whole = (w.sum(1) / least.clamp(min=1e-300)).trunc().abs()
        unit = least * torch.where(whole >= 2, 1 + 2 / whole.clamp(min=1), 2.0)
        # the last error is what float32 leaves of a sum that is whole, or half a unit where the sum is less than one
        last = torch.where(whole >= 2, 0.05, 1.0)
        differences = (c[:, 1:] - c[:, :-1]).abs().sum(1)
        bound = unit[:, None] * (0.51 * differences + last[:, None] * c[:, -1].abs())
        bound += 16 * U * torch.einsum("nj,njf->nf", w.abs(), c.abs())
        assert bool(((found - exact[order]).abs() <= bound).all())


@pytest.mark.parametrize("name", EXACT)
@KINDS
def test_slopes_are_those_of_the_values(degree, name):
    """Parameters alone are rounded, so dR/dr is the derivative of R as it is computed, to float32 rounding."""
    middle = (torch.arange(N_INTERVALS) + 0.5) * (
        R_MAX / N_INTERVALS
    )  # polynomials of the degree to both sides
    scene, h = Scene(degree, (3, 7), name, r=middle), R_MAX / N_INTERVALS / 8
    values = [scene.values(middle + k * h) for k in (-2, -1, 1, 2)]
    slope = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * h)
    # exact up to degree 4; the fifth derivative of the polynomial is added: 120 times its last coefficient
    w, c = scene.terms(0)
    knots = scene.table.coefficients[scene.pair[:, None], scene.table.taps(middle.double())[0]]
    if degree == 5:
        slope = slope + 120 / 30 * h**4 * (N_INTERVALS / R_MAX) ** 5 * torch.einsum(
            "j,njf->nf", scene.table.pieces[:, 5], knots
        )
    # R with (6 + 2) U of its terms, which differ between the four points by no more than half; 18 / 12 of it over h
    noise = 1.5 * 1.5 * 8 * U * torch.einsum("nj,njf->nf", w.abs(), c.abs()) / h
    assert bool(((slope - scene.slopes(middle)).abs() <= noise).all())


@pytest.mark.parametrize("name", ["fp32", *FORMATS])
@KINDS
def test_beyond_the_cutoff_functions_are_zero(degree, name):
    r = torch.tensor([R_MAX * 1.0000002, R_MAX + 0.5, 3 * R_MAX, 1e6])
    scene = Scene(degree, (3, 7), name, r=r)
    assert not scene.values(r).any() and not scene.slopes(r).any()


@pytest.mark.parametrize("name", ["fp32", *FORMATS])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_distances_that_are_no_numbers_stay_so(name, value):
    scene = Scene(5, (3, 7), name)
    r = scene.r.clone()
    r[3] = value
    found = scene.values(r)
    assert not found[3].isfinite().any() or value == float("inf")  # infinitely far: nothing, or no number
    assert torch.equal(found[4:], scene.values(scene.r)[4:]) and torch.equal(
        found[:3], scene.values(scene.r)[:3]
    )


def test_tables_that_do_not_fit_are_refused():
    table = make_table(5, 3, 16, "w16")
    with pytest.raises(RuntimeError, match="expected a scale of each row"):
        make_kernel(
            replace(table, stored=replace(table.stored, scale=table.stored.scale[:, :-1])), 3, 16, "w16"
        )
