"""Frames -> what rounding a matrix does to forces on them, and matrices rounded so that it does least.

For a matrix W with input x and gradient of its output g = dE/dy, rounding W by dW changes the force along a direction
d of all atoms by

    dF.d = -d/de sum_rows g (x dW) = -sum_rows (g' x + g x') dW,        ' the derivative along d,

to first order and exactly the product rule. With rows taken as independent the squared error of a column of W is

    dw^T H dw,     H = sum_rows |g'|^2 x x^T + g.g' (x x'^T + x' x^T) + |g|^2 x' x'^T,

the same H for all columns. Rows of W are then rounded one after the other, each error made up for, as far as H lets it,
by the rows that follow: GPTQ (Frantar et al., ICLR 2023), with this H in place of that of the layer's own output.

Inputs that are rounded to 8 bits are divided by their typical size per channel first, which goes into the rows of W
(SmoothQuant, Xiao et al., ICML 2023), so that all channels use the bits there are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import ase
import torch
from torch import Tensor

from mdplugin.errors import StructureError
from mdplugin.model import BlockWeight, LinearMap, MaceModel, Stored
from mdplugin.neighbors import Neighbors
from mdplugin.quantize import Place, round_fixed, round_to_grid
from mdplugin.reference import evaluate
from mdplugin.tables import RadialTable

STEP_A = 1e-3  # of the central differences along d; float64 leaves errors of 1e-6 of x'
DIRECTIONS = 2  # per frame
SMOOTHING = (
    0.5  # power of the typical size that moves from x into W; 0, 0.25, ... 1 were tried on water and 3BPA
)
DAMPING = 1e-3  # of the mean diagonal of H: frames do not show all that inputs can be


@dataclass
class Statistics:
    """Sums over rows of one matrix, per species (or one for all).

    Attributes:
        hessian: (n_species or 1, n_in, n_in). square: (n_in,) sum of x². rows: how many.
    """

    hessian: Tensor
    square: Tensor
    rows: int = 0


@dataclass(frozen=True)
class Calibration:
    """Statistics of every matrix between the layers, by place and block weight."""

    statistics: dict[Place, tuple[Statistics, ...]]

    def round(self, place: Place, linear: LinearMap, storage: torch.dtype, smooth: bool) -> LinearMap:
        """The map with its matrices in fixed point."""
        weights = []
        for weight, statistics in zip(linear.weights, self.statistics[place], strict=True):
            stored = round_for_forces(weight.matrix, statistics, storage, smooth)
            weights.append(replace(weight, matrix=stored.restore(), stored=stored))
        return replace(linear, weights=tuple(weights))


def collect_statistics(
    model: MaceModel, tables: Sequence[RadialTable], frames: Sequence[ase.Atoms], seed: int = 0
) -> Calibration:
    """Run the float64 reference along random directions of every frame.

    Args:
        model: before its matrices are rounded, after `quantize_tables`.
        tables: radial tables per layer.
        frames: structures like those that will be simulated.
        seed: of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    places = _list_places(model)
    statistics = {
        place: tuple(_empty(weight) for weight in linear.weights) for place, linear in places.items()
    }
    for atoms in frames:
        edges = Neighbors(model.r_max + 2 * STEP_A, skin=0.0).find(atoms)
        species = torch.tensor([model.atomic_numbers.index(int(z)) for z in atoms.numbers])
        for _ in range(DIRECTIONS):
            d = torch.randn((len(atoms), 3), generator=generator, dtype=torch.float64)
            along = STEP_A * (d[edges.receivers] - d[edges.senders])
            ends = [_run(model, tables, edges.vectors + sign * along, edges, species) for sign in (-1, 1)]
            for place, linear in places.items():
                x, dx = _differentiate([_input(end, place) for end in ends])
                g, dg = _differentiate([_gradient(end, place) for end in ends])
                for weight, sums in zip(linear.weights, statistics[place], strict=True):
                    _add(sums, linear, weight, (x, dx, g, dg), species)
    return Calibration(statistics)


def _list_places(model: MaceModel) -> dict[Place, LinearMap]:
    places: dict[Place, LinearMap] = {}
    for t, layer in enumerate(model.layers):
        places["message", t, 0] = layer.message
        for s, part in enumerate(layer.up.maps):
            if part is not None and t:
                places["up", t, s] = part
    return places


def _empty(weight: BlockWeight) -> Statistics:
    n_species, n_in, _ = weight.matrix.shape
    zeros = torch.zeros((n_species, n_in, n_in), dtype=torch.float64)
    return Statistics(zeros, torch.zeros(n_in, dtype=torch.float64))


