"""Rounding rules in closed form, and a network of rounded parameters is still smooth, equivariant and conservative."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from architectures import build
from edges_of import evaluate_frame, frames, inputs
from scipy.stats import special_ortho_group

from mdplugin import quantize, reference
from mdplugin.errors import CheckpointError
from mdplugin.lowering import lower
from mdplugin.model import Stored
from mdplugin.network_native import tabulate_layers
from mdplugin.precision import LAYERED, ROLES, Precision
from mdplugin.quantize import (
    LARGEST,
    balance,
    quantize_model,
    quantize_tables,
    round_fixed,
    round_float,
    round_knots,
    round_to_grid,
    round_values,
)
from mdplugin.tables import tabulate

INTEGERS = pytest.mark.parametrize("storage", LARGEST, ids=str)
MODELS = ["plain-plain", "density-residual-twice", "hidden-l2"]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rounded(model, text):
    """The model and its tables after the policy."""
    policy = Precision.parse(text)
    model, tables = quantize_tables(model, tabulate_layers(model, policy)[0], policy)
    return quantize_model(model, policy), tables


# --- rules ---


@INTEGERS
def test_halves_go_to_the_even_number_and_large_values_saturate(storage):
    values = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999, 1e9, -1e9], dtype=torch.float64)
    for scale in (1.0, 0.25, 2.0**-40):
        found = round_to_grid(values * scale, torch.tensor(scale, dtype=torch.float64), storage)
        most = LARGEST[storage]  # not its negative neighbour -128: magnitudes are symmetric
        assert found.dtype == storage and found.tolist() == [0, 2, 2, 0, -2, -2, 0, most, -most]


@INTEGERS
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(storage, value):
    values = random(1, 4, 3)
    values[0, 2, 1] = value
    for work in (
        lambda: round_values(values, storage),
        lambda: round_knots(values, *balance(random(1, 4, 3))[:1], storage),
    ):
        with pytest.raises(CheckpointError, match="expected finite parameters, got 1 that are not"):
            work()


@pytest.mark.parametrize("storage", [torch.float16, torch.bfloat16], ids=str)
def test_in_floats_what_is_not_finite_stays_so(storage):
    values = random(1, 4, 3)
    values[0, 2, 1] = float("nan")
    assert round_values(values, storage).restore()[0, 2, 1].isnan()


@INTEGERS
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 5), (3, 7, 1), (2, 64, 48)])
@pytest.mark.parametrize("size", [1.0, 1e30, 1e-30])
def test_fixed_point_is_within_half_a_step(storage, shape, size):
    values = size * random(*shape)
    for dim in (-2, -1):
        stored = round_fixed(values, storage, dim)
        assert stored.scale.shape == values.amax(dim, keepdim=True).shape  # one for each channel
        error, most = (stored.restore() - values).abs(), LARGEST[storage]
        clipped = values.abs() > (most + 0.5) * stored.scale
        assert bool((error <= stored.scale * (0.5 + 1e-9))[~clipped].all())
        assert bool((error <= values.abs() - most * stored.scale * (1 - 1e-9))[clipped].all())
        # never more than a fifth of a channel's largest value is cut off, and none in 16 bits
        assert bool((most * stored.scale >= 0.8 * values.abs().amax(dim, keepdim=True) * (1 - 1e-12)).all())
        if storage == torch.int16:
            assert not clipped.any()


def test_zero_channels_stay_zero():
    values = random(2, 16, 5)
    values[:, :, 3] = 0
    for storage in (*LARGEST, torch.float16, torch.bfloat16):
        stored = round_values(values, storage)
        assert not stored.restore()[:, :, 3].any() and stored.restore()[:, :, :3].any()
        assert bool((stored.scale > 0).all()) and bool(stored.scale.isfinite().all())
        assert not round_values(torch.zeros(1, 4, 4, dtype=torch.float64), storage).restore().any()


@pytest.mark.parametrize("n", [2, 16, 200])
def test_a_chosen_scale_is_never_worse_than_the_largest_values(n):
    values = random(3, n, 40) ** 3  # long tails: here clipping pays
    top = values.abs().amax(-2, keepdim=True) / 127
    plain = (torch.round(values / top) * top - values).square().sum(-2)
    chosen = (round_fixed(values, torch.int8).restore() - values).square().sum(-2)
    assert bool((chosen <= plain).all())
    if n == 200:
        assert float(chosen.sum()) < float(plain.sum())


@pytest.mark.parametrize("size", [1.0, 3e4, 1e30, 1e-30])
def test_short_floats_neither_overflow_nor_lose_bits(size):
    values = size * random(2, 16, 8)
    stored = round_float(values, torch.float16)
    assert stored.values.dtype == torch.float16 and float(stored.values.abs().max().double()) < 2.0
    mantissa, _ = torch.frexp(stored.scale)
    assert bool((mantissa == 0.5).all())  # a power of two: multiplying with it is exact
    # half a unit in the last place; below 2^-14 of the largest value, float16's smallest normal, 2^-25 of it
    bound = values.abs() * 2.0**-11 + stored.scale * 2.0**-25
    assert bool(((stored.restore() - values).abs() <= bound).all())
    brain = round_float(values, torch.bfloat16)
    assert bool((brain.scale == 1).all())
    assert bool(((brain.restore() - values).abs() <= values.abs() * 2.0**-8).all())


# --- radial tables ---


@pytest.mark.parametrize("name", ["w16", "w16a16", "w8", "bf16", "fp16"])
def test_knots_are_rounded_in_units_of_their_row(name):
    knots = random(3, 20, 24) * torch.exp(3 * random(24, seed=1)) * torch.exp(2 * random(3, 20, 1, seed=2))
    rows, unit = balance(knots)
    assert rows.shape == (3, 20, 1) and unit.shape == (24,)
    assert bool((knots.abs() <= rows * unit * (1 + 1e-12)).all())
    assert float((knots.abs() / rows / unit).amax(2).min()) >= 1 - 1e-12  # every row uses all its bits
    storage = getattr(torch, ROLES["radial"][name].storage)
    stored = round_knots(knots / unit, rows, storage)
    assert stored.values.dtype == storage
    error = (stored.restore() * unit - knots).abs()
    if storage in LARGEST:
        bound = rows * unit * (0.5 + 1e-9) / LARGEST[storage]
    else:
        bound = (
            knots.abs() * {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}[storage] + rows * unit * 2.0**-25
        )
    assert bool((error <= bound).all())


def test_balance_of_zeros_is_finite():
    knots = random(1, 12, 6)
    knots[:, :, 2], knots[:, 5] = 0, 0
    for zeros in (knots, torch.zeros_like(knots)):
        rows, unit = balance(zeros)
        assert bool((rows > 0).all()) and bool((unit > 0).all())
        for storage in LARGEST:
            stored = round_knots(zeros / unit, rows, storage)
            assert float((stored.restore() * unit - zeros).abs().max()) <= 0.51 / LARGEST[storage] * float(
                (rows * unit).max()
            )


@pytest.mark.parametrize("name", MODELS)
def test_units_move_into_the_messages_exactly(name, monkeypatch):
    """With a grid that is infinitely fine the rounded model is the model."""
    monkeypatch.setattr(quantize, "round_knots", lambda knots, rows, _: Stored(knots / rows, rows))
    model, policy = lower(build(name)), Precision.parse("fp32,radial=w16")
    tables = [tabulate(model.basis, layer.convolution, 24, "spline5") for layer in model.layers]
    fine, fine_tables = quantize_tables(model, tables, policy)
    assert all(table.stored is not None for table in fine_tables)
    for before, after in zip(tables, fine_tables, strict=True):  # the density is no radial function
        assert torch.equal(
            before.coefficients[..., before.n_radial :], after.coefficients[..., after.n_radial :]
        )
        assert float(after.stored.values.abs().max()) <= 1 + 1e-12
    frame = frames(model.atomic_numbers)[0]
    expected = evaluate_frame(model, frame, tables=tables)
    found = evaluate_frame(fine, frame, tables=fine_tables)
    scale = max(1.0, np.abs(expected.forces).max())  # float64 rounding, amplified by sums of ~1e3 terms
    assert np.abs(found.forces - expected.forces).max() <= 1e-12 * scale
    assert np.abs(found.energies - expected.energies).max() <= 1e-12 * max(
        1.0, np.abs(expected.energies).max()
    )


# --- models ---


def parameters(model):
    """Every array of a model that a policy may round, by role and layer."""
    found = {}
    for t, layer in enumerate(model.layers, 1):
        maps = [part for part in layer.up.maps if part is not None]
        found["linear", t] = [w.matrix for part in (*maps, layer.message) for w in part.weights]
        found["product", t] = [term.weights for term in layer.contraction.terms]
    heads = [model.linear, *([model.perceptron.hidden] if model.perceptron else [])]
    found["readout", 0] = [w.matrix for head in heads for part in head.maps if part for w in part.weights]
    return found


@pytest.mark.parametrize("role", ["linear", "product", "readout"])
@pytest.mark.parametrize("layer", [0, 2])
def test_a_choice_rounds_what_it_names_and_nothing_else(role, layer):
    if layer and role not in LAYERED:
        return
    model = lower(build("three-layers"))
    text = f"fp32,{role}{f'.{layer}' if layer else ''}=w8"
    before, after = parameters(model), parameters(quantize_model(model, Precision.parse(text)))
    for (kind, number), arrays in before.items():
        named = kind == role and layer in (0, number)
        for x, y in zip(arrays, after[kind, number], strict=True):
            assert (x is y) != named
            if named:  # 8 bits per channel: half a step, or a fifth of the largest value cut off
                assert 0 < float((x - y).abs().max()) <= 0.2 * float(x.abs().max())


@pytest.mark.parametrize("name", ["plain-residual", "agnesi"])
def test_couplings_and_biases_are_never_rounded(name):
    model = lower(build(name))
    found, _ = rounded(model, "w8")
    for before, after in zip(model.layers, found.layers, strict=True):
        assert after.convolution is before.convolution and after.up.bias is before.up.bias
        for x, y in zip(before.contraction.terms, after.contraction.terms, strict=True):
            assert (x.values is y.values) and (x.indices is y.indices) and (x.monomials is y.monomials)
            assert y.stored.values.dtype == torch.int8 and torch.equal(y.stored.restore(), y.weights)
    assert found.e0s is model.e0s and found.linear.bias is model.linear.bias


def test_every_species_has_scales_of_its_own():
    model = lower(build("plain-plain"))
    message = quantize_model(model, Precision.parse("w8")).layers[1].message
    assert any(w.matrix.shape[0] == 2 for w in message.weights)
    for w in message.weights:
        assert w.stored.scale.shape == (w.matrix.shape[0], 1, w.matrix.shape[2])


@pytest.mark.parametrize("text", ["w16", "w8"])
@pytest.mark.parametrize("name", ["density-residual-twice", "hidden-l2", "zbl"])
def test_rounded_parameters_break_no_symmetry_and_conserve_energy(name, text):
    model, tables = rounded(lower(build(name)), text)
    frame = frames(model.atomic_numbers)[1]
    result = evaluate_frame(model, frame, tables=tables)
    size = max(1.0, np.abs(result.forces).max())
    for parity in (1, -1):
        R = parity * special_ortho_group.rvs(3, random_state=1)
        turned = frame.copy()
        turned.positions = frame.positions @ R.T
        found = evaluate_frame(model, turned, tables=tables)
        # float64 rounding of sums of ~1e3 terms, with cancellation between edges
        assert np.abs(found.forces - result.forces @ R.T).max() <= 1e-12 * size
        assert np.abs(found.energies - result.energies).max() <= 1e-12 * max(
            1.0, np.abs(result.energies).max()
        )

    vectors, *rest = inputs(model, frame)
    direction = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-4
    E = [reference.evaluate(model, vectors + k * h * direction, *rest, len(frame), tables=tables)[0].sum()
         for k in (-2, -1, 1, 2)]  # fmt: skip
    slope = (E[0] - 8 * E[1] + 8 * E[2] - E[3]) / (12 * h)
    _, edge_force = reference.evaluate(model, vectors, *rest, len(frame), tables=tables)
    # rounding of E over h, 1e-13 of some 100 eV; h^4 times the fifth derivative
    assert abs(-(edge_force * direction).sum() - slope) <= 2e-8 * max(1.0, float(edge_force.abs().max()))


def test_the_error_falls_with_the_bits():
    """A random network of some eV/Å: 8 bits cost 2^8 times as much as 16."""
    model = lower(build("plain-residual"))
    frame = frames(model.atomic_numbers)[1]
    errors = {}
    for text in ("fp32,linear=w16,product=w16,readout=w16", "fp32,linear=w8,product=w8,readout=w8"):
        exact = evaluate_frame(model, frame)
        found = evaluate_frame(quantize_model(model, Precision.parse(text)), frame)
        errors[text] = np.abs(found.forces - exact.forces).max() / max(1.0, np.abs(exact.forces).max())
    few, many = sorted(errors.values())
    assert 2**6 <= many / few <= 2**10 and many <= 0.1


def test_a_rounded_model_is_the_same_when_it_is_rounded_again():
    model = lower(build("plain-residual"))
    once = quantize_model(model, Precision.parse("w16"))
    twice = quantize_model(once, Precision.parse("w16"))
    for x, y in zip(once.layers[1].message.weights, twice.layers[1].message.weights, strict=True):
        # the largest value of a channel is on its grid: the scale is the same to rounding
        assert torch.equal(x.stored.values, y.stored.values)
        assert float((y.matrix - x.matrix).abs().max()) <= 1e-14 * float(x.matrix.abs().max())
        assert replace(y, matrix=x.matrix, stored=x.stored) == x
