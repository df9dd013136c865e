"""Degrees (l1, l2, l3) -> real Wigner 3j symbols in e3nn's order and sign.

The complex Clebsch-Gordan coefficients (Racah's formula, exact in integers) are carried to real spherical
harmonics with components m = -l..l, as in e3nn (Geiger & Smidt, arXiv 2207.09453); e3nn's own table needs an
unsafe unpickling at import, which is why it is not used.
"""

from fractions import Fraction
from functools import cache
from math import factorial, sqrt

import torch
from torch import Tensor

from mdplugin.errors import Unsupported

# Sorted triples of odd sum whose sign in e3nn 0.4.4's table (the one mace-torch pins) is not the formula's.
FLIPPED = {
    (1, 2, 2), (1, 3, 3), (1, 4, 4), (1, 5, 5), (1, 6, 6), (1, 7, 7), (1, 8, 8), (1, 9, 9), (1, 10, 10),
    (1, 11, 11), (3, 4, 6), (3, 5, 7), (3, 6, 8), (3, 7, 9), (3, 8, 10), (3, 9, 11), (4, 4, 5), (4, 5, 6),
    (4, 6, 7), (4, 7, 8), (4, 8, 9), (4, 9, 10), (4, 10, 11), (5, 5, 5), (5, 6, 6), (5, 6, 10), (5, 7, 7),
    (5, 7, 11), (5, 8, 8), (5, 9, 9), (5, 10, 10), (5, 11, 11), (6, 6, 9), (6, 7, 10), (6, 8, 11), (7, 7, 9),
    (7, 8, 10), (7, 9, 11), (8, 8, 9), (8, 9, 10), (8, 10, 11), (9, 9, 9), (9, 10, 10), (9, 11, 11),
}  # fmt: skip
MAX_DEGREE = 11  # of e3nn's table


@cache
def wigner_3j(l1: int, l2: int, l3: int) -> Tensor:
    """(2 l1 + 1, 2 l2 + 1, 2 l3 + 1) float64 of unit norm; the caller must not write into it.

    Raises:
        Unsupported: a degree above e3nn's table.
    """
    if max(l1, l2, l3) > MAX_DEGREE:
        raise Unsupported(f"couplings: expected degrees up to {MAX_DEGREE}, got {(l1, l2, l3)}")
    Q1, Q2, Q3 = (_real_to_complex(degree) for degree in (l1, l2, l3))
    complex_coupling = torch.einsum("ij,kl,mn,ikm->jln", Q1, Q2, Q3.conj(), _clebsch_gordan(l1, l2, l3))
    sign = -1 if tuple(sorted((l1, l2, l3))) in FLIPPED else 1
    return sign * complex_coupling.real / torch.linalg.vector_norm(complex_coupling.real)


def _real_to_complex(degree: int) -> Tensor:
    Q = torch.zeros((2 * degree + 1, 2 * degree + 1), dtype=torch.complex128)
    Q[degree, degree] = 1
    for m in range(1, degree + 1):
        Q[degree - m, degree + m] = sqrt(0.5)
        Q[degree - m, degree - m] = -1j * sqrt(0.5)
        Q[degree + m, degree + m] = (-1) ** m * sqrt(0.5)
        Q[degree + m, degree - m] = 1j * (-1) ** m * sqrt(0.5)
    return (-1j) ** degree * Q


def _clebsch_gordan(j1: int, j2: int, j3: int) -> Tensor:
    C = torch.zeros((2 * j1 + 1, 2 * j2 + 1, 2 * j3 + 1), dtype=torch.complex128)
    for m1 in range(-j1, j1 + 1):
        for m2 in range(-j2, j2 + 1):
            if abs(m1 + m2) <= j3:
                C[j1 + m1, j2 + m2, j3 + m1 + m2] = _racah(j1, m1, j2, m2, j3)
    return C


def _racah(j1: int, m1: int, j2: int, m2: int, j3: int) -> float:
    """<j1 m1 j2 m2 | j3 m1 + m2>; the sum is exact, only the square root rounds."""
    m3, f = m1 + m2, factorial
    prefactor = Fraction(
        (2 * j3 + 1) * f(j3 + j1 - j2) * f(j3 - j1 + j2) * f(j1 + j2 - j3), f(j1 + j2 + j3 + 1)
    ) * (f(j3 + m3) * f(j3 - m3) * f(j1 - m1) * f(j1 + m1) * f(j2 - m2) * f(j2 + m2))
    lowest = max(0, j2 - j3 - m1, j1 - j3 + m2)
    highest = min(j1 + j2 - j3, j1 - m1, j2 + m2)
    total = sum(
        Fraction(
            (-1) ** k,
            f(k)
            * f(j1 + j2 - j3 - k)
            * f(j1 - m1 - k)
            * f(j2 + m2 - k)
            * f(j3 - j2 + m1 + k)
            * f(j3 - j1 - m2 + k),
        )
        for k in range(lowest, highest + 1)
    )
    return sqrt(prefactor * total**2) * (1 if total >= 0 else -1)
