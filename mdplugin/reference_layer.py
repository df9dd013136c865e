"""The stages of one layer in plain float64 torch: convolution, density, linear maps, gate, symmetric contraction.

Part of `reference`, which has the conventions: every stage `f` has its hand-written `reverse_f` beside it.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mdplugin.model import Contraction, ContractionTerm, Convolution, Gate, Layout, LinearMap, NodeMap, Path

# --- convolution ---


def _rows(layout: Layout, block: int, copy: int) -> slice:
    """Rows of one copy of an irrep."""
    return slice(layout.offsets[block] + copy, layout.offsets[block + 1], layout.blocks[block].copies)


def _path_matrix(conv: Convolution, k: int, path: Path, Y: Tensor) -> Tensor:
    """T (n_edges, 2 l1 + 1, 2 l3 + 1) = sum over m2 of C Y, and C (2 l1 + 1, 2 l2 + 1, 2 l3 + 1)."""
    C = Y.new_zeros((2 * path.l1 + 1, 2 * path.l2 + 1, 2 * path.l3 + 1))
    mine = conv.indices[:, 0] == k
    _, row_u, row_Y, row_A = conv.indices[mine].T
    m1 = (row_u - conv.source.row(path.source, 0, path.source_copy)) // conv.source.blocks[path.source].copies
    m3 = (row_A - conv.target.row(path.target, 0, path.target_copy)) // conv.target.blocks[path.target].copies
    C[m1, row_Y - path.l2**2, m3] = conv.values[mine]
    return C


def convolve(
    conv: Convolution, R: Tensor, Y: Tensor, u: Tensor, senders: Tensor, receivers: Tensor, n_local: int
) -> Tensor:
    """A (n_local, rows, channels): sum over neighbours of R times the tensor product of u and Y."""
    R = R.unflatten(-1, (len(conv.paths), conv.source.channels))
    A = u.new_zeros((n_local, conv.target.n_rows, conv.target.channels))
    for k, path in enumerate(conv.paths):
        T = torch.einsum("eb,abc->eac", Y[:, path.l2**2 : (path.l2 + 1) ** 2], _path_matrix(conv, k, path, Y))
        u_e = u[senders, _rows(conv.source, path.source, path.source_copy)]
        message = torch.einsum("eac,eak->eck", T, u_e) * R[:, k, None, :]
        A[:, _rows(conv.target, path.target, path.target_copy)].index_add_(0, receivers, message)
    return A


def reverse_convolve(
    conv: Convolution, R: Tensor, Y: Tensor, u: Tensor, senders: Tensor, receivers: Tensor, gA: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to R, Y and u."""
    R = R.unflatten(-1, (len(conv.paths), conv.source.channels))
    gR, gY, gu = torch.zeros_like(R), torch.zeros_like(Y), torch.zeros_like(u)
    for k, path in enumerate(conv.paths):
        C, harmonics = _path_matrix(conv, k, path, Y), slice(path.l2**2, (path.l2 + 1) ** 2)
        T = torch.einsum("eb,abc->eac", Y[:, harmonics], C)
        rows = _rows(conv.source, path.source, path.source_copy)
        u_e = u[senders, rows]
        g = gA[receivers, _rows(conv.target, path.target, path.target_copy)]
        gR[:, k] = torch.einsum("eac,eak,eck->ek", T, u_e, g)
        g = g * R[:, k, None, :]
        gY[:, harmonics] += torch.einsum("eac,abc->eb", torch.einsum("eak,eck->eac", u_e, g), C)
        gu[:, rows].index_add_(0, senders, torch.einsum("eac,eck->eak", T, g))
    return gR.flatten(1), gY, gu


def density_sum(density: Tensor, receivers: Tensor, n_local: int) -> Tensor:
    """rho (n_local,), from (n_edges, 1)."""
    return density.new_zeros(n_local).index_add_(0, receivers, density[:, 0])


def reverse_density_sum(grho: Tensor, receivers: Tensor) -> Tensor:
    """Gradient with respect to the edges' densities, (n_edges, 1)."""
    return grho[receivers, None]


def normalise(y: Tensor, rho: Tensor) -> Tensor:
    """m = y / (1 + rho)."""
    return y / (1 + rho)[:, None, None]


