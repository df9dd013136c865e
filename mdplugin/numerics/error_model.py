"""Block + number type -> its rounding error to first order, and a bound that no rounding can pass.

Operands: rounding x moves it by at most q/2 (q: spacing of the type at x), with variance q²/12 if errors are independent.
Arithmetic in a type of unit roundoff u: every product and partial sum is multiplied by 1 + δ, |δ| <= u, E δ² = c u²
with c = E[m^-2] / 3 = 0.18 for significands m whose logarithm is uniform in [1, 2) (Higham, "Accuracy and Stability of
Numerical Algorithms", 2nd ed., sections 2.8, 3.1 and 4.2). With y = Σ terms, S1 = Σ |terms|, S2 = Σ terms², n terms:

    first order   Var = Σ_x (∂y/∂x)² q_x²/12  +  c u² [ 4 S2 + n (S2/2 + y²/3) ]
    worst case    |Δ| <= S1(|x| + q/2) (1 + u)^depth - S1(|x|)

In n (S2/2 + y²/3) the partial sums s_k of a random walk with drift are summed: E s_k² = (k/n) S2 + (k/n)² y². For y = 0
the error grows as sqrt(n) u times the typical partial sum, for equal signs as sqrt(n/3) u y. From the data come S1, S2, y
and the spacings; the type gives u; depth and n count the operations. Nothing is fitted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mdplugin.number_types import NumberType
from mdplugin.numerics.block import Block, Outputs, exact

MODES = ("storage", "compute", "low sums")
MANTISSA = 0.375 / 0.6931471805599453 / 3  # c
U32 = 2.0**-24
SMALL = 1e-6  # relative size of the step by which the derivative of Var is taken


def axes_of(kind: str, x: Tensor) -> tuple[int, ...]:
    """A fixed-point column: one output channel of a parameter; one column of state over nodes or edges."""
    return tuple(range(x.dim() - 1)) if kind == "parameter" and x.dim() > 1 else (0,)


def is_rounded(block: Block, mode: str, kind: str) -> bool:
    """Whether numbers of a kind are rounded to the type: couplings never."""
    if kind == "coupling":
        return False
    return mode != "storage" or not block.has_parameters or kind == "parameter"


def spacing(block: Block, type_: NumberType, mode: str, kind: str, x: Tensor) -> Tensor:
    """q of every number of a block; what is computed with in float32 has at least its spacing."""
    q32 = 2 * U32 * x.abs() if mode == "compute" else torch.zeros_like(x)
    if not is_rounded(block, mode, kind):
        return q32
    q = type_.stored_spacing(x, axes_of(kind, x))
    return q + q32 if type_.is_fixed else q


@dataclass(frozen=True)
class Sizes:
    """What the model takes from the float64 values of a block, per output: y, S2 and S1."""

    values: Outputs
    squares: Outputs
    majorants: Outputs


def measure_sizes(block: Block) -> Sizes:
    """Evaluate a block with its numbers, their squares and their absolute values."""
    majorant = block.majorant or block.evaluate
    return Sizes(
        block.evaluate(exact), block.evaluate(lambda kind, x: x**2), majorant(lambda kind, x: x.abs())
    )


def predict(block: Block, sizes: Sizes, type_: NumberType, mode: str) -> tuple[Outputs, Outputs]:
    """Standard deviation and largest error of every element of every output."""
    return _deviation(block, sizes, type_, mode), _bound(block, sizes, type_, mode)


def _arithmetic(block: Block, type_: NumberType, mode: str) -> tuple[float, int, int]:
    """u of the arithmetic, depth, number of terms."""
    if mode == "storage":
        return 0.0, 0, 0
    if mode == "compute":
        return U32, block.depth, block.n_terms
    return type_.unit_roundoff, 2 * block.n_terms + 3, block.n_terms


def _deviation(block: Block, sizes: Sizes, type_: NumberType, mode: str) -> Outputs:
    step = SMALL / type_.unit_roundoff**2  # makes the change of x² visible in float64

    def variance(kind: str, x: Tensor) -> Tensor:
        return spacing(block, type_, mode, kind, x) ** 2 / 12

    if block.gradient_square is not None:
        inputs = block.gradient_square(variance)
    else:
        moved = block.evaluate(lambda kind, x: x**2 + step * variance(kind, x))
        inputs = tuple((a - b) / step for a, b in zip(moved, sizes.squares, strict=True))
    u, _, n = _arithmetic(block, type_, mode)
    return tuple(
        torch.sqrt(torch.clamp(v + MANTISSA * u**2 * (4 * s + n * (s / 2 + y**2 / 3)), min=0))
        for v, s, y in zip(inputs, sizes.squares, sizes.values, strict=True)
    )


def _bound(block: Block, sizes: Sizes, type_: NumberType, mode: str) -> Outputs:
    majorant = block.majorant or block.evaluate
    u, depth, _ = _arithmetic(block, type_, mode)
    large = majorant(lambda kind, x: x.abs() + spacing(block, type_, mode, kind, x) / 2)
    # 1e-14: rounding of the bound itself
    return tuple(a * (1 + u) ** depth - b + 1e-14 * b for a, b in zip(large, sizes.majorants, strict=True))
