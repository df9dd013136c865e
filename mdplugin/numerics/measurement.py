"""Block + number type -> the error it really makes, in three ways of using the type."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mdplugin.number_types import NumberType
from mdplugin.numerics.block import Block, Map, Outputs
from mdplugin.numerics.error_model import Sizes, axes_of, is_rounded, predict


@dataclass(frozen=True)
class LocalError:
    """One block in one type: errors are root mean squares over an output, over that of the output itself.

    Attributes:
        block, direction, tap, type, mode: which. measured, first_order, worst_case: relative errors.
        of_bound: largest |error| / bound over elements. condition: Σ|terms| / |Σ terms|, of root mean squares.
    """

    block: str
    direction: str
    tap: str
    type: str
    mode: str
    measured: float
    first_order: float
    worst_case: float
    of_bound: float
    condition: float


def rounding(block: Block, type_: NumberType, mode: str) -> Map:
    """f of `Block.evaluate`: what is rounded, and the type of the arithmetic."""

    def f(kind: str, x: Tensor) -> Tensor:
        y = type_.store(x, axes_of(kind, x)) if is_rounded(block, mode, kind) else x
        return y.to(torch.float32) if mode == "compute" else y

    return f


def applies(block: Block, type_: NumberType, mode: str) -> bool:
    """Whether a block can be evaluated so: sums in a low type need their parts, and fixed-point sums are exact."""
    return mode != "low sums" or (block.parts is not None and not type_.is_fixed)


def run_block(block: Block, type_: NumberType, mode: str) -> Outputs:
    """The outputs of a block in a type, as float64."""
    f = rounding(block, type_, mode)
    if mode == "low sums":
        return _sum_low(block, type_, f)
    return tuple(y.double() for y in block.evaluate(f))


def _sum_low(block: Block, type_: NumberType, f: Map) -> Outputs:
    """Terms added one by one, the partial sum rounded every time."""
    chop = type_.rounding
    total: Outputs | None = None
    for part in block.parts(f):
        terms = tuple(chop(p) for p in part)
        total = terms if total is None else tuple(chop(a + b) for a, b in zip(total, terms, strict=True))
    return total


def measure_block(
    block: Block, sizes: Sizes, type_: NumberType, mode: str
) -> tuple[list[LocalError], dict[str, Tensor], dict[str, Tensor]]:
    """Local errors of every output; their elements and their predicted standard deviations by tap."""
    found = run_block(block, type_, mode)
    deviations, bounds = predict(block, sizes, type_, mode)
    rows, errors = [], {}
    for tap, y, y_low, s, b, size in zip(
        block.taps, sizes.values, found, deviations, bounds, sizes.majorants, strict=True
    ):
        errors[tap] = y_low - y
        scale = rms(y)
        if scale == 0:
            continue
        worst = (errors[tap].abs() / torch.where(b > 0, b, 1e-300)).max()
        numbers = (rms(errors[tap]) / scale, rms(s) / scale, rms(b) / scale, float(worst), rms(size) / scale)
        rows.append(LocalError(block.name, block.direction, tap, type_.name, mode, *numbers))
    return rows, errors, dict(zip(block.taps, deviations, strict=True))


def rms(x: Tensor) -> float:
    """Root mean square; 0 of nothing."""
    return math.sqrt(float((x.double() ** 2).mean())) if x.numel() else 0.0
