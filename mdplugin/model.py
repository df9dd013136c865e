"""MaceModel: a MACE potential as plain frozen arrays in float64, the native engine's only input.

Symbols follow Batatia et al., NeurIPS 2022 (MACE): edges give Y_lm and R, the convolution A, the symmetric
contraction B; every node-wise quantity between the layers is linear in the B of the layers before, so all
consecutive linear maps of the checkpoint are merged (docs/lowering.md has the equations and layouts).

Every feature array is (node, row, channel) with channels innermost. A row is one (lm) component of one copy
of an irrep: rows run over blocks (irreps), in a block over m, in m over copies. So the copies x channels of
one component lie contiguously, and a linear map is one matrix product per block.
"""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor


@dataclass(frozen=True)
class Block:
    """One irrep of O(3): degree l, parity (+1 even, -1 odd), and how many copies of it (each of all channels)."""

    l: int  # noqa: E741 (the symbol of the field)
    parity: int
    copies: int = 1

    @property
    def n_rows(self) -> int:
        """(2l + 1) * copies."""
        return (2 * self.l + 1) * self.copies


@dataclass(frozen=True)
class Layout:
    """Rows of a feature array: `blocks` in order, and the number of `channels` of every row."""

    blocks: tuple[Block, ...]
    channels: int

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """First row of every block, then the number of rows."""
        offsets = [0]
        for block in self.blocks:
            offsets.append(offsets[-1] + block.n_rows)
        return tuple(offsets)

    @property
    def n_rows(self) -> int:
        """Number of rows of a feature array."""
        return self.offsets[-1]

    def row(self, block: int, m: int, copy: int = 0) -> int:
        """Row of component `m` in [0, 2l] of a block's copy."""
        return self.offsets[block] + m * self.blocks[block].copies + copy

    def find(self, l: int, parity: int) -> int | None:  # noqa: E741
        """Index of the block of an irrep, or None."""
        return next((i for i, b in enumerate(self.blocks) if (b.l, b.parity) == (l, parity)), None)


@dataclass(frozen=True)
class Stored:
    """Parameters as they are kept in a file: values x scale [x in_scale of the rows].

    Attributes:
        values: in the storage type. scale: float64, of a shape that broadcasts to `values`.
        in_scale: (n_in,) of a matrix whose inputs are multiplied by it before they are rounded, or None.
    """

    values: Tensor
    scale: Tensor
    in_scale: Tensor | None = None

    def restore(self) -> Tensor:
        """The parameters in float64."""
        restored = self.values.double() * self.scale
        return restored if self.in_scale is None else restored * self.in_scale[:, None]


@dataclass(frozen=True)
class BlockWeight:
    """The part of a linear map between two blocks of equal (l, parity).

    Attributes:
        source, target: indices of the blocks.
        matrix: (n_species or 1, copies_in * channels_in, copies_out * channels_out); 1 when all species share it.
        stored: the same after rounding (quantize.py), or None.
    """

    source: int
    target: int
    matrix: Tensor
    stored: Stored | None = None


@dataclass(frozen=True)
class LinearMap:
    """y[i, (target, m), :] = sum over weights of x[i, (source, m), :] @ matrix[species of i]; m is untouched."""

    source: Layout
    target: Layout
    weights: tuple[BlockWeight, ...]


@dataclass(frozen=True)
class NodeMap:
    """y_i = bias[species of i] + sum over layers s of maps[s](B_s,i): what is linear in all that a node knows.

    Attributes:
        target: layout of y.
        bias: (n_species, n_rows, channels); zero outside scalars.
        maps: one per earlier layer, None where that layer does not contribute.
    """

    target: Layout
    bias: Tensor
    maps: tuple[LinearMap | None, ...]


