"""Distances -> radial functions R(r) with derivatives, in float64: the exact network, and tables of it.

R is a perceptron of a radial basis (Batatia et al., NeurIPS 2022, eq. 9, and the bases of mace-torch). Since it
depends on the distance alone (and, with a distance transform, on the species pair), it is tabulated. Derivatives
are carried forward by hand as jets (f, f', f'') with respect to r in Å.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from mdplugin.model import Density, RadialBasis, RadialMLP


class Jet(NamedTuple):
    """A function of r with its first two derivatives, tensors of one shape."""

    f: Tensor
    d1: Tensor
    d2: Tensor

    def times(self, other: "Jet") -> "Jet":
        """Product rule."""
        return Jet(
            self.f * other.f,
            self.d1 * other.f + self.f * other.d1,
            self.d2 * other.f + 2 * self.d1 * other.d1 + self.f * other.d2,
        )

    def into(self, g: Tensor, g1: Tensor, g2: Tensor) -> "Jet":
        """Chain rule: g(self), where g, g1, g2 are g and its derivatives at self.f."""
        return Jet(g, g1 * self.d1, g2 * self.d1**2 + g1 * self.d2)

    def mix(self, matrix: Tensor) -> "Jet":
        """Linear map of the last axis."""
        return Jet(self.f @ matrix, self.d1 @ matrix, self.d2 @ matrix)


def distance(r: Tensor) -> Jet:
    """The identity: r (n,) as a jet (n, 1)."""
    r = r[:, None]
    return Jet(r, torch.ones_like(r), torch.zeros_like(r))


def power(r: Tensor, exponent: float) -> tuple[Tensor, Tensor, Tensor]:
    """r**exponent and two derivatives; zero where the derivative's factor is zero, also at r = 0."""
    f = r**exponent
    d1 = exponent * r ** (exponent - 1) if exponent != 0 else torch.zeros_like(r)
    second = exponent * (exponent - 1)
    d2 = second * r ** (exponent - 2) if second != 0 else torch.zeros_like(r)
    return f, d1, d2


def envelope(r: Tensor, r_max: Tensor | float, p: int) -> tuple[Tensor, Tensor, Tensor]:
    """Polynomial cutoff of order p, 1 at r = 0, 0 from r_max on (twice differentiable there); and two derivatives."""
    x = r / r_max
    factors = ((p + 1) * (p + 2) / 2, -p * (p + 2), p * (p + 1) / 2)
    powers = [power(x, p + k) for k in range(3)]
    inside = (r < r_max).to(r.dtype)
    f = (1 - sum(c * q[0] for c, q in zip(factors, powers, strict=True))) * inside
    d1 = -sum(c * q[1] for c, q in zip(factors, powers, strict=True)) / r_max * inside
    d2 = -sum(c * q[2] for c, q in zip(factors, powers, strict=True)) / r_max**2 * inside
    return f, d1, d2


def evaluate_basis(basis: RadialBasis, r: Tensor, pair: Tensor) -> tuple[Jet, Jet]:
    """Basis functions (n, n_basis) and the cutoff (n, 1) that multiplies the radial functions, if any.

    Args:
        basis: the radial basis.
        r: (n,) distances in Å.
        pair: (n,) index into `basis.r_0`.
    """
    x = distance(r)
    cutoff = x.into(*envelope(x.f, basis.r_max, basis.p))
    functions = _functions(basis, _transform(basis, x, basis.r_0[pair][:, None]))
    if basis.cutoff_after:
        return functions, cutoff
    one = torch.ones_like(cutoff.f)
    return functions.times(cutoff), Jet(one, 0 * one, 0 * one)


def _transform(basis: RadialBasis, x: Jet, r_0: Tensor) -> Jet:
    if basis.transform == "agnesi":
        q, p, a = basis.transform_constants
        s = Jet(x.f / r_0, x.d1 / r_0, x.d2)
        # a s^q / (1 + s^(q - p)) = a s^p / (1 + s^(p - q)): no infinity at s = 0
        denominator = s.into(*power(s.f, p - q))
        numerator = s.into(*power(s.f, p))
        ratio = numerator.times(_reciprocal(Jet(1 + denominator.f, denominator.d1, denominator.d2)))
        return _reciprocal(Jet(1 + a * ratio.f, a * ratio.d1, a * ratio.d2))
    if basis.transform == "soft":
        (alpha,) = basis.transform_constants
        low, high = 0.75 * r_0, 4 / 3 * r_0
        slope = alpha / (high - low)
        t = torch.tanh(slope * (x.f - 0.5 * (low + high)))
        step = x.into(0.5 * (1 + t), 0.5 * slope * (1 - t**2), -(slope**2) * t * (1 - t**2))
        moved = Jet(x.f - low, x.d1, x.d2).times(step)
        return Jet(low + moved.f, moved.d1, moved.d2)
    return x


