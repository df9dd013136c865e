"""Radial tables: what they reproduce exactly, how smooth they are, and how their error falls with the knots."""

import numpy as np
import pytest
import torch
from architectures import build
from edges_of import evaluate_frame, inputs
from test_model import frames

from mdplugin import reference
from mdplugin.lowering import lower
from mdplugin.radial import Jet
from mdplugin.tables import (
    KINDS,
    RadialTable,
    _spline_pieces,
    _spline_rows,
    measure_table,
    tabulate,
)


def fitted(kind, jet, h, n):
    degree = int(kind[-1])
    return RadialTable(kind, h * n, n, _spline_pieces(degree), _spline_rows(jet, h, degree)[None], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_polynomials_up_to_the_degree_are_reproduced(kind):
    degree, n, h = int(kind[-1]), 7, 0.4
    x = torch.linspace(0, n * h, n + 1, dtype=torch.float64)[:, None]
    k = torch.arange(degree + 1, dtype=torch.float64)
    c = torch.linspace(-1, 1, degree + 1, dtype=torch.float64) + 0.1

    def value(x, order):
        factor = torch.ones_like(k)
        for j in range(order):
            factor = factor * (k - j)
        return (c * factor * x ** torch.clamp(k - order, min=0)).sum(-1, keepdim=True)

    table = fitted(kind, Jet(*(value(x, order) for order in range(3))), h, n)
    r = torch.linspace(0.01, n * h - 1e-9, 50, dtype=torch.float64)
    found = table.evaluate(r, torch.zeros(50, dtype=torch.int64))
    for order in range(3):
        expected = value(r[:, None], order)
        assert float((found[order] - expected).abs().max()) <= 1e-11 * float(expected.abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_tables_are_smooth_at_the_knots(kind):
    model = lower(build("foundation-0b"))
    table = tabulate(model.basis, model.layers[1].convolution, 16, kind)
    knots = torch.arange(1, 16, dtype=torch.float64) * table.r_max / 16
    pair = torch.zeros(15, dtype=torch.int64)
    left, right = table.evaluate(knots - 1e-10, pair), table.evaluate(knots + 1e-10, pair)
    for order in range(3):
        # one-sided values differ by 2e-10 Å times the next derivative, at most 1e5 times the function here
        assert float((left[order] - right[order]).abs().max()) <= 1e-4 * float(left[order].abs().max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_falls_with_the_order_of_the_kind(kind):
    model = lower(build("agnesi"))
    convolution = model.layers[1].convolution
    errors = [measure_table(tabulate(model.basis, convolution, n, kind), model.basis, convolution, r_min=0.6)
              for n in (64, 128)]  # fmt: skip
    order = {"spline3": 4, "spline5": 6}[kind]
    # halving h must gain nearly 2^order in R and 2^(order - 1) in R'; splines have end effects in the first step
    assert errors[1].value <= errors[0].value / 2 ** (order - 1.5)
    assert errors[1].derivative <= errors[0].derivative / 2 ** (order - 2.5)


@pytest.mark.parametrize("name", ["plain-residual", "foundation-0b", "cutoff-after"])
def test_tabulated_networks_come_close_and_their_forces_stay_exact_gradients(name):
    model = lower(build(name))
    atoms = frames(model.atomic_numbers)[1]
    tables = [tabulate(model.basis, layer.convolution, 128, "spline5") for layer in model.layers]
    exact, found = evaluate_frame(model, atoms), evaluate_frame(model, atoms, tables=tables)
    scale = max(1.0, np.abs(exact.forces).max())
    assert 0 < np.abs(found.forces - exact.forces).max() <= 1e-4 * scale
    vectors, *rest = inputs(model, atoms)
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-4
    E = [reference.evaluate(model, vectors + k * h * direction, *rest, len(atoms), tables=tables)[0].sum()
         for k in (-2, -1, 1, 2)]  # fmt: skip
    slope = (E[0] - 8 * E[1] + 8 * E[2] - E[3]) / (12 * h)
    _, edge_force = reference.evaluate(model, vectors, *rest, len(atoms), tables=tables)
    assert abs(-(edge_force * direction).sum() - slope) <= 2e-8 * max(1.0, float(edge_force.abs().max()))


def test_a_table_is_zero_beyond_the_cutoff_and_refuses_unknown_kinds():
    model = lower(build("plain-residual"))
    convolution = model.layers[0].convolution
    table = tabulate(model.basis, convolution, 8, "spline3")
    beyond = torch.tensor([model.r_max, model.r_max + 0.5], dtype=torch.float64)
    assert not any(values.any() for values in table.evaluate(beyond, torch.zeros(2, dtype=torch.int64)))
    with pytest.raises(ValueError, match="spline7"):
        tabulate(model.basis, convolution, 8, "spline7")
