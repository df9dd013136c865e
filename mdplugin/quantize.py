"""MaceModel + precision policy -> the same model with its parameters rounded to their storage types (`Stored`).

The rounding rules, each once. Everything is rounded in float64 before the run, per channel, so the energy that the
artifact computes is that of a slightly different, equally smooth and equivariant network. Couplings are never rounded.

    matrices        fixed point per output channel; floats as they are (float16: times a power of two per matrix)
    path weights    of the contraction: fixed point per species and path
    radial knots    fixed point per row of the table and function, down or up by what is best for dR/dr; a function's unit
                    moves into the rows of the message matrices
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mdplugin.errors import CheckpointError
from mdplugin.model import Contraction, LinearMap, MaceModel, NodeMap, Stored
from mdplugin.precision import ROLES, Precision
from mdplugin.tables import RadialTable

LARGEST = {torch.int8: 127, torch.int16: 32767}
# an error-chosen scale may clip the largest value of a channel to this fraction of it
SCALE_CANDIDATES = torch.linspace(0.80, 1.0, 41, dtype=torch.float64)


Place = tuple[str, int, int]  # of a map between layers: "message", layer, 0; or "up", layer, earlier layer
# place, map, storage, whether its inputs have few bits too -> the map with its matrices in fixed point
RoundMatrices = Callable[[Place, LinearMap, torch.dtype, bool], LinearMap]


def round_to_grid(values: Tensor, scale: Tensor, storage: torch.dtype) -> Tensor:
    """Nearest multiple of `scale` (ties to even), in units of it; saturates at the type's largest magnitude.

    Raises:
        CheckpointError: a value is not finite; no whole number can say so.
    """
    _require_finite(values)
    largest = LARGEST[storage]
    return torch.round(values / scale).clamp(-largest, largest).to(storage)


def _require_finite(values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise CheckpointError(
            f"expected finite parameters, got {int((~torch.isfinite(values)).sum())} that are not: nothing to round"
        )


def round_fixed(values: Tensor, storage: torch.dtype, dim: int = -2) -> Stored:
    """Fixed point with one scale for all values along `dim`, chosen for the least squared error.

    Args:
        values: any shape, float64.
        storage: int8 or int16.
        dim: the axis that shares a scale: -2 for matrices (in, out), whose output channels have one each.
    """
    top = values.abs().amax(dim, keepdim=True) / LARGEST[storage]
    top = torch.where(top > 0, top, torch.ones_like(top))
    best, least = top, torch.full_like(top, torch.inf)
    for factor in SCALE_CANDIDATES if storage == torch.int8 else SCALE_CANDIDATES[-1:]:
        scale = top * factor
        error = (round_to_grid(values, scale, storage) * scale - values).square().sum(dim, keepdim=True)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return Stored(round_to_grid(values, best, storage), best)


def round_float(values: Tensor, storage: torch.dtype) -> Stored:
    """bfloat16, or float16 scaled by the power of two that brings the largest value into [1, 2): no overflow."""
    scale = torch.ones((1,) * values.dim(), dtype=torch.float64)
    if storage == torch.float16:
        scale = scale * 2.0 ** torch.floor(torch.log2(values.abs().max().clamp(min=1e-300)))
    return Stored((values / scale).to(storage), scale)


def round_values(values: Tensor, storage: torch.dtype, dim: int = -2) -> Stored:
    """Fixed or floating point, by the type."""
    if storage in LARGEST:
        return round_fixed(values, storage, dim)
    return round_float(values, storage)


def storage_type(precision: Precision, role: str, layer: int = 0) -> torch.dtype | None:
    """Type in which the parameters of a role are kept; None for the base type."""
    name = precision.format(role, layer)
    return None if name == "fp32" else getattr(torch, ROLES[role][name].storage)


def quantize_model(
    model: MaceModel, precision: Precision, round_matrices: RoundMatrices | None = None
) -> MaceModel:
    """Round every parameter that the policy names.

    Args:
        model: after `quantize_tables`.
        precision: the policy.
        round_matrices: rounds the matrices between the layers to fixed point (calibrate.py); None: to nearest.

    Returns:
        the model with `stored` beside each rounded array, which holds the rounded values in float64.
    """
    readout = storage_type(precision, "readout")
    perceptron = model.perceptron
    if perceptron is not None:
        perceptron = replace(perceptron, hidden=_round_node_map(perceptron.hidden, readout))
    layers = []
    for t, layer in enumerate(model.layers):
        rounds = partial(_round_matrices, precision, round_matrices)
        maps = (None if part is None else rounds(("up", t, s), part) for s, part in enumerate(layer.up.maps))
        product = storage_type(precision, "product", t + 1)
        layers.append(
            replace(
                layer,
                up=replace(layer.up, maps=tuple(maps)),
                message=rounds(("message", t, 0), layer.message),
                contraction=_round_contraction(layer.contraction, product),
            )
        )
    linear = _round_node_map(model.linear, readout)
    return replace(model, layers=tuple(layers), linear=linear, perceptron=perceptron)


def _round_matrices(
    precision: Precision, round_matrices: RoundMatrices | None, place: Place, linear: LinearMap
) -> LinearMap:
    layer = place[1] + 1
    storage = storage_type(precision, "linear", layer)
    if round_matrices is None or storage not in LARGEST:
        return round_linear_map(linear, storage)
    few_bits = ROLES["linear"][precision.format("linear", layer)].state == "int8"
    return round_matrices(place, linear, storage, few_bits)


def round_linear_map(linear: LinearMap, storage: torch.dtype | None) -> LinearMap:
    """The map with matrices in `storage`; None leaves it as it is."""
    if storage is None:
        return linear
    weights = []
    for weight in linear.weights:
        stored = round_values(weight.matrix, storage)
        weights.append(replace(weight, matrix=stored.restore(), stored=stored))
    return replace(linear, weights=tuple(weights))


def _round_node_map(node_map: NodeMap, storage: torch.dtype | None) -> NodeMap:
    maps = tuple(None if part is None else round_linear_map(part, storage) for part in node_map.maps)
    return replace(node_map, maps=maps)


def _round_contraction(contraction: Contraction, storage: torch.dtype | None) -> Contraction:
    if storage is None:
        return contraction
    terms = []
    for term in contraction.terms:
        stored = round_values(term.weights, storage, dim=-1)  # channels of a path share a scale
        terms.append(replace(term, weights=stored.restore(), stored=stored))
    return replace(contraction, terms=tuple(terms))


def quantize_tables(
    model: MaceModel, tables: list[RadialTable], precision: Precision
) -> tuple[MaceModel, list[RadialTable]]:
    """Round the knots of the radial tables that the policy names.

    Knot i of function f is row_i unit_f q_if with whole numbers q (or short floats) of at most 1: the units go, exactly,
    into row f of the message matrices, the rows into the weights of the interpolation. Call before `quantize_model`.
    """
    layers, rounded = list(model.layers), []
    for t, table in enumerate(tables):
        storage = storage_type(precision, "radial", t + 1)
        if storage is None:
            rounded.append(table)
            continue
        knots = table.coefficients[..., : table.n_radial]
        rows, unit = balance(knots)
        layers[t] = replace(layers[t], message=_scale_rows(layers[t].message, unit))
        stored = round_knots(knots / unit, rows, storage, table.pieces)
        density = table.coefficients[..., table.n_radial :]
        rounded.append(
            replace(table, coefficients=torch.cat([stored.restore(), density], dim=-1), stored=stored)
        )
    return replace(model, layers=tuple(layers)), rounded


def balance(knots: Tensor, rounds: int = 20) -> tuple[Tensor, Tensor]:
    """Scales of rows and functions, rows (n_pairs, n_rows, 1) and unit (n_functions,), with |knots| <= rows * unit.

    Radial functions differ by orders of magnitude between short distances, where no two atoms come, and the cutoff: with
    rows of their own scale all knots use the bits they have. Roots of mean squares are balanced in turns (Sinkhorn and
    Knopp 1967), then the largest values are fitted in.
    """
    square = knots.square()
    floor = (1e-24 * square.max()).clamp(min=1e-200)  # a layer of zeros has a unit too
    unit = square.mean((0, 1)).clamp(min=floor)
    for _ in range(rounds):
        rows = (square / unit).mean(2, keepdim=True).clamp(min=1e-24)
        unit = (square / rows).mean((0, 1)).clamp(min=floor)
    unit = (knots.abs() / rows.sqrt()).amax((0, 1)).clamp(min=floor.sqrt())
    rows = (knots.abs() / unit).amax(2, keepdim=True).clamp(min=1e-12)
    return rows, unit


def round_knots(knots: Tensor, rows: Tensor, storage: torch.dtype, pieces: Tensor) -> Stored:
    """Knots in units of their rows: the largest of a row is the type's largest whole number, or 1 in short floats.

    Whole numbers are rounded down or up so that the error of dR/dr, which forces feel most, is least in the mean square:
    errors of neighbouring knots then go together. For B-splines of `pieces` (tables.py) on every interval that error is a
    quadratic form in those of a few knots, so the best choice of all follows by dynamic programming (Viterbi 1967).
    """
    if storage not in LARGEST:
        return Stored((knots / rows).to(storage), rows)
    _require_finite(knots)
    scale = rows / LARGEST[storage]
    exact = knots / scale
    values = [_round_sequence(one, weight, pieces) for one, weight in zip(exact, scale, strict=True)]
    return Stored(torch.stack(values).clamp(-LARGEST[storage], LARGEST[storage]).to(storage), scale)


def _round_sequence(exact: Tensor, weight: Tensor, pieces: Tensor) -> Tensor:
    """Whole numbers next to `exact` (n_rows, n_functions), errors counted in units of `weight` (n_rows, 1)."""
    n, size = len(pieces), len(exact)
    powers = torch.arange(1, n, dtype=torch.float64)
    slopes = pieces[:, 1:] * powers  # of w_j'(t); their products integrated over t in [0, 1]:
    form = slopes @ (1 / (powers[:, None] + powers - 1)) @ slopes.T
    weight = weight / weight.max()
    low = exact.floor()
    down, up = (low - exact) * weight, (low + 1 - exact) * weight
    choices = (torch.arange(2**n)[:, None] >> torch.arange(n)) & 1  # bit j: knot i + j is rounded up
    cost = torch.zeros((2 ** (n - 1), exact.shape[1]), dtype=torch.float64)  # by the choices of n - 1 knots
    first = []
    for i in range(size - n + 1):
        errors = torch.where(choices[:, :, None] == 1, up[i : i + n], down[i : i + n])
        interval = (errors * torch.einsum("jk,ckf->cjf", form, errors)).sum(1)
        total = (interval + cost[torch.arange(2**n) % 2 ** (n - 1)]).unflatten(0, (-1, 2))
        cost, best = total.min(1)  # over the knot that leaves
        first.append(best)
    state = cost.argmin(0)
    picked = [(state >> j) & 1 for j in range(n - 1)]
    for best in reversed(first):
        bit = best.gather(0, state[None])[0]
        picked.insert(0, bit)
        state = ((state << 1) | bit) % 2 ** (n - 1)
    return low + torch.stack(picked)


def _scale_rows(message: LinearMap, unit: Tensor) -> LinearMap:
    """Rows of A are (path, channel) with paths in the order of the radial functions, block by block."""
    weights, starts, start = [], [], 0
    for block in message.source.blocks:
        starts.append(start)
        start += block.copies * message.source.channels
    for weight in message.weights:
        first = starts[weight.source]
        rows = unit[first : first + weight.matrix.shape[1]]
        weights.append(replace(weight, matrix=weight.matrix * rows[:, None]))
    return replace(message, weights=tuple(weights))
