"""MaceModel + edges -> floating-point operations of one step: the work that the equations ask for.

Counted from the lowered arrays with the formulas of docs/lowering.md ("Counts"), one fused multiply-add = 2 operations,
forward and reverse, channels without padding. An implementation may do more; it should not do less. So operations over
time, divided by the rate of a matrix product on the same cores, is a lower bound on how near the step is to the machine.

    convolution, per edge and channel   forward  P taps + v + T         (R from the table; R u; sum over m)
                                        reverse  2 P taps + P + 2 T + 2 v, and v more where u has a gradient
                 per edge               forward  C                      (T from the couplings and Y)
                                        reverse  2 C                    (T again; Y from T)
    linear map, per node                rows * copies_in * K_in * copies_out * K_out, and the same in reverse
    contraction, per node and channel   forward  sum over terms of (degree - 1) monomials + nnz(U) + (2L + 1) paths
                                        reverse  twice that

P paths, T non-zero entries (m1, m3) of all paths, C couplings, v = sum over paths of 2 l1 + 1, K channels.
"""

from dataclasses import dataclass

from mdplugin.model import Contraction, Convolution, LinearMap, MaceModel, NodeMap

TAPS = 6  # weights of a quintic spline, the radial tables of the native network
REVERSE_OF_LINEAR = 1  # inputs alone have gradients: the transposed product


@dataclass(frozen=True)
class Operations:
    """Fused multiply-adds of one step by stage; `layers` in the network's order."""

    convolve: tuple[int, ...]
    reverse_convolve: tuple[int, ...]
    contract: tuple[int, ...]
    reverse_contract: tuple[int, ...]
    linear_maps: int

    @property
    def flops(self) -> int:
        """Floating-point operations of the whole step."""
        stages = (self.convolve, self.reverse_convolve, self.contract, self.reverse_contract)
        return 2 * (sum(map(sum, stages)) + self.linear_maps)


def count_operations(model: MaceModel, n_atoms: int, n_edges: int, taps: int = TAPS) -> Operations:
    """Operations of one evaluation of energy and forces."""
    layers = model.layers
    convolutions = [_count_convolution(layer.convolution, taps, t > 0) for t, layer in enumerate(layers)]
    contractions = [_count_contraction(layer.contraction) for layer in layers]
    node_maps = [layer.up for layer in layers] + [model.linear]
    linear = sum(_count_linear(layer.message) for layer in layers)
    if model.perceptron is not None:
        node_maps.append(model.perceptron.hidden)
        width = len(model.perceptron.output)
        linear += width + (width * width if model.perceptron.middle is not None else 0)
    linear += sum(_count_linear(part) for node_map in node_maps for part in _parts(node_map))
    return Operations(
        convolve=tuple(n_edges * forward for forward, _ in convolutions),
        reverse_convolve=tuple(n_edges * reverse for _, reverse in convolutions),
        contract=tuple(n_atoms * count for count in contractions),
        reverse_contract=tuple(n_atoms * 2 * count for count in contractions),
        linear_maps=n_atoms * (1 + REVERSE_OF_LINEAR) * linear,
    )


def _parts(node_map: NodeMap) -> list[LinearMap]:
    return [part for part in node_map.maps if part is not None]


def _count_convolution(convolution: Convolution, taps: int, with_source: bool) -> tuple[int, int]:
    """Forward and reverse of one edge; `with_source`: the sender's features have a gradient."""
    channels, n_paths, n_couplings = (
        convolution.source.channels,
        len(convolution.paths),
        len(convolution.values),
    )
    v = sum(2 * path.l1 + 1 for path in convolution.paths)
    entries = convolution.indices[:, [0, 1, 3]].unique(dim=0).shape[0]  # (path, row of u, row of A)
    forward = n_paths * taps + v + entries
    reverse = 2 * n_paths * taps + n_paths + 2 * entries + (3 if with_source else 2) * v
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