def _run(
    model: MaceModel, tables: Sequence[RadialTable], vectors: Tensor, edges, species: Tensor
) -> dict[str, Tensor]:
    seen: dict[str, Tensor] = {}

    def tap(name: str, value: Tensor) -> Tensor:
        seen[name] = value
        return value

    evaluate(model, vectors, edges.senders, edges.receivers, species, len(species), tables=tables, tap=tap)
    return seen


def _input(seen: dict[str, Tensor], place: Place) -> Tensor:
    kind, t, s = place
    return seen[f"A.{t + 1}"] if kind == "message" else seen[f"B.{s + 1}"]


def _gradient(seen: dict[str, Tensor], place: Place) -> Tensor:
    kind, t, _ = place
    return seen[f"gy.{t + 1}"] if kind == "message" else seen[f"gu_all.{t + 1}"]


def _differentiate(ends: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Value and derivative in the middle."""
    return (ends[0] + ends[1]) / 2, (ends[1] - ends[0]) / (2 * STEP_A)


def _add(
    sums: Statistics, linear: LinearMap, weight: BlockWeight, values: tuple[Tensor, ...], species: Tensor
) -> None:
    """Add the rows of one evaluation; `values` are x, x', g, g' of all blocks."""
    n_species, n_in, n_out = weight.matrix.shape
    width = 2 * linear.source.blocks[weight.source].l + 1
    sides = ((linear.source, weight.source, n_in), (linear.target, weight.target, n_out))
    (x, dx), (g, dg) = (
        [value[:, layout.offsets[b] : layout.offsets[b + 1]].reshape(-1, n) for value in pair]
        for pair, (layout, b, n) in zip((values[:2], values[2:]), sides, strict=True)
    )
    of_row = species.repeat_interleave(width) if n_species > 1 else torch.zeros(len(x), dtype=torch.int64)
    for z in range(n_species):
        own = of_row == z
        a, da, b, db = x[own], dx[own], g[own], dg[own]
        rates, cross, sizes = ((p * q).sum(1, keepdim=True) for p, q in ((db, db), (b, db), (b, b)))
        mixed = (a * cross).T @ da
        sums.hessian[z] += (a * rates).T @ a + mixed + mixed.T + (da * sizes).T @ da
    sums.square += x.square().sum(0)
    sums.rows += len(x)


def round_for_forces(matrix: Tensor, statistics: Statistics, storage: torch.dtype, smooth: bool) -> Stored:
    """Fixed point per output channel, rows rounded one after the other (module docstring).

    Args:
        matrix: (n_species or 1, n_in, n_out) float64.
        statistics: of this matrix.
        storage: int8 or int16.
        smooth: divide inputs by their typical size, since they are rounded to few bits too.

    Raises:
        StructureError: the frames' forces are not finite.
    """
    if not torch.isfinite(statistics.hessian).all():
        raise StructureError(
            "calibrate: expected frames with finite forces, got a gradient that is not finite"
        )
    in_scale = torch.ones(matrix.shape[1], dtype=torch.float64)
    if smooth:
        size = (statistics.square / max(statistics.rows, 1)).sqrt()
        if float(size.max()) > 0:
            in_scale = (size / size.max()).clamp(min=1e-3) ** -SMOOTHING
    scaled = matrix / in_scale[:, None]
    scale = round_fixed(scaled, storage).scale
    values = torch.stack(
        [
            _round_rows(scaled[z], scale[z], in_scale[:, None] * statistics.hessian[z] * in_scale, storage)
            for z in range(len(matrix))
        ]
    )
    return Stored(values, scale, in_scale if smooth else None)


def _round_rows(W: Tensor, scale: Tensor, H: Tensor, storage: torch.dtype) -> Tensor:
    """Whole numbers (n_in, n_out), rows in the order of their weight in H; to nearest where the frames show no inputs."""
    if not float(H.diagonal().mean()) > 0:
        return round_to_grid(W, scale, storage)
    H = H + DAMPING * H.diagonal().mean() * torch.eye(len(H), dtype=torch.float64)
    order = torch.argsort(H.diagonal(), descending=True, stable=True)
    W, H = W[order].clone(), H[order][:, order]
    # upper factor of the inverse: row k says how the rows after k make up for its error
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
    rounded = torch.empty(W.shape, dtype=storage)
    for k in range(len(W)):
        rounded[order[k]] = round_to_grid(W[k], scale[0], storage)
        error = (W[k] - rounded[order[k]].double() * scale[0]) / U[k, k]
        W[k + 1 :] -= U[k, k + 1 :, None] * error
    return rounded