def reverse_normalise(m: Tensor, rho: Tensor, gm: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to y and rho."""
    return gm / (1 + rho)[:, None, None], -(gm * m).sum((1, 2)) / (1 + rho)


def gate_message(gate_: Gate, y: Tensor, u: Tensor) -> Tensor:
    """m of the NonLinear block from the normalised message y and the nodes' own u."""
    y = y + linear(gate_.residual, u, None)
    return linear(gate_.after, _gated(gate_, y), None)


def _gated(gate_: Gate, y: Tensor) -> Tensor:
    """silu of the scalars; the other irreps times sigmoid of their gates (rows 1, 2, ...)."""
    parts = [gate_.scalar_scale * gate("silu", y[:, :1])[0]]
    first = len(gate_.gated.blocks)
    for k, block in enumerate(gate_.gated.blocks[1:], start=1):
        parts.append(gate_.gate_scale * torch.sigmoid(y[:, k : k + 1]) * y[:, first : first + block.n_rows])
        first += block.n_rows
    return torch.cat(parts, dim=1)


def reverse_gate_message(gate_: Gate, y: Tensor, u: Tensor, gm: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to y and to the nodes' own u."""
    y = y + linear(gate_.residual, u, None)
    g = reverse_linear(gate_.after, gm, None)
    gy = torch.zeros_like(y)
    gy[:, :1] = gate_.scalar_scale * gate("silu", y[:, :1])[1] * g[:, :1]
    first, offset = len(gate_.gated.blocks), 1
    for k, block in enumerate(gate_.gated.blocks[1:], start=1):
        s, rows = torch.sigmoid(y[:, k : k + 1]), slice(first, first + block.n_rows)
        g_k = gate_.gate_scale * g[:, offset : offset + block.n_rows]
        gy[:, rows] = s * g_k
        gy[:, k : k + 1] = s * (1 - s) * (g_k * y[:, rows]).sum(1, keepdim=True)
        first, offset = first + block.n_rows, offset + block.n_rows
    return gy, reverse_linear(gate_.residual, gy, None)


def exchange(swap: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A halo exchange of (n, rows, channels) features as (n, rows * channels)."""
    return swap(x.flatten(1)).unflatten(1, x.shape[1:])


def gate(name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The gate and its derivative."""
    if name == "silu":
        s = torch.sigmoid(x)
        return x * s, s * (1 + x * (1 - s))
    if name == "tanh":
        return torch.tanh(x), 1 - torch.tanh(x) ** 2
    if name == "abs":
        return x.abs(), torch.sign(x)
    return x, torch.ones_like(x)


# --- linear maps ---


def _times(x: Tensor, matrix: Tensor, z: Tensor | None) -> Tensor:
    """x (n, m, in) times the (1 or n_species, in, out) matrix of each node's species."""
    if matrix.shape[0] == 1:
        return x @ matrix[0]
    y = x.new_empty((*x.shape[:2], matrix.shape[2]))
    for kind in torch.unique(z).tolist():
        y[z == kind] = x[z == kind] @ matrix[kind]
    return y


def linear(map_: LinearMap, x: Tensor, z: Tensor | None) -> Tensor:
    """Apply a linear map; `z` (n,) is the species of every node, needed where the map tells species apart."""
    y = x.new_zeros((x.shape[0], map_.target.n_rows, map_.target.channels))
    source, target = map_.source.offsets, map_.target.offsets
    for w in map_.weights:
        width = 2 * map_.source.blocks[w.source].l + 1
        rows = x[:, source[w.source] : source[w.source + 1]].reshape(x.shape[0], width, w.matrix.shape[1])
        out = y[:, target[w.target] : target[w.target + 1]]
        out += _times(rows, w.matrix, z).reshape(out.shape)
    return y


def reverse_linear(map_: LinearMap, gy: Tensor, z: Tensor | None) -> Tensor:
    """The transpose of a linear map."""
    gx = gy.new_zeros((gy.shape[0], map_.source.n_rows, map_.source.channels))
    source, target = map_.source.offsets, map_.target.offsets
    for w in map_.weights:
        width = 2 * map_.source.blocks[w.source].l + 1
        rows = gy[:, target[w.target] : target[w.target + 1]].reshape(gy.shape[0], width, w.matrix.shape[2])
        out = gx[:, source[w.source] : source[w.source + 1]]
        out += _times(rows, w.matrix.transpose(1, 2), z).reshape(out.shape)
    return gx


def node_map(map_: NodeMap, B: Sequence[Tensor], z: Tensor) -> Tensor:
    """bias[z] plus the maps of the B of earlier layers."""
    y = map_.bias[z]
    for part, B_s in zip(map_.maps, B, strict=False):
        if part is not None:
            y = y + linear(part, B_s, z)
    return y


def reverse_node_map(map_: NodeMap, gy: Tensor, z: Tensor) -> list[Tensor]:
    """Gradient with respect to every B, 0 where it does not enter."""
    return [gy.new_zeros(()) if part is None else reverse_linear(part, gy, z) for part in map_.maps]


# --- symmetric contraction ---


def _dense(term: ContractionTerm, n_m: int) -> Tensor:
    """U (n_monomials, 2L + 1, n_paths)."""
    U = term.values.new_zeros((term.monomials.shape[0], n_m, term.n_paths))
    U[tuple(term.indices.T)] = term.values
    return U


def _species_weights(term: ContractionTerm, z: Tensor) -> Tensor:
    return term.weights[z] if term.weights.shape[0] > 1 else term.weights.expand(len(z), -1, -1)


def contract(contraction: Contraction, m: Tensor, z: Tensor) -> Tensor:
    """B (n, rows, channels): per species and channel a polynomial in the components of m."""
    target = contraction.target
    B = m.new_zeros((m.shape[0], target.n_rows, target.channels))
    for term in contraction.terms:
        rows = slice(*target.offsets[term.target : term.target + 2])
        products = torch.stack([m[:, factor] for factor in term.monomials.T], dim=0).prod(dim=0)
        couplings = torch.einsum(
            "ntc,tmq->nmqc", products, _dense(term, 2 * target.blocks[term.target].l + 1)
        )
        B[:, rows] += torch.einsum("nmqc,nqc->nmc", couplings, _species_weights(term, z))
    return B


def reverse_contract(contraction: Contraction, m: Tensor, z: Tensor, gB: Tensor) -> Tensor:
    """Gradient with respect to m."""
    target, gm = contraction.target, torch.zeros_like(m)
    for term in contraction.terms:
        rows = slice(*target.offsets[term.target : term.target + 2])
        g = torch.einsum("nmc,nqc->nmqc", gB[:, rows], _species_weights(term, z))
        g = torch.einsum("nmqc,tmq->ntc", g, _dense(term, 2 * target.blocks[term.target].l + 1))
        for k in range(term.degree):
            others = [m[:, term.monomials[:, j]] for j in range(term.degree) if j != k]
            gm.index_add_(1, term.monomials[:, k], math.prod(others, start=g))
    return gm
