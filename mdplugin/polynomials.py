"""Irreps -> all equivariant polynomials of their components: the exact span of a symmetric contraction's couplings.

Components commute, so a polynomial of degree nu is a vector over monomials; multiplying the equivariant ones of
degree nu - 1 by A with Clebsch-Gordan coefficients gives, made independent, those of degree nu. Used to restore
couplings that a checkpoint stores rounded to float32.
"""

from itertools import combinations_with_replacement

import numpy as np
import scipy.linalg

from mdplugin.couplings import wigner_3j
from mdplugin.errors import Unsupported
from mdplugin.model import Layout

Basis = dict[tuple[int, int], np.ndarray]  # (L, parity) -> (n_monomials, 2L + 1, n_independent)


def restore_couplings(
    source: Layout, target: tuple[int, int], monomials: np.ndarray, couplings: np.ndarray, tolerance: float
) -> np.ndarray:
    """Project rounded couplings onto the exact equivariant polynomials.

    Args:
        source: layout of A, one copy of each irrep.
        target: (L, parity) of the output.
        monomials: (n, degree) ascending rows of A.
        couplings: (n, 2L + 1, n_paths), permutations merged.
        tolerance: largest change allowed, relative to the largest coupling.

    Returns:
        (n, 2L + 1, n_paths), equivariant to float64 rounding; monomials absent from `monomials` were zero.

    Raises:
        Unsupported: the couplings are further from equivariant than `tolerance`.
    """
    degree = monomials.shape[1]
    nothing = np.zeros((len(_monomials(source.n_rows, degree)), 2 * target[0] + 1, 0))
    basis = _equivariant(source, degree, target[0]).get(target, nothing)
    index = {key: k for k, key in enumerate(_monomials(source.n_rows, degree))}
    rows = [index[tuple(row)] for row in monomials.tolist()]
    full = np.zeros((basis.shape[0], *couplings.shape[1:]))
    full[rows] = couplings
    columns = np.linalg.qr(basis.reshape(-1, basis.shape[-1]))[0]
    flat = full.reshape(-1, full.shape[-1])
    exact = columns @ (columns.T @ flat)
    change = np.abs(exact - flat).max() / np.abs(flat).max()
    if not change <= tolerance:
        raise Unsupported(
            f"symmetric contraction: couplings of degree {degree} to L = {target[0]} are not equivariant"
        )
    return exact.reshape(full.shape)[rows]


def _monomials(n_rows: int, degree: int) -> list[tuple[int, ...]]:
    return list(combinations_with_replacement(range(n_rows), degree))


def _equivariant(source: Layout, degree: int, highest: int) -> Basis:
    """Independent equivariant polynomials of a degree with L up to `highest`."""
    if degree == 1:
        identity = np.eye(source.n_rows)
        return {
            (b.l, b.parity): identity[:, start : start + b.n_rows, None]
            for b, start in zip(source.blocks, source.offsets, strict=False)
        }
    l_max = max(b.l for b in source.blocks)
    lower = _equivariant(source, degree - 1, highest + l_max)
    index = {key: k for k, key in enumerate(_monomials(source.n_rows, degree))}
    products = np.array(
        [[index[tuple(sorted((*key, row)))] for row in range(source.n_rows)]
         for key in _monomials(source.n_rows, degree - 1)]
    )  # fmt: skip
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    for (L, parity), polynomials in lower.items():
        for block, start in zip(source.blocks, source.offsets, strict=False):
            for l3 in range(abs(L - block.l), min(L + block.l, highest) + 1):
                C = wigner_3j(L, block.l, l3).numpy()
                product = np.zeros((len(index), 2 * l3 + 1, polynomials.shape[-1]))
                for m in range(2 * block.l + 1):
                    product[products[:, start + m]] += np.einsum("tMq,MN->tNq", polynomials, C[:, m])
                found.setdefault((l3, parity * block.parity), []).append(product)
    bases = {key: _independent(np.concatenate(parts, axis=-1)) for key, parts in found.items()}
    return {key: basis for key, basis in bases.items() if basis.shape[-1]}  # antisymmetric ones vanish


def _independent(candidates: np.ndarray) -> np.ndarray:
    """A subset of the last axis that spans the rest; one component decides, the others follow by equivariance."""
    one = candidates[:, candidates.shape[1] // 2]
    _, R, order = scipy.linalg.qr(one, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(R))
    kept = np.sort(order[: int((diagonal > 1e-10 * max(1.0, diagonal[0])).sum())])
    return candidates[..., kept]
