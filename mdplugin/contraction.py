"""Coupling tensors U and weights W of a symmetric contraction -> sparse polynomials.

mace-torch contracts U[M, i1..inu, path] W[species, path, channel] A_i1 ... A_inu over all index tuples. Products
commute, so permutations of a tuple merge into one monomial; merged, many paths coincide or vanish: only
linearly independent ones are kept and the weights of the others are carried over. Equations: Batatia et al.,
NeurIPS 2022, eqs. 10-11.
"""

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from mdplugin.model import ContractionTerm, Layout
from mdplugin.polynomials import restore_couplings

ROUNDING = 1e-13  # of sums of up to 24 permutations of couplings in float64, relative to the largest
FLOAT32_ROUNDING = 24 * 6e-8  # the same in float32


def lower_term(
    U: Tensor,
    W: Tensor,
    *,
    source: Layout,
    target: Layout,
    block: int,
    degree: int,
    dead_rows: set[int],
) -> ContractionTerm | None:
    """One degree and one output irrep of a symmetric contraction.

    Args:
        U: (2L + 1, n_rows, ..., n_rows, n_paths), `degree` times n_rows.
        W: (n_species, n_paths, channels).
        source, target: layouts of A and B; `block` of B is the output.
        degree: number of factors.
        dead_rows: rows of A that are always zero; monomials with one of them are dropped.

    Returns:
        None when nothing is left.

    Raises:
        Unsupported: couplings that are not equivariant.
    """
    monomials, merged = merge_permutations(U.numpy(), degree)
    # a network trained in float32 keeps couplings rounded to it, also when it was saved in float64
    noise = FLOAT32_ROUNDING if torch.equal(U, U.float().double()) else ROUNDING
    scale = float(U.abs().max())  # of the terms: antisymmetric couplings cancel to its rounding
    if np.abs(merged).max(initial=0.0) <= noise * scale:
        return None
    irrep = (target.blocks[block].l, target.blocks[block].parity)
    merged = restore_couplings(source, irrep, monomials, merged, tolerance=10 * noise)
    merged[np.abs(merged) <= ROUNDING * scale] = 0.0  # permutations that cancel
    alive = ~np.isin(monomials, sorted(dead_rows)).any(axis=1) & merged.any(axis=(1, 2))
    monomials, merged = monomials[alive], merged[alive]
    if not len(monomials):
        return None
    kept, combination = independent_paths(merged.reshape(-1, merged.shape[-1]), 100 * noise)
    merged = merged[..., kept]
    used = merged.any(axis=(1, 2))
    monomials, merged = monomials[used], merged[used]
    indices = np.argwhere(merged != 0.0)
    return ContractionTerm(
        target=block,
        degree=degree,
        monomials=torch.from_numpy(monomials),
        indices=torch.from_numpy(indices),
        values=torch.from_numpy(merged[tuple(indices.T)].copy()),
        weights=torch.einsum("qk,zkc->zqc", torch.from_numpy(combination), W).contiguous(),
    )


def merge_permutations(U: np.ndarray, degree: int) -> tuple[np.ndarray, np.ndarray]:
    """Sum a coupling tensor over the permutations of its input indices.

    Returns:
        monomials (n, degree), ascending rows, in lexicographic order, and couplings (n, 2L + 1, n_paths).
    """
    n_rows = U.shape[1]
    where = np.nonzero(U)
    factors = np.sort(np.stack(where[1 : 1 + degree], axis=1), axis=1)
    keys, position = np.unique(factors @ n_rows ** np.arange(degree)[::-1], return_inverse=True)
    merged = np.zeros((len(keys), U.shape[0], U.shape[-1]))
    np.add.at(merged, (position, where[0], where[-1]), U[where])
    return (keys[:, None] // n_rows ** np.arange(degree)[::-1]) % n_rows, merged


def independent_paths(columns: np.ndarray, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Columns that span all, and how every column follows from them.

    Returns:
        kept (n_kept,) ascending, and combination (n_kept, n) with columns = columns[:, kept] @ combination.
    """
    _, R, order = scipy.linalg.qr(columns, mode="economic", pivoting=True)
    diagonal = np.abs(np.diag(R))
    rank = int((diagonal > tolerance * diagonal[0]).sum())
    kept = np.sort(order[:rank])
    combination = np.linalg.lstsq(columns[:, kept], columns, rcond=None)[0]
    combination[:, kept] = np.eye(rank)
    return kept, combination
