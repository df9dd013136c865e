"""Radial functions -> tables: piecewise polynomials on uniform knots over [0, r_max], with measured errors.

On interval i = floor(r / h), t = r / h - i, both kinds have the same form, which is the kernels' one inner loop:

    R_f(r) = sum_j w_j(t) c[i + j, f],    w_j(t) = sum_k pieces[j, k] t^k,

and the derivative has w_j'(t) / h in place of w_j. Kinds: "spline3" (C2) and "spline5" (C4), B-splines with one row of
coefficients per knot. Forces are the exact derivative of the tabulated energy.
"""

from dataclasses import dataclass
from math import factorial

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

from mdplugin.model import Convolution, RadialBasis, Stored
from mdplugin.radial import Jet, evaluate_density, evaluate_radial

KINDS = ("spline3", "spline5")


@dataclass(frozen=True)
class RadialTable:
    """All radial functions of one layer, the density last where there is one.

    Attributes:
        kind: one of KINDS. r_max: Å. n_intervals: h = r_max / n_intervals.
        pieces: (n_weights, n_weights), the weights' polynomials.
        coefficients: (n_pairs, n_rows, n_functions).
        n_radial: how many of the functions are R; one more is the density.
        stored: the knots of R after rounding (quantize.py), (n_pairs, n_rows, n_radial) with a scale per row, or None.
    """

    kind: str
    r_max: float
    n_intervals: int
    pieces: Tensor
    coefficients: Tensor
    n_radial: int
    stored: Stored | None = None

    def functions(self, r: Tensor, pair: Tensor) -> Jet:
        """R (n, n_radial) with derivatives; zero beyond r_max."""
        return Jet(*(values[:, : self.n_radial] for values in self.evaluate(r, pair)))

    def density(self, r: Tensor, pair: Tensor) -> Jet:
        """rho (n, 1) with derivatives; zero beyond r_max."""
        return Jet(*(values[:, self.n_radial :] for values in self.evaluate(r, pair)))

    def evaluate(self, r: Tensor, pair: Tensor) -> Jet:
        """All functions at distances `r` (n,) of species pairs `pair` (n,)."""
        rows, weights = self.taps(r)
        c = self.coefficients[pair[:, None], rows]
        return Jet(*(torch.einsum("nj,njf->nf", w, c) for w in weights))

    def taps(self, r: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Rows of the coefficients (n, n_weights) at distances `r`, and their weights in R, dR/dr and d²R/dr²."""
        h = self.r_max / self.n_intervals
        i = torch.clamp((r / h).floor().to(torch.int64), max=self.n_intervals - 1)
        t = r / h - i
        size = self.pieces.shape[0]
        rows = i[:, None] + torch.arange(size)
        inside = (r < self.r_max).to(r.dtype)[:, None]
        weights = []
        for order in range(3):
            factors = torch.tensor(
                [factorial(k) // factorial(k - order) if k >= order else 0 for k in range(size)]
            )
            powers = t[:, None] ** torch.clamp(torch.arange(size) - order, min=0) * factors
            weights.append(powers @ self.pieces.T * inside / h**order)
        return rows, weights


@dataclass(frozen=True)
class TableError:
    """Largest |table - exact| of R and of dR/dr (1/Å) over [r_min, r_max], each over the largest |exact| there."""

    value: float
    derivative: float


def tabulate(basis: RadialBasis, convolution: Convolution, n_intervals: int, kind: str) -> RadialTable:
    """Tabulate the radial functions of a layer.

    Raises:
        ValueError: an unknown kind, or fewer than two intervals.
    """
    if kind not in KINDS or n_intervals < 2:
        raise ValueError(
            f"tabulate: expected >= 2 intervals and a kind of {KINDS}, got {n_intervals}, '{kind}'"
        )
    degree = int(kind[-1])
    knots = torch.linspace(0, basis.r_max, n_intervals + 1, dtype=torch.float64)
    jets = [exact_functions(basis, convolution, knots, pair) for pair in range(basis.n_pairs)]
    h = basis.r_max / n_intervals
    return RadialTable(
        kind=kind,
        r_max=basis.r_max,
        n_intervals=n_intervals,
        pieces=_spline_pieces(degree),
        coefficients=torch.stack([_spline_rows(jet, h, degree) for jet in jets]),
        n_radial=len(convolution.paths) * convolution.source.channels,
    )


def exact_functions(basis: RadialBasis, convolution: Convolution, r: Tensor, pair: int) -> Jet:
    """R and, where there is one, the density, as columns, exact."""
    pairs = torch.full(r.shape, pair, dtype=torch.int64)
    jet = evaluate_radial(basis, convolution.radial, r, pairs)
    if convolution.density is None:
        return jet
    density = evaluate_density(basis, convolution.density, r, pairs)
    return Jet(*(torch.cat(parts, dim=-1) for parts in zip(jet, density, strict=True)))


def measure_table(
    table: RadialTable, basis: RadialBasis, convolution: Convolution, *, r_min: float, samples: int = 8
) -> TableError:
    """Compare a table with the exact functions at `samples` points per interval between `r_min` and r_max."""
    r = (torch.arange(table.n_intervals * samples, dtype=torch.float64) + 0.5) * (
        table.r_max / table.n_intervals / samples
    )
    r = r[r >= r_min]
    errors, scales = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    for pair in range(basis.n_pairs):
        exact = exact_functions(basis, convolution, r, pair)
        found = table.evaluate(r, torch.full(r.shape, pair, dtype=torch.int64))
        for k in range(2):
            errors[k] = torch.maximum(errors[k], (found[k] - exact[k]).abs().max())
            scales[k] = torch.maximum(scales[k], exact[k].abs().max())
    return TableError(*(errors / scales).tolist())


def _spline_pieces(degree: int) -> Tensor:
    """The degree + 1 uniform B-splines that are not zero on an interval, as polynomials of t (Cox-de Boor)."""
    pieces = torch.ones((1, 1), dtype=torch.float64)
    for d in range(1, degree + 1):
        raised = torch.zeros((d + 1, d + 1), dtype=torch.float64)
        for j in range(d):  # spline j of degree d - 1 starts d - 1 - j intervals to the left
            start = d - 1 - j
            raised[j + 1, :d] += pieces[j] * start / d
            raised[j + 1, 1:] += pieces[j] / d
            raised[j, :d] += pieces[j] * (d - start) / d
            raised[j, 1:] -= pieces[j] / d
        pieces = raised
    return pieces


def _spline_rows(jet: Jet, h: float, degree: int) -> Tensor:
    """Coefficients that interpolate R at the knots and its first (degree - 1) / 2 derivatives at both ends."""
    n = jet.f.shape[0] - 1
    ends = [
        [
            (order, (jet.d1, jet.d2)[order - 1][end].numpy() * h**order)
            for order in range(1, (degree + 1) // 2)
        ]
        for end in (0, -1)
    ]
    knots = np.arange(-degree, n + degree + 1, dtype=np.float64)  # uniform beyond the ends too
    x = np.arange(n + 1, dtype=np.float64)
    return torch.from_numpy(make_interp_spline(x, jet.f.numpy(), degree, t=knots, bc_type=ends).c)
