"""MaceModel + edges -> floating-point operations of one step: the work that the equations ask for.

Counted from the lowered arrays with the formulas of docs/lowering.md ("Counts"), one fused multiply-add = 2 operations,
forward and reverse, channels without padding, by the parts into which `split` takes a step. Kernels may do more, and
rearranged equations less; over time, and over the rate of a matrix product on the same cores, the count says how near
a part is to the machine.

    convolution, per edge and channel   forward  P taps + v + T         (R from the table; R u; sum over m)
                                        reverse  2 P taps + P + 2 T + 2 v, and v more where u has a gradient
                 per edge               forward  C                      (T from the couplings and Y)
                                        reverse  2 C                    (T again; Y from T)
    linear map, per node                rows * copies_in * K_in * copies_out * K_out, and the same in reverse
    contraction, per node and channel   forward  sum over terms of (degree - 1) monomials + nnz(U) + (2L + 1) paths
                                        reverse  twice that

P paths, T non-zero entries (m1, m3) of all paths, C couplings, v = sum over paths of 2 l1 + 1, K channels.
"""

from mdplugin.model import Contraction, Convolution, LinearMap, MaceModel, NodeMap

TAPS = 6  # weights of a quintic spline, the radial tables of the native network
FLOPS_PER_FMA = 2


def count_operations(model: MaceModel, n_atoms: int, n_edges: int) -> dict[str, int]:
    """Part of a step -> its operations in one evaluation of energy and forces."""
    fmas = {"linear maps": 0, "readout": 2 * n_atoms * _count_readout(model)}
    for t, layer in enumerate(model.layers, 1):
        forward, reverse = _count_convolution(layer.convolution, with_source=t > 1)
        fmas[f"convolve {t}"], fmas[f"reverse convolve {t}"] = n_edges * forward, n_edges * reverse
        contraction = _count_contraction(layer.contraction)
        fmas[f"contract {t}"], fmas[f"reverse contract {t}"] = (
            n_atoms * contraction,
            2 * n_atoms * contraction,
        )
        linear = _count_linear(layer.message) + _count_node_map(layer.up)
        fmas["linear maps"] += 2 * n_atoms * linear  # inputs alone have gradients: the transposed product
    return {part: FLOPS_PER_FMA * count for part, count in fmas.items()}


def _count_readout(model: MaceModel) -> int:
    """One node, forward."""
    count, net = _count_node_map(model.linear), model.perceptron
    if net is None:
        return count
    width = len(net.output)
    return count + _count_node_map(net.hidden) + width + (width * width if net.middle is not None else 0)


def _count_node_map(node_map: NodeMap) -> int:
    return sum(_count_linear(part) for part in node_map.maps if part is not None)


def _count_convolution(convolution: Convolution, with_source: bool) -> tuple[int, int]:
    """Forward and reverse of one edge; `with_source`: the sender's features have a gradient."""
    channels, n_paths, n_couplings = (
        convolution.source.channels,
        len(convolution.paths),
        len(convolution.values),
    )
    v = sum(2 * path.l1 + 1 for path in convolution.paths)
    entries = convolution.indices[:, [0, 1, 3]].unique(dim=0).shape[0]  # (path, row of u, row of A)
    forward = n_paths * TAPS + v + entries
    reverse = 2 * n_paths * TAPS + n_paths + 2 * entries + (3 if with_source else 2) * v
    return channels * forward + n_couplings, channels * reverse + 2 * n_couplings


def _count_linear(linear: LinearMap) -> int:
    """One node, forward: a matrix product per pair of blocks, for each of the 2l + 1 components."""
    return sum(
        (2 * linear.source.blocks[weight.source].l + 1) * weight.matrix.shape[1] * weight.matrix.shape[2]
        for weight in linear.weights
    )


def _count_contraction(contraction: Contraction) -> int:
    """One node, forward."""
    return contraction.source.channels * sum(
        (term.degree - 1) * len(term.monomials)
        + len(term.values)
        + (2 * contraction.target.blocks[term.target].l + 1) * term.n_paths
        for term in contraction.terms
    )
