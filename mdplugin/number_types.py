"""Name of a number type -> its exact rounding of float64 values: the emulation used by `mdplugin numerics`.

A type is a grid. Around x its spacing is q(x), and rounding is q * rint(x / q), ties to even, in one rule for all:

    float, significand of p bits     q = 2^max(e - p + 1, e_min - p + 1)      2^e <= |x| < 2^(e + 1)
    fixed point, b bits              q = max|x| over a column / (2^(b - 1) - 1)

so that |error| <= q / 2 always (unit roundoff u = 2^-p), and q² / 12 is its variance if x falls anywhere in a cell.
Floats: IEEE 754-2019, sections 3 and 4.3.1; e4m3 and e5m2: Micikevicius et al., "FP8 formats for deep learning",
arXiv:2209.05433 (2022), table 1 (e4m3 has no infinity; it saturates, as torch's cast does);
tf32: NVIDIA A100 white paper (2020).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NumberType:
    """A number type.

    Attributes:
        name: as users type it. bits: of storage.
        significand: p, hidden bit included; 0 for fixed point. e_min: exponent of the smallest normal number.
        largest: largest finite number; 1 in units of the column's largest for fixed point.
        overflow: what a float beyond `largest` becomes.
    """

    name: str
    bits: int
    significand: int
    e_min: int = 0
    largest: float = 1.0
    overflow: float = math.inf

    @property
    def is_fixed(self) -> bool:
        """Fixed point, with one scale per column."""
        return self.significand == 0

    @property
    def unit_roundoff(self) -> float:
        """u: largest relative error of a float; of fixed point, largest error over the column's largest value."""
        return 0.5 / (2 ** (self.bits - 1) - 1) if self.is_fixed else 2.0**-self.significand

    @property
    def is_narrow(self) -> bool:
        """Whether ordinary values leave its range, so that a power-of-two scale per tensor is needed."""
        return not self.is_fixed and self.e_min > -126

    def spacing(self, x: Tensor, axes: tuple[int, ...] = (0,)) -> Tensor:
        """q(x), float64, of x's shape; 0 where x is 0.

        Args:
            x: float64 values.
            axes: over which the largest value of a fixed-point column is taken.
        """
        if self.is_fixed:
            largest = x.abs().amax(dim=axes, keepdim=True) if x.dim() and x.numel() else x.abs()
            q = (largest / (2 ** (self.bits - 1) - 1)).expand_as(x)
        else:
            _, e = torch.frexp(x)  # |x| = f 2^e with f in [1/2, 1)
            q = power_of_two(torch.clamp(e - 1, min=self.e_min) - (self.significand - 1))
        return torch.where(x == 0, torch.zeros_like(q), q)

    def round(self, x: Tensor, axes: tuple[int, ...] = (0,)) -> Tensor:
        """The nearest number of the type, ties to even, as float64; beyond `largest` as hardware does."""
        q = self.spacing(x, axes)
        y = torch.where(q > 0, torch.round(x / torch.where(q > 0, q, 1)) * q, x)
        if self.is_fixed:
            return y
        beyond = torch.copysign(torch.full_like(y, self.overflow), x)
        return torch.where(y.abs() > self.largest, beyond, y)

    def scale(self, x: Tensor) -> float:
        """Power of two that takes the largest |x| just below `largest` if the type is narrow, else 1."""
        largest = float(x.abs().max()) if x.numel() else 0.0
        if not self.is_narrow or largest == 0 or not math.isfinite(largest):
            return 1.0
        # one bit of room: what lies within u of `largest` must not round beyond it
        return 2.0 ** (math.frexp(self.largest)[1] - 1 - math.frexp(largest)[1])

    def store(self, x: Tensor, axes: tuple[int, ...] = (0,)) -> Tensor:
        """`round` as an engine would do it: narrow floats with an exact power-of-two scale of the whole tensor."""
        s = self.scale(x)
        return self.round(x * s, axes) / s

    def stored_spacing(self, x: Tensor, axes: tuple[int, ...] = (0,)) -> Tensor:
        """q of `store`."""
        s = self.scale(x)
        return self.spacing(x * s, axes) / s

    @property
    def rounding(self) -> Callable[[Tensor], Tensor]:
        """Rounding of the significand alone, without end of the exponents: what an accumulator of the type does."""
        wide = NumberType(self.name, self.bits, self.significand, -1000, math.inf)
        return wide.round


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent in float64 by its bits, exactly; exponents below -1022 or above 1023 are clamped."""
    biased = torch.clamp(exponent.to(torch.int64), -1022, 1023) + 1023
    return (biased << 52).view(torch.float64)


TYPES: dict[str, NumberType] = {
    t.name: t
    for t in (
        NumberType("fp32", 32, 24, -126, (2 - 2.0**-23) * 2.0**127),
        NumberType("tf32", 19, 11, -126, (2 - 2.0**-10) * 2.0**127),
        NumberType("fp16", 16, 11, -14, 65504.0),
        NumberType("bf16", 16, 8, -126, (2 - 2.0**-7) * 2.0**127),
        NumberType("e4m3", 8, 4, -6, 448.0, 448.0),
        NumberType("e5m2", 8, 3, -14, 57344.0),
        NumberType("int16", 16, 0),
        NumberType("int8", 8, 0),
    )
}


def float_of(significand: int) -> NumberType:
    """A float with any significand and float32's exponents, for curves."""
    return NumberType(f"p{significand}", 9 + significand, significand, -126, math.inf)