def _reciprocal(x: Jet) -> Jet:
    return x.into(1 / x.f, -1 / x.f**2, 2 / x.f**3)


def _functions(basis: RadialBasis, x: Jet) -> Jet:
    if basis.kind == "bessel":
        return x.into(*_bessel(basis.prefactor, basis.frequencies, x.f))
    if basis.kind == "gaussian":
        u, c = x.f - basis.frequencies, basis.prefactor
        g = torch.exp(c * u**2)
        return x.into(g, 2 * c * u * g, (2 * c + (2 * c * u) ** 2) * g)
    return x.into(*_chebyshev(basis.frequencies, x.f))


def _bessel(prefactor: float, w: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """prefactor * sin(w x) / x; near x = 0 by its series, where the closed derivatives cancel."""
    safe = torch.where(x < 1e-2, torch.ones_like(x), x)
    sine, cosine = torch.sin(w * safe), torch.cos(w * safe)
    g = sine / safe
    g1 = (w * cosine - g) / safe
    g2 = (-(w**2) * sine - 2 * g1) / safe
    t = (w * x) ** 2
    near = (
        w * (1 - t / 6 * (1 - t / 20 * (1 - t / 42))),
        -(w**3) * x / 3 * (1 - t / 10 * (1 - t / 28)),
        -(w**3) / 3 * (1 - 3 * t / 10 * (1 - 5 * t / 84)),
    )
    return tuple(prefactor * torch.where(x < 1e-2, n, far) for n, far in zip(near, (g, g1, g2), strict=True))


def _chebyshev(degrees: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    T, T1, T2 = [one, x], [zero, one], [zero, zero]
    for _ in range(2, int(degrees.max()) + 1):
        T2.append(4 * T1[-1] + 2 * x * T2[-1] - T2[-2])
        T1.append(2 * T[-1] + 2 * x * T1[-1] - T1[-2])
        T.append(2 * x * T[-1] - T[-2])
    pick = degrees.to(torch.int64)
    return tuple(torch.cat(terms, dim=-1)[:, pick] for terms in (T, T1, T2))


def evaluate_radial(basis: RadialBasis, mlp: RadialMLP, r: Tensor, pair: Tensor) -> Jet:
    """R (n, n_functions) with derivatives, exact. `pair` (n,) is `basis.pairs[sender, receiver]`."""
    x, cutoff = evaluate_basis(basis, r, pair)
    return _perceptron(mlp, x, pair).times(cutoff)


def evaluate_density(basis: RadialBasis, density: Density, r: Tensor, pair: Tensor) -> Jet:
    """rho (n, 1), smooth to zero at the cutoff."""
    x, cutoff = evaluate_basis(basis, r, pair)
    x = _perceptron(density.mlp, x, pair)
    x = x.times(x)
    t = torch.tanh(x.f)
    x = x.into(t, 1 - t**2, -2 * t * (1 - t**2)).times(cutoff)
    return Jet(*(density.factor * values for values in x))


def _perceptron(mlp: RadialMLP, x: Jet, pair: Tensor) -> Jet:
    last = len(mlp.layers) - 1
    for k, layer in enumerate(mlp.layers):
        x = x.mix(layer.weight)
        if layer.bias is not None:
            bias = layer.bias[pair] if layer.bias.shape[0] > 1 else layer.bias
            x = Jet(x.f + bias, x.d1, x.d2)
        if layer.norm is not None:
            x = _layer_norm(x, layer.norm, mlp.eps)
        if k < last:
            s = torch.sigmoid(x.f)
            slope = s * (1 - s)
            x = x.into(x.f * s, s + x.f * slope, slope * (2 + x.f * (1 - 2 * s)))
    return x


def _layer_norm(x: Jet, norm: Tensor, eps: float) -> Jet:
    centred = Jet(*(values - values.mean(-1, keepdim=True) for values in x))
    square = centred.times(centred)
    variance = Jet(*(values.mean(-1, keepdim=True) for values in square))
    inverse = (variance.f + eps).rsqrt()
    y = centred.times(variance.into(inverse, -0.5 * inverse**3, 0.75 * inverse**5))
    return Jet(y.f * norm[0] + norm[1], y.d1 * norm[0], y.d2 * norm[0])