@dataclass(frozen=True)
class RadialBasis:
    """e_n(r): n_basis functions of the transformed distance, with the polynomial cutoff.

    Attributes:
        kind: "bessel", "gaussian" or "chebyshev".
        frequencies: (n_basis,) Bessel: n pi / r_max (1/Å); Gaussian: centres; Chebyshev: degrees.
        prefactor: Bessel: sqrt(2 / r_max); Gaussian: coefficient of the exponent; Chebyshev: unused.
        transform: "none", "agnesi" or "soft".
        transform_constants: Agnesi (q, p, a); soft (alpha,).
        r_0: (n_pairs,) Å, the transform's length per species pair.
        pairs: (n_species, n_species) int64, [sender, receiver] -> index into r_0.
        r_max: cutoff, Å. p: order of the polynomial cutoff.
        cutoff_after: False: the basis is multiplied by the cutoff; True: the radial functions are.
    """

    kind: str
    frequencies: Tensor
    prefactor: float
    transform: str
    transform_constants: tuple[float, ...]
    r_0: Tensor
    pairs: Tensor
    r_max: float
    p: int
    cutoff_after: bool

    @property
    def n_pairs(self) -> int:
        """Number of different radial functions of distance: 1 unless a transform tells species apart."""
        return self.r_0.shape[0]


@dataclass(frozen=True)
class RadialLayer:
    """x -> x @ weight + bias [species pair], then, in hidden layers, LayerNorm (where there is a norm) and silu.

    Attributes:
        weight: (n_in, n_out); the last layer's columns are path-major, channels innermost.
        bias: (n_pairs or 1, n_out), or None.
        norm: (2, n_out), gain and offset of the LayerNorm, or None.
    """

    weight: Tensor
    bias: Tensor | None = None
    norm: Tensor | None = None


@dataclass(frozen=True)
class RadialMLP:
    """R(r): a perceptron of the radial basis, all normalisations in its weights.

    Attributes:
        layers: the last has no silu.
        eps: of the LayerNorms.
    """

    layers: tuple[RadialLayer, ...]
    eps: float = 0.0


@dataclass(frozen=True)
class Density:
    """rho(r) = factor * tanh(mlp(r)²), summed over neighbours; one function."""

    mlp: RadialMLP
    factor: float


@dataclass(frozen=True)
class Path:
    """One tensor-product path of the convolution: sender irrep l1 x Y_l2 -> l3.

    Attributes:
        l1, l2, l3: degrees.
        source, source_copy: block of the sender features.
        target, target_copy: block of A.
    """

    l1: int
    l2: int
    l3: int
    source: int
    source_copy: int
    target: int
    target_copy: int


@dataclass(frozen=True)
class Convolution:
    """A_i,(p l3m3),k = sum_j R_p,k(r_ij) sum C^l3m3_l1m1,l2m2 u_j,(l1m1),k Y_l2m2(r_ij).

    Attributes:
        source: layout of u (senders). target: layout of A: per (l3, parity) one block, its copies the paths.
        l_max: of Y. paths: ordered by target block, then copy; the order of the radial functions.
        indices: (n_couplings, 4) int64 [path, row of u, row of Y (l2² + m2), row of A], sorted by path.
        values: (n_couplings,) sqrt(2 l3 + 1) x Wigner 3j, as e3nn orders and signs them.
        radial: R, (n_edges, n_paths, channels). density: rho of the blocks normalised by it, or None.
    """

    source: Layout
    target: Layout
    l_max: int
    paths: tuple[Path, ...]
    indices: Tensor
    values: Tensor
    radial: RadialMLP
    density: Density | None


@dataclass(frozen=True)
class ContractionTerm:
    """The polynomials of one degree and one output irrep: B_M,c += sum W[species, q, c] U[M, q, t] prod A_(t),c.

    Attributes:
        target: block of B. degree: nu, the number of factors.
        monomials: (n_monomials, nu) int64, ascending rows of A: every product once, permutations merged.
        indices: (n_couplings, 3) int64 [monomial, M, path]. values: (n_couplings,) the couplings U.
        weights: (n_species or 1, n_paths, channels) W; paths are linearly independent.
        stored: the weights after rounding (quantize.py), or None.
    """

    target: int
    degree: int
    monomials: Tensor
    indices: Tensor
    values: Tensor
    weights: Tensor
    stored: Stored | None = None

    @property
    def n_paths(self) -> int:
        """Number of independent couplings."""
        return self.weights.shape[1]


@dataclass(frozen=True)
class Contraction:
    """Symmetric contraction (eqs. 10-11): layouts of its input and output, one term per (irrep, degree)."""

    source: Layout
    target: Layout
    terms: tuple[ContractionTerm, ...]


@dataclass(frozen=True)
class Gate:
    """Of the NonLinear block: y = message(A) / (1 + rho) + residual(u); m = after(gated y).

    The scalars of y have 1 + n copies: the first passes silu, the others, through sigmoid, multiply the n other
    irreps in order.

    Attributes:
        residual: from u of the node itself to y.
        scalar_scale, gate_scale: factors on silu and sigmoid.
        gated: layout between gate and `after`. after: to m.
    """

    residual: LinearMap
    scalar_scale: float
    gate_scale: float
    gated: Layout
    after: LinearMap


@dataclass(frozen=True)
class Layer:
    """One interaction: u = up(B of earlier layers), A = convolution(u), m = message(A) [/ (1 + rho)], B = contraction(m).

    Attributes:
        gate: what the NonLinear block does between message and contraction, or None.
    """

    up: NodeMap
    convolution: Convolution
    message: LinearMap
    contraction: Contraction
    gate: Gate | None = None


@dataclass(frozen=True)
class Perceptron:
    """gate(gate(x) @ middle + middle_bias) @ output + output_bias; without `middle`: gate(x) @ output + output_bias.

    Attributes:
        hidden: x, (n, width) in channels of one scalar row. gate: "silu", "tanh", "abs" or "identity".
        gate_scale: factor on the gate. middle: (width, width) or None. middle_bias: (width,) or None.
        output: (width,). output_bias: float.
    """

    hidden: NodeMap
    gate: str
    gate_scale: float
    middle: Tensor | None
    middle_bias: Tensor | None
    output: Tensor
    output_bias: float


@dataclass(frozen=True)
class Zbl:
    """v(r) = amplitude / r * sum_n c_n exp(-d_n r / a) * envelope(r / r_cut), half of it on each atom of a pair.

    Attributes:
        amplitude: (n_species, n_species) eV Å, half of e²/(4 pi eps_0) Z Z'. screening: (n_species, n_species) Å, a.
        r_cut: (n_species, n_species) Å, sum of covalent radii. coefficients, decays: (4,). p: order of the envelope.
    """

    amplitude: Tensor
    screening: Tensor
    r_cut: Tensor
    coefficients: Tensor
    decays: Tensor
    p: int


@dataclass(frozen=True)
class MaceModel:
    """E_i = e0s[z] + shift + scale * (linear_i + perceptron_i + 1/2 sum_j zbl_ij).

    Attributes:
        atomic_numbers: species index -> element. r_max: Å. e0s: (n_species,) eV. scale: 1; shift: eV.
        basis: radial basis shared by all layers. layers: the interactions.
        linear: all linear readouts merged to one channel, eV / scale. perceptron: last readout, or None.
        zbl: pair repulsion, or None.
    """

    atomic_numbers: tuple[int, ...]
    r_max: float
    e0s: Tensor
    scale: float
    shift: float
    basis: RadialBasis
    layers: tuple[Layer, ...]
    linear: NodeMap
    perceptron: Perceptron | None
    zbl: Zbl | None

    @property
    def l_max(self) -> int:
        """Degree of the spherical harmonics."""
        return self.layers[0].convolution.l_max


def scalar_layout(channels: int) -> Layout:
    """One even scalar row."""
    return Layout((Block(0, 1),), channels)
